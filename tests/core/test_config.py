"""`Config`: every option has an effect or an error that says what would do."""

from __future__ import annotations

import concurrent.futures
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
from tests.core.conftest import Load

import flowcore
from flowcore import Config, python_app
from flowcore.dataflow.dependency_resolvers import DEEP_DEPENDENCY_RESOLVER, SHALLOW_DEPENDENCY_RESOLVER
from flowcore.dataflow.kernel import DataFlowKernel
from flowcore.dataflow.memoization import BasicMemoizer
from flowcore.dataflow.tasks import States
from flowcore.errors import ConfigurationError
from flowcore.executors import HighThroughputExecutor, ThreadPoolExecutor
from flowcore.launchers import SrunLauncher
from flowcore.logs import FileLogging, JSONLogging, NoopLogging
from flowcore.providers import SlurmProvider

DEFAULTS: Mapping[str, Any] = {
    "executors": None,
    "memoizer": None,
    "app_cache": True,
    "checkpoint_mode": None,
    "checkpoint_files": None,
    "checkpoint_period": None,
    "dependency_resolver": None,
    "exit_mode": "cleanup",
    "garbage_collect": True,
    "internal_tasks_max_threads": 10,
    "retries": 0,
    "lost_retries": 2,
    "retry_handler": None,
    "run_dir": "runinfo",
    "std_autopath": None,
    "strategy": "simple",
    "strategy_period": 5,
    "max_idletime": 120.0,
    "monitoring": None,
    "usage_tracking": 0,
    "project_name": None,
    "initialize_logging": FileLogging(),
}

WRONG: Mapping[str, list[Any]] = {
    "executors": [5, "threads", [ThreadPoolExecutor], [5], [], ()],
    "memoizer": [5, BasicMemoizer, object()],
    "app_cache": [1, None],
    "checkpoint_mode": ["sometimes", True],
    "checkpoint_files": ["folder", 5, Path("folder"), [5]],
    "checkpoint_period": ["00:01:00"],
    "dependency_resolver": [5, "deep", DEEP_DEPENDENCY_RESOLVER.traverse_to_gather],
    "exit_mode": ["stop", None],
    "garbage_collect": [0, None],
    "internal_tasks_max_threads": [0, -1, 1.5, None],
    "retries": [-1, None, "1", float("nan")],
    "lost_retries": [-1, 1.5, None],
    "retry_handler": [5],
    "run_dir": [None, 5],
    "std_autopath": ["logs"],
    "strategy": ["best", 5],
    "strategy_period": [0, -1, None],
    "max_idletime": [-1, None, "120"],
    "monitoring": [object(), 5, "on"],
    "usage_tracking": [4, -1, None],
    "project_name": [5],
    "initialize_logging": [None, "INFO", 5, FileLogging],
}


def config(**options: Any) -> Config:
    """Make one whose options are not what the type checker would accept."""
    return Config(**options)


