"""The examples of the specification page, as close to their letter as they can be run, on threads."""

from __future__ import annotations

from typing import Any

import pytest

import flowcore
import flowcore.errors
from flowcore import python_app
from flowcore.config import Config
from flowcore.executors import ThreadPoolExecutor
from flowcore.executors.base import RunContext
from flowcore.executors.errors import ExecutorError, ScalingError


class TestThreadPoolExecutor:
    def test_usage_example(self) -> None:
        # Light parallel tasks
        threads_exec = ThreadPoolExecutor(
            max_threads=4,
            label="local_threads",
        )

        # I/O intensive tasks
        io_exec = ThreadPoolExecutor(
            max_threads=10,
            label="io_tasks",
        )
        assert (threads_exec.max_threads, io_exec.label) == (4, "io_tasks")

    def test_parameters_in_their_order(self) -> None:
        executor = ThreadPoolExecutor(3, "prefix", "label")
        assert (executor.max_threads, executor.thread_name_prefix, executor.label) == (3, "prefix", "label")
        default = ThreadPoolExecutor()
        assert (default.max_threads, default.thread_name_prefix, default.label) == (2, "", "threads")


@python_app(executors=["local_threads"])
def light_task() -> str:
    return "completed on threads"


@python_app(executors=["cluster_htex"])
def heavy_task() -> str:
    return "completed on cluster"


class TestTaskTargeting:
    def test_tasks_go_where_their_labels_say(self) -> None:
        with flowcore.load(
            Config(executors=[ThreadPoolExecutor(label="local_threads"), ThreadPoolExecutor(label="cluster_htex")])
        ):
            light, heavy = light_task(), heavy_task()
            assert (light.result(), heavy.result()) == ("completed on threads", "completed on cluster")
            assert (light.task_record.executor, heavy.task_record.executor) == ("local_threads", "cluster_htex")

    def test_a_label_that_there_is_not(self) -> None:
        flowcore.load(Config(executors=[ThreadPoolExecutor(label="local_threads")]))
        with pytest.raises(ValueError, match=r"'cluster_htex'.*\n.*'local_threads'"):
            heavy_task()


class Roomy(ThreadPoolExecutor):
    """Threads that honour the keys of the example."""

    __slots__ = ("asked",)
    resource_keys = frozenset({"cores", "memory", "disk", "walltime"})

    def start(self, run: RunContext) -> None:
        self.asked: list[Any] = []
        super().start(run)

    def submit(self, func: Any, resource_specification: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.asked.append(dict(resource_specification))
        return super().submit(func, {}, *args, **kwargs)


class TestResourceSpecification:
    def test_example(self) -> None:
        executor = Roomy()
        flowcore.load(Config(executors=[executor]))
        large_dataset = [1, 2, 3]

        @python_app
        def resource_intensive_task(data: Any, parsl_resource_specification: Any = {}) -> Any:  # noqa: B006 - the page's
            """Task with specific resource needs."""
            # Process data requiring specific resources
            processed_data = sum(data)
            return processed_data  # noqa: RET504 - the page's

        # Execute with resource requirements
        future = resource_intensive_task(
            large_dataset,
            parsl_resource_specification={
                "cores": 8,
                "memory": "16GB",
                "disk": "100GB",
                "walltime": "02:00:00",
            },
        )
        assert future.result() == 6
        assert executor.asked == [{"cores": 8, "memory": 16_000, "disk": 100_000, "walltime": 7200.0}]

    def test_an_executor_that_honours_none_of_it_says_so(self) -> None:
        flowcore.load(Config(executors=[ThreadPoolExecutor()]))
        with pytest.raises(flowcore.errors.InvalidResourceSpecification, match="'cores' is honoured by no executor"):
            light = python_app(light_task.func)
            light(parsl_resource_specification={"cores": 8})


class TestLifecycle:
    def test_example(self) -> None:
        htex = ThreadPoolExecutor(label="cluster_htex")
        threads_exec = ThreadPoolExecutor(max_threads=4, label="local_threads")

        # Executors start when configuration is loaded
        config = Config(executors=[htex, threads_exec])
        flowcore.load(config)

        # Submit tasks to different executors
        futures = []
        for i in range(100):
            if i % 2 == 0:
                futures.append(light_task())  # -> threads_exec
            else:
                futures.append(heavy_task())  # -> htex

        # Wait for completion
        results = [f.result() for f in futures]
        assert results == ["completed on threads", "completed on cluster"] * 50

        # Executors shutdown when DFK is cleared
        flowcore.clear()
        for executor in (htex, threads_exec):
            with pytest.raises(flowcore.errors.ShutdownError):
                executor.submit(pow, {}, 1, 2)


class TestErrorHandling:
    @staticmethod
    def load(config: Config) -> None:
        try:
            flowcore.load(config)
        except ScalingError as e:
            print(f"Resource scaling error: {e}")
        except ExecutorError as e:
            print(f"Executor initialization failed: {e}")

    def test_an_executor_that_cannot_start(self, capsys: pytest.CaptureFixture[str]) -> None:
        class Broken(ThreadPoolExecutor):
            __slots__ = ()

            def start(self, run: RunContext) -> None:
                raise OSError("no node")

        self.load(Config(executors=[Broken(label="broken")]))
        assert (
            capsys.readouterr().out
            == "Executor initialization failed: Executor broken failed due to: OSError: no node\n"
        )

    def test_a_provider_that_cannot_scale(self, capsys: pytest.CaptureFixture[str]) -> None:
        class Broken(ThreadPoolExecutor):
            __slots__ = ()

            def start(self, run: RunContext) -> None:
                raise ScalingError(self, "no node")

        self.load(Config(executors=[Broken(label="broken")]))
        assert capsys.readouterr().out == "Resource scaling error: Executor broken failed due to: no node\n"
        assert issubclass(ScalingError, ExecutorError)

    def test_every_executor_has_a_status(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.load(Config(executors=[ThreadPoolExecutor(), ThreadPoolExecutor(label="io_tasks")]))
        dfk = flowcore.dfk()
        for executor in dfk.executors.values():
            print(f"Executor {executor.label}: {executor.status()}")
        assert capsys.readouterr().out == "Executor threads: {}\nExecutor io_tasks: {}\n"
