"""Logs: silent until asked, on and off again without a trace."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.core.conftest import Load

import flowcore
from flowcore import Config, python_app, set_file_logger, set_stream_logger
from flowcore.errors import ConfigurationError
from flowcore.executors import ThreadPoolExecutor
from flowcore.logs import FileLogging, JSONLogging, NoopLogging

log = logging.getLogger("flowcore.test")


@pytest.fixture(autouse=True)
def _unchanged() -> Iterator[None]:
    root = logging.getLogger("flowcore")
    before = (root.level, list(root.handlers))
    yield
    assert (root.level, root.handlers) == before


class TestStreams:
    def test_records_are_written_until_undone(self) -> None:
        stream = io.StringIO()
        undo = set_stream_logger(stream=stream)
        log.debug("first")
        undo()
        log.debug("second")
        assert "first" in stream.getvalue()
        assert "second" not in stream.getvalue()
        undo()

    def test_level_format_and_name(self) -> None:
        stream = io.StringIO()
        undo = set_stream_logger("flowcore.test", logging.WARNING, "%(levelname)s|%(message)s", stream)
        log.info("quiet")
        log.warning("loud")
        logging.getLogger("flowcore.other").warning("elsewhere")
        undo()
        assert stream.getvalue() == "WARNING|loud\n"

    def test_of_two_each_has_its_own_level(self) -> None:
        fine, coarse = io.StringIO(), io.StringIO()
        undo_fine = set_stream_logger(level=logging.DEBUG, stream=fine)
        undo_coarse = set_stream_logger(level=logging.ERROR, stream=coarse)
        log.debug("x")
        undo_fine()
        log.error("y")
        undo_coarse()
        assert ("x" in fine.getvalue(), "y" in fine.getvalue()) == (True, False)
        assert ("x" in coarse.getvalue(), "y" in coarse.getvalue()) == (False, True)

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    @pytest.mark.parametrize("level", [logging.NOTSET, logging.DEBUG, logging.ERROR])
    def test_the_users_own_level_is_restored_in_any_order(self, order: tuple[int, int], level: int) -> None:
        root, handler = logging.getLogger("flowcore"), logging.NullHandler()
        before = root.level
        root.setLevel(level)
        root.addHandler(handler)
        undo = [set_stream_logger(level=each, stream=io.StringIO()) for each in (logging.INFO, logging.WARNING)]
        for number in order:
            undo[number]()
        assert root.level == level
        root.removeHandler(handler)
        root.setLevel(before)


class TestFiles:
    def test_lines_are_appended(self, tmp_path: Path) -> None:
        for word in ("one", "two"):
            undo = set_file_logger(tmp_path / "log", format_string="%(message)s")
            log.debug(word)
            undo()
        assert (tmp_path / "log").read_text() == "one\ntwo\n"

    def test_a_file_that_cannot_be_opened(self, tmp_path: Path) -> None:
        with pytest.raises(OSError):
            set_file_logger(tmp_path / "no" / "log")


class TestRuns:
    def test_a_run_writes_its_own_log(self, load: Load) -> None:
        kernel = load()
        python_app(lambda: 1)().result()
        kernel.cleanup()
        text = (kernel.run_dir / "flowcore.log").read_text()
        assert f"run {kernel.run_id}" in text
        assert "exec_done 1" in text

    def test_no_line_for_a_task_by_default(self, load: Load) -> None:
        kernel = load()
        before = (kernel.run_dir / "flowcore.log").read_text()
        for _ in range(10):
            python_app(lambda: 1)().result()
        assert (kernel.run_dir / "flowcore.log").read_text() == before

    def test_a_format_of_the_users_own(self, load: Load) -> None:
        kernel = load(initialize_logging=FileLogging(format_string="<%(message)s>", level=logging.WARNING))
        log.info("quiet")
        log.warning("loud")
        kernel.cleanup()
        assert (kernel.run_dir / "flowcore.log").read_text() == "<loud>\n"

    def test_json_lines(self, load: Load) -> None:
        kernel = load(initialize_logging=JSONLogging())
        try:
            raise KeyError("x")
        except KeyError:
            log.exception("it %s", "failed")
        kernel.cleanup()
        entries = [json.loads(line) for line in (kernel.run_dir / "flowcore.log.jsonl").read_text().splitlines()]
        entry = next(entry for entry in entries if entry["message"] == "it failed")
        assert (entry["level"], entry["logger"]) == ("ERROR", "flowcore.test")
        assert "KeyError" in entry["exception"]
        assert entry["time"].endswith("Z")

    def test_two_runs_have_two_logs(self, load: Load) -> None:
        first = load()
        second = flowcore.DataFlowKernel(Config(executors=[ThreadPoolExecutor()]))
        log.info("both")
        first.cleanup()
        log.info("one")
        second.cleanup()
        texts = [(kernel.run_dir / "flowcore.log").read_text() for kernel in (first, second)]
        assert ["both" in text for text in texts] == [True, True]
        assert ["[INFO] one" in text for text in texts] == [False, True]

    @pytest.mark.parametrize("wrong", ["INFO", None])
    @pytest.mark.parametrize("kind", [FileLogging, JSONLogging])
    def test_a_level_is_a_number(self, kind: Any, wrong: Any) -> None:
        with pytest.raises(ConfigurationError, match=rf"^{kind.__name__}\(level={wrong!r}\): a number is needed"):
            kind(level=wrong)

    @pytest.mark.parametrize("wrong", ["no field", 5])
    def test_a_format_is_one_of_logging(self, wrong: Any) -> None:
        with pytest.raises(ConfigurationError, match=rf"^FileLogging\(format_string={wrong!r}\): a format"):
            FileLogging(format_string=wrong)

    def test_none_at_all(self, load: Load, capfd: pytest.CaptureFixture[str]) -> None:
        kernel = load(initialize_logging=NoopLogging())
        python_app(lambda: 1)().result()
        kernel.cleanup()
        assert list(kernel.run_dir.iterdir()) == []
        assert capfd.readouterr() == ("", "")