class TestValues:
    def test_the_defaults(self) -> None:
        assert {field.name: getattr(Config(), field.name) for field in attrs.fields(Config)} == DEFAULTS

    def test_every_option_is_tested_for_wrong_values(self) -> None:
        assert set(WRONG) == set(DEFAULTS)

    @pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
    def test_a_wrong_value_is_refused_in_words(self, name: str, value: Any) -> None:
        with pytest.raises(ConfigurationError) as caught:
            config(**{name: value})
        assert name in str(caught.value)
        assert isinstance(caught.value, ValueError)

    def test_an_unknown_option_is_named(self) -> None:
        with pytest.raises(TypeError, match="'retry'"):
            config(retry=1)

    def test_options_have_names(self) -> None:
        with pytest.raises(TypeError):
            Config([ThreadPoolExecutor()])

    def test_it_cannot_be_changed(self) -> None:
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            Config().retries = 1

    @pytest.mark.parametrize("make", [list, tuple, iter])
    def test_any_iterable_of_executors(self, make: Any) -> None:
        executor = ThreadPoolExecutor()
        assert config(executors=make([executor])).executors == (executor,)

    def test_an_executor_that_is_not_in_a_list_is_refused_with_a_remedy(self) -> None:
        with pytest.raises(ConfigurationError, match=r"write executors=\[ThreadPoolExecutor\(...\)\]"):
            config(executors=ThreadPoolExecutor())

    @pytest.mark.parametrize("value", ["threads", b"threads", 5, ThreadPoolExecutor, {"threads": ThreadPoolExecutor()}])
    def test_what_is_no_list_of_executors_is_told_as_it_is(self, value: Any) -> None:
        told = f"executors={value!r}: a list of executors is needed; take those of flowcore.executors"
        with pytest.raises(ConfigurationError, match=re.escape(told)):
            config(executors=value)

    def test_a_class_is_refused_with_a_remedy(self) -> None:
        with pytest.raises(ConfigurationError, match="write it with parentheses"):
            config(executors=[ThreadPoolExecutor])

    def test_what_is_no_executor_is_refused_with_a_remedy(self) -> None:
        foreign = concurrent.futures.ThreadPoolExecutor()
        with pytest.raises(ConfigurationError, match=r"which is no executor; take one of flowcore\.executors$"):
            config(executors=[foreign])

    @pytest.mark.parametrize("label", ["", None, 5])
    def test_an_executor_without_a_label_is_refused(self, label: Any) -> None:
        executor = ThreadPoolExecutor()
        object.__setattr__(executor, "label", label)  # past the check of the constructor
        with pytest.raises(ConfigurationError, match=r"has no label by which apps could ask for it\n  give it one"):
            config(executors=[executor])

    @pytest.mark.parametrize(
        ("wrong", "remedy"),
        [
            ("cluster.toml", r"flowcore.load\(Config.from_toml\('cluster.toml'\)\)"),
            (ThreadPoolExecutor(), r"flowcore.load\(Config\(executors=\[...\]\)\)"),
            ([ThreadPoolExecutor()], r"flowcore.load\(Config\(executors=\[...\]\)\)"),
        ],
    )
    def test_what_is_no_configuration_is_not_loaded(self, wrong: Any, remedy: str) -> None:
        with pytest.raises(ConfigurationError, match=rf"is no configuration\n  write {remedy}$"):
            flowcore.load(wrong)
        with pytest.raises(flowcore.errors.NoDataFlowKernelError):
            flowcore.dfk()

    def test_two_executors_with_one_label(self) -> None:
        with pytest.raises(ConfigurationError, match=r"^Executors must have unique labels \(label='a'\)\n  give one"):
            Config(executors=[ThreadPoolExecutor(label="a"), ThreadPoolExecutor(label="a")])

    def test_no_strategy_is_the_one_that_does_nothing(self) -> None:
        assert config(strategy=None).strategy == "none"

    @pytest.mark.parametrize(
        "options",
        [
            {"checkpoint_mode": "periodic"},
            {"checkpoint_mode": "periodic", "checkpoint_period": "soon"},
            {"checkpoint_mode": "periodic", "checkpoint_period": 0},
            {"checkpoint_mode": "manual", "checkpoint_period": "00:01:00"},
            {"memoizer": BasicMemoizer(), "checkpoint_mode": "manual"},
            {"memoizer": BasicMemoizer(), "app_cache": False},
            {"memoizer": BasicMemoizer(), "checkpoint_files": ["x"]},
            {"memoizer": BasicMemoizer(), "checkpoint_files": []},
        ],
    )
    def test_options_that_do_not_go_together(self, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError):
            Config(**options)


class TestRepr:
    def test_it_is_the_constructor_form(self) -> None:
        text = repr(Config(executors=[ThreadPoolExecutor(3, label="a")], retries=2, checkpoint_mode="task_exit"))
        again = eval(text)
        assert repr(again) == text
        assert again.executors[0].max_threads == 3
        assert (again.retries, again.checkpoint_mode) == (2, "task_exit")

    def test_it_is_the_constructor_form_of_providers_and_launchers_too(self) -> None:
        provider = SlurmProvider("main", nodes_per_block=2, launcher=SrunLauncher(overrides="--mpibind=off"))
        executor = HighThroughputExecutor(label="a", max_workers=2, mem_per_worker="4GB", provider=provider)
        text = repr(Config(executors=[executor]))
        again = eval(text)
        assert repr(again) == text
        [one] = again.executors
        assert (one.options, one.provider.partition) == (executor.options, "main")
        assert one.provider.launcher.overrides == "--mpibind=off"

    def test_it_names_every_option(self) -> None:
        assert all(f"{name}=" in repr(Config()) for name in DEFAULTS)

    @pytest.mark.parametrize("kind", [ThreadPoolExecutor, HighThroughputExecutor])
    def test_a_run_does_not_change_it(self, load: Load, kind: Any) -> None:
        kernel = load(retries=1, executors=[kind(label="a")])
        before = repr(kernel.config)
        python_app(lambda: 1)().result()
        kernel.cleanup()
        assert repr(kernel.config) == before


