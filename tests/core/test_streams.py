"""Where standard output and error go: paths, modes, names that flowcore chooses, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.core.conftest import Load

import flowcore
from flowcore import AUTO_LOGNAME, File, bash_app, python_app
from flowcore.app.errors import BadStdStreamFile
from flowcore.app.futures import DataFuture
from flowcore.dataflow.kernel import DataFlowKernel


@bash_app
def tell(word: str = "x", stdout: Any = None, stderr: Any = None, label: Any = None) -> str:
    return f"echo {word}; echo {word}-err >&2"


class TestPaths:
    @pytest.mark.parametrize("kind", [str, Path, File])
    def test_every_kind(self, kernel: DataFlowKernel, kind: Any) -> None:
        future = tell(stdout=kind("o"), stderr=kind("e"))
        future.result()
        assert Path("o").read_text() == "x\n"
        assert Path("e").read_text().endswith("x-err\n")

    def test_an_absolute_one(self, kernel: DataFlowKernel, tmp_path: Path) -> None:
        tell(stdout=str(tmp_path / "deep" / "er" / "o")).result()
        assert (tmp_path / "deep/er/o").read_text() == "x\n"

    def test_it_is_appended_to(self, kernel: DataFlowKernel) -> None:
        for word in "ab":
            tell(word, stdout="o").result()
        assert Path("o").read_text() == "a\nb\n"

    @pytest.mark.parametrize(
        ("mode", "text"), [("w", "b\n"), ("a", "a\nb\n"), ("a+", "a\nb\n"), ("w+", "b\n"), ("wb", "b\n")]
    )
    def test_a_mode(self, kernel: DataFlowKernel, mode: str, text: str) -> None:
        for word in "ab":
            tell(word, stdout=("o", mode)).result()
        assert Path("o").read_text() == text

    def test_a_file_is_truncated(self, kernel: DataFlowKernel) -> None:
        for word in "ab":
            tell(word, stdout=File("o")).result()
        assert Path("o").read_text() == "b\n"

    def test_both_may_be_one(self, kernel: DataFlowKernel) -> None:
        tell(stdout="o", stderr="o").result()
        text = Path("o").read_text()
        assert "x\n" in text
        assert "x-err\n" in text

    def test_the_error_output_shows_the_command(self, kernel: DataFlowKernel) -> None:
        tell(stderr="e").result()
        assert Path("e").read_text().startswith("--> executable follows <--\necho x;")

    def test_they_are_known_at_once(self, kernel: DataFlowKernel) -> None:
        spec = ("o", "w")
        future = tell(stdout=spec, stderr="e")
        assert future.stdout is spec
        assert future.stderr == "e"
        future.result()

    def test_none_is_none(self, kernel: DataFlowKernel) -> None:
        future = tell()
        assert (future.stdout, future.stderr) == (None, None)
        future.result()

    def test_a_future_may_be_part_of_one(self, kernel: DataFlowKernel) -> None:
        with pytest.raises(BadStdStreamFile):
            tell(stdout=python_app(lambda: "o")())


class TestBadOnes:
    @pytest.mark.parametrize(
        "stream",
        [
            ["o", "w"],
            ("o", None),
            ("o", "w", "x"),
            ("o",),
            (),
            5,
            0,
            True,
            b"o",
            ("o", "r"),
            ("o", "z"),
            ("o", ""),
            ("o", "rb"),
            ("o", 5),
            (5, "w"),
            object(),
        ],
    )
    @pytest.mark.parametrize("name", ["stdout", "stderr"])
    def test_they_are_refused_at_the_call(self, kernel: DataFlowKernel, name: str, stream: Any) -> None:
        with pytest.raises(BadStdStreamFile, match=name):
            tell(**{name: stream})

    def test_the_error_is_a_type_error_that_says_what_would_do(self, kernel: DataFlowKernel) -> None:
        with pytest.raises(TypeError, match=r"stdout takes a path, a \(path, mode\) pair or a File, not 5"):
            tell(stdout=5)

    @pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
    def test_a_folder_that_cannot_be_written(self, kernel: DataFlowKernel, tmp_path: Path) -> None:
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o500)
        assert isinstance(tell(stdout=str(folder / "o")).exception(), BadStdStreamFile)

    @pytest.mark.parametrize("place", ["/proc/nothing/here", "file/below", ".", "a\0b"])
    def test_a_place_that_cannot_be_opened(self, kernel: DataFlowKernel, place: str) -> None:
        Path("file").write_text("")
        error = tell(stdout=place).exception()
        assert isinstance(error, BadStdStreamFile)
        assert f"stdout: cannot open {place}" in str(error)
        assert isinstance(error.__cause__, (OSError, ValueError))

    def test_an_exclusive_one_that_exists(self, kernel: DataFlowKernel) -> None:
        Path("o").write_text("")
        assert isinstance(tell(stdout=("o", "x")).exception(), BadStdStreamFile)


class TestChosenNames:
    def test_it_has_the_number_and_the_name_of_the_task(self, kernel: DataFlowKernel) -> None:
        tell().result()
        future = tell(stdout=AUTO_LOGNAME, stderr=AUTO_LOGNAME)
        folder = Path(kernel.run_dir) / "task_logs" / "0000"
        assert future.stdout == str(folder / "task_0001_tell.stdout")
        assert future.stderr == str(folder / "task_0001_tell.stderr")
        future.result()
        assert Path(future.stdout).read_text() == "x\n"
        assert Path(future.stderr).read_text().endswith("x-err\n")

    def test_a_label_is_part_of_it(self, kernel: DataFlowKernel) -> None:
        future = tell(stdout=flowcore.AUTO_LOGNAME, label="fine")
        assert future.stdout.endswith("/task_0000_tell_fine.stdout")

    def test_ten_thousand_share_a_folder(self, kernel: DataFlowKernel) -> None:
        record = tell().task_record
        record.id = 12_345
        assert kernel.default_std_autopath(record, "stdout").endswith("/task_logs/0001/task_12345_tell.stdout")

    def test_the_body_gets_the_path(self, kernel: DataFlowKernel) -> None:
        @bash_app
        def show(stdout: Any = AUTO_LOGNAME) -> str:
            return f"echo {stdout}"

        future = show()
        future.result()
        assert Path(future.stdout).read_text() == f"{future.stdout}\n"

    def test_it_works_for_python_apps_that_take_it(self, kernel: DataFlowKernel) -> None:
        @python_app
        def show(stdout: Any = None) -> Any:
            return stdout

        future = show(stdout=AUTO_LOGNAME)
        assert future.result() == future.stdout

    def test_it_does_not_count_for_being_equal(self, kernel: DataFlowKernel) -> None:
        ignored = ["stderr"]
        app = bash_app(cache=True, ignore_for_cache=ignored)(tell.func)
        first = app(stdout=AUTO_LOGNAME)
        first.result()
        second = app(stdout=AUTO_LOGNAME)
        second.result()
        assert second.task_status() == "memo_done"
        assert not Path(second.stdout).exists()
        assert ignored == ["stderr"]
        assert app.ignore_for_cache == ("stderr",)


class TestChosenByTheUser:
    def test_any_stream_will_do_and_is_told_as_it_is(self, load: Load) -> None:
        specs = {"stdout": ("chosen/o", "w"), "stderr": Path("chosen/e")}
        load(std_autopath=lambda _, stream: specs[stream])
        future = tell(stdout=AUTO_LOGNAME, stderr=AUTO_LOGNAME)
        assert future.stdout is specs["stdout"]
        assert future.stderr is specs["stderr"]
        future.result()
        assert Path("chosen/o").read_text() == "x\n"

    def test_it_sees_the_task(self, load: Load) -> None:
        load(std_autopath=lambda task, stream: f"{task['func_name']}-{task.id}-{stream}")
        assert tell(stdout=AUTO_LOGNAME).stdout == "tell-0-stdout"

    def test_a_file_is_staged_and_has_a_future(self, load: Load) -> None:
        load(std_autopath=lambda *_: File("staged"))
        future = tell(stdout=AUTO_LOGNAME)
        assert isinstance(future.stdout, DataFuture)
        assert Path(future.stdout.result()).read_text() == "x\n"

    def test_its_exception_comes_at_the_call(self, load: Load) -> None:
        def fail(*_: Any) -> Any:
            raise KeyError("autopath")

        kernel = load(std_autopath=fail)
        with pytest.raises(KeyError, match="autopath"):
            tell(stdout=AUTO_LOGNAME)
        kernel.wait_for_current_tasks()
        assert tell(stdout="o").result() == 0

    def test_what_is_no_stream_is_refused_at_the_call(self, load: Load) -> None:
        load(std_autopath=lambda *_: 5)
        with pytest.raises(BadStdStreamFile):
            tell(stdout=AUTO_LOGNAME)

    def test_it_is_not_asked_about_given_paths(self, load: Load) -> None:
        load(std_autopath=lambda *_: 5)
        assert tell(stdout="o").result() == 0


def test_a_remote_file_can_be_a_stream_where_it_can_be_staged(load: Load) -> None:
    load()
    with pytest.raises(ValueError, match="cannot stage file"):  # and not because it has no path here
        tell(stdout=File("zip:/archive.zip/member"))