class TestEffects:
    """Those of `retries`, `exit_mode`, the checkpoint options and others have files of their own."""

    def test_executors(self, load: Load) -> None:
        assert list(load(executors=[ThreadPoolExecutor(label="a"), ThreadPoolExecutor(label="b")]).executors) == [
            "a",
            "b",
        ]

    def test_executors_left_out(self) -> None:
        with flowcore.load() as kernel:
            assert python_app(lambda: 1)().result() == 1
            assert list(kernel.executors) == ["threads"]
        with flowcore.load(Config()):  # a configuration that names no executor can be loaded again
            assert python_app(lambda: 2)().result() == 2

    def test_memoizer(self, load: Load) -> None:
        memoizer = BasicMemoizer(memoize=False)
        kernel = load(memoizer=memoizer)
        assert kernel.memoizer is memoizer

    @pytest.mark.parametrize(("app_cache", "state"), [(True, "memo_done"), (False, "exec_done")])
    def test_app_cache(self, load: Load, app_cache: bool, state: str) -> None:
        load(app_cache=app_cache)
        app = python_app(cache=True)(abs)
        app(-1).result()
        second = app(-1)
        second.result()
        assert second.task_status() == state

    def test_dependency_resolver(self, load: Load) -> None:
        load(dependency_resolver=SHALLOW_DEPENDENCY_RESOLVER)
        one = python_app(lambda: 1)()
        assert python_app(lambda x: x)([one]).result() == [one]

    @pytest.mark.parametrize("garbage_collect", [True, False])
    def test_garbage_collect(self, load: Load, garbage_collect: bool) -> None:
        kernel = load(garbage_collect=garbage_collect)
        future = python_app(lambda: 1)()
        future.result()
        assert (future.tid in kernel.tasks) is not garbage_collect
        if not garbage_collect:
            assert kernel.tasks[0].status is States.exec_done

    def test_internal_tasks_max_threads(self, load: Load) -> None:
        kernel = load(internal_tasks_max_threads=3)
        assert kernel._internal._limit == 3  # its effect is in test_join_app.py

    def test_run_dir(self, load: Load, tmp_path: Path) -> None:
        kernel = load(run_dir=tmp_path / "runs")
        assert kernel.run_dir == tmp_path / "runs" / "000"
        assert kernel.run_dir.is_dir()

    def test_a_run_dir_that_cannot_be_made(self) -> None:
        Path("file").write_text("")
        with pytest.raises(ConfigurationError, match="run_dir='file/runs': the folder of the run cannot be made"):
            flowcore.load(Config(run_dir="file/runs"))

    @pytest.mark.parametrize("options", [{"usage_tracking": 3}, {"project_name": "mine"}])
    def test_usage_tracking_says_once_that_it_has_none(
        self, load: Load, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
    ) -> None:
        load(**options)
        assert caplog.text.count("have no effect: flowcore never calls home") == 1

    @pytest.mark.parametrize(
        ("initialize_logging", "files"),
        [
            (True, {"flowcore.log"}),
            (False, set()),
            (NoopLogging(), set()),
            (FileLogging(level=logging.DEBUG), {"flowcore.log"}),
            (JSONLogging(), {"flowcore.log.jsonl"}),
        ],
    )
    def test_initialize_logging(self, load: Load, initialize_logging: Any, files: set[str]) -> None:
        kernel = load(initialize_logging=initialize_logging)
        assert {path.name for path in kernel.run_dir.glob("*log*")} == files

    def test_a_failed_load_leaves_no_log_open(self) -> None:
        with pytest.raises(flowcore.dataflow.errors.BadCheckpoint):
            flowcore.load(Config(checkpoint_files=["nowhere"]))
        assert logging.getLogger("flowcore").handlers == []

    def test_the_same_executor_does_not_serve_two_runs(self, kernel: DataFlowKernel) -> None:
        from flowcore.executors.errors import ExecutorError

        with pytest.raises(ExecutorError, match="make a new one for every run"):
            DataFlowKernel(Config(executors=kernel.config.executors))
        assert python_app(lambda: 1)().result() == 1  # the first run goes on
