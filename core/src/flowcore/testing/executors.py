"""What every executor must do: a suite that the tests of each one inherit."""
# ruff: noqa: D102 - the names of tests are claims

from __future__ import annotations

import functools
import threading
import time
import traceback
from abc import ABC, abstractmethod
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from flowcore import resources
from flowcore.errors import InvalidResourceSpecification, ShutdownError
from flowcore.executors.base import Executor, RunContext
from flowcore.executors.errors import ExecutorError
from flowcore.jobs.states import JobStatus
from flowcore.testing import tasks
from flowcore.testing.gate import Gate
from flowcore.testing.leftovers import Leftovers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAMPLES: dict[str, Any] = {"walltime": 60, "category": "a", "launcher_options": ""}
"""Values for resource keys; 1 does for the others."""


class ExecutorConformance(ABC):
    """Inherit, name the class `Test...`, and define `make_executor`; needs pytest.

    Tasks run on this machine, and import `flowcore.testing.tasks`.

        class TestAcmeExecutor(ExecutorConformance):
            def make_executor(self) -> AcmeExecutor:
                return AcmeExecutor(max_workers=2)
    """

    patience: ClassVar[float] = 60.0
    """Seconds that anything may take before it counts as hanging; a busy machine is slow."""

    concurrency: ClassVar[int | None] = None
    """How many tasks the executor surely runs at once; None stands for its `slots()`."""

    @abstractmethod
    def make_executor(self) -> Executor:
        """Return a new executor that was not started, and runs a handful of tasks at once."""

    def cancellations_have_arrived(self, executor: Executor) -> bool:  # noqa: ARG002 - for those who override it
        """Whether every cancelled task is known as such where it waits; override this where that takes a while.

        While its cancellation is on its way a task may still begin.
        """
        return True

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
        """Provide a started executor that the tests of the class share."""
        executor = cls().make_executor()
        executor.start(_run(tmp_path_factory.mktemp("run")))
        yield executor
        executor.shutdown()

    @pytest.fixture
    def fresh(self, tmp_path: Path) -> Iterator[Executor]:
        """Provide a started executor that the test may shut down."""
        executor = self.make_executor()
        executor.start(_run(tmp_path))
        yield executor
        executor.shutdown()

    @pytest.fixture
    def gate(self) -> Iterator[Gate]:
        """Provide a gate that holds tasks, open at the end whatever happens."""
        with Gate(self.patience) as gate:
            yield gate

    def test_it_has_a_label_that_can_name_a_folder(self) -> None:
        label = self.make_executor().label
        assert isinstance(label, str)
        assert label
        assert Path(label).name == label

    def test_the_constructor_starts_nothing(self) -> None:
        leftovers = Leftovers()
        executor = self.make_executor()
        assert leftovers.after(0) == []
        executor.shutdown()

    def test_a_result_comes_back(self, executor: Executor) -> None:
        future = executor.submit(pow, {}, 2, 5)
        assert isinstance(future, Future)
        assert future.result(self.patience) == 32

    def test_arguments_arrive_as_they_were_given(self, executor: Executor) -> None:
        future = executor.submit(tasks.echo, {}, 1, "two", [3.0], func=4, resource_specification=None)
        assert future.result(self.patience) == ((1, "two", [3.0]), {"func": 4, "resource_specification": None})

    def test_any_callable_will_do(self, executor: Executor) -> None:
        base = 3
        callables: list[Callable[[int], int]] = [lambda n: base**n, functools.partial(pow, 3), (3).__pow__]
        futures = [executor.submit(func, {}, 2) for func in callables]
        assert [future.result(self.patience) for future in futures] == [9, 9, 9]

    def test_large_values_go_there_and_back(self, executor: Executor) -> None:
        value = bytes(5_000_000)
        (returned,), _ = executor.submit(tasks.echo, {}, value).result(self.patience)
        assert returned == value

    def test_an_exception_arrives_with_its_type_arguments_and_traceback(self, executor: Executor) -> None:
        error = executor.submit(tasks.fail, {}, ValueError, "a", 1).exception(self.patience)
        assert type(error) is ValueError
        assert error.args == ("a", 1)
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        assert "raise kind(*args)" in text

    def test_many_tasks_give_each_their_own_result(self, executor: Executor) -> None:
        futures = [executor.submit(pow, {}, n, 2) for n in range(500)]
        assert [future.result(self.patience) for future in futures] == [n * n for n in range(500)]

    def test_submit_may_be_called_from_many_threads(self, executor: Executor) -> None:
        futures: dict[int, Future[Any]] = {}

        def submit(first: int) -> None:
            for n in range(first, first + 25):
                futures[n] = executor.submit(pow, {}, n, 2)

        threads = [threading.Thread(target=submit, args=(25 * n,), daemon=True) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self.patience)
        assert {n: future.result(self.patience) for n, future in futures.items()} == {n: n * n for n in range(200)}

    def test_submit_may_be_called_from_a_callback(self, executor: Executor) -> None:
        second: Future[Future[int]] = Future()
        first = executor.submit(pow, {}, 2, 3)
        first.add_done_callback(lambda done: second.set_result(executor.submit(pow, {}, done.result(), 2)))
        assert second.result(self.patience).result(self.patience) == 64

    def test_an_argument_that_does_not_pickle_harms_no_other_task(self, executor: Executor) -> None:
        before = executor.submit(pow, {}, 2, 3)
        error = self._error_of(lambda: executor.submit(tasks.type_name, {}, threading.Lock()))
        after = executor.submit(pow, {}, 2, 4)
        assert error is None or "lock" in str(error).lower()
        assert (before.result(self.patience), after.result(self.patience)) == (8, 16)

    def test_a_result_that_does_not_pickle_harms_no_other_task(self, executor: Executor) -> None:
        before = executor.submit(pow, {}, 2, 3)
        error = self._error_of(lambda: executor.submit(tasks.make_lock, {}))
        after = executor.submit(pow, {}, 2, 4)
        assert error is None or "lock" in str(error).lower()
        assert (before.result(self.patience), after.result(self.patience)) == (8, 16)

    def test_a_queued_task_can_be_cancelled_and_never_runs(
        self, executor: Executor, gate: Gate, tmp_path: Path
    ) -> None:
        trace = tmp_path / "ran"
        holding = self._fill(executor, gate)
        victim = executor.submit(tasks.touch, {}, str(trace))
        assert victim.cancel()
        assert victim.cancelled()
        self._eventually(lambda: self.cancellations_have_arrived(executor))
        gate.open()
        assert not wait(holding, self.patience).not_done
        assert executor.submit(pow, {}, 2, 3).result(self.patience) == 8
        assert not trace.exists()

    def test_a_running_task_can_be_stopped_where_the_executor_declares_it(self, executor: Executor, gate: Gate) -> None:
        if not executor.cancels_running:
            pytest.skip("this executor does not stop running tasks")
        running = executor.submit(tasks.hold, {}, gate.port)
        gate.wait_for(1)
        assert running.cancel()
        assert running.cancelled()
        gate.wait_until_gone()
        assert executor.submit(pow, {}, 2, 3).result(self.patience) == 8

    def test_outstanding_counts_the_unfinished_tasks_down_to_zero(self, executor: Executor, gate: Gate) -> None:
        self._eventually(lambda: executor.outstanding() == 0)
        holding = self._fill(executor, gate)
        queued = [executor.submit(pow, {}, 2, 3) for _ in range(5)]
        assert executor.outstanding() == len(holding) + 5
        gate.open()
        assert not wait(holding + queued, self.patience).not_done
        self._eventually(lambda: executor.outstanding() == 0)

    def test_status_tells_the_state_of_each_block(self, executor: Executor) -> None:
        status = executor.status()
        assert type(status) is dict
        assert all(isinstance(block, str) and isinstance(state, JobStatus) for block, state in status.items())
        assert status or not executor.scalable

    def test_a_key_that_is_no_resource_is_refused_by_name(self, executor: Executor) -> None:
        with pytest.raises(InvalidResourceSpecification, match="no_such_key") as caught:
            executor.submit(pow, {"no_such_key": 1}, 2, 3)
        assert list(caught.value.invalid_keys) == ["no_such_key"]

    def test_every_key_that_is_not_honoured_is_refused_by_name(self, executor: Executor) -> None:
        assert executor.resource_keys <= resources.KEYS
        for key in resources.KEYS - executor.resource_keys:
            with pytest.raises(InvalidResourceSpecification, match=key) as caught:
                executor.submit(pow, {key: SAMPLES.get(key, 1)}, 2, 3)
            assert list(caught.value.invalid_keys) == [key]

    def test_a_second_start_is_an_error_and_harms_nothing(self, fresh: Executor, tmp_path: Path) -> None:
        with pytest.raises(ExecutorError):
            fresh.start(_run(tmp_path))
        assert fresh.submit(pow, {}, 2, 3).result(self.patience) == 8

    def test_shutdown_before_start_is_harmless(self) -> None:
        executor = self.make_executor()
        executor.shutdown()
        executor.shutdown()

    def test_shutdown_completes_every_future(self, fresh: Executor, gate: Gate) -> None:
        finished = fresh.submit(pow, {}, 2, 3)
        assert finished.result(self.patience) == 8
        unfinished = self._fill(fresh, gate) + [fresh.submit(pow, {}, n, 2) for n in range(100)]
        self._shutdown(fresh)
        assert all(future.done() for future in unfinished)
        assert {type(future.exception()) for future in unfinished} == {ShutdownError}
        assert finished.result() == 8
        self._eventually(lambda: fresh.outstanding() == 0)

    def test_after_shutdown_nothing_starts_and_no_task_is_taken(self, fresh: Executor, tmp_path: Path) -> None:
        self._shutdown(fresh)
        self._shutdown(fresh)
        with pytest.raises(ShutdownError):
            fresh.submit(pow, {}, 2, 3)
        with pytest.raises(ExecutorError):
            fresh.start(_run(tmp_path))

    def test_shutdown_leaves_no_thread_and_no_process(self, gate: Gate, tmp_path: Path) -> None:
        leftovers = Leftovers()
        executor = self.make_executor()
        executor.start(_run(tmp_path))
        self._fill(executor, gate)
        leftovers.watch()
        self._shutdown(executor)
        gate.open()
        assert leftovers.after(self.patience) == []

    def test_it_works_alone_as_a_context_manager(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(RunContext, "standalone", lambda: _run(tmp_path))
        with self.make_executor() as executor:
            future = executor.submit(pow, {}, 2, 3)
            assert future.result(self.patience) == 8
        with pytest.raises(ShutdownError):
            executor.submit(pow, {}, 2, 3)

    def _fill(self, executor: Executor, gate: Gate) -> list[Future[Any]]:
        """Occupy the executor with tasks that wait at the gate, and return when all of them run."""
        count = int(executor.slots()) if self.concurrency is None else self.concurrency
        holding = [executor.submit(tasks.hold, {}, gate.port) for _ in range(count)]
        gate.wait_for(count)
        return holding

    def _error_of(self, submit: Callable[[], Future[Any]]) -> BaseException | None:
        """Return what went wrong with a task, in `submit` or later."""
        try:
            return submit().exception(self.patience)
        except Exception as error:  # noqa: BLE001 - the executor may refuse the task in its own words
            return error

    def _shutdown(self, executor: Executor) -> None:
        """Shut down in a thread, so that a hang fails the test instead of stopping the suite."""
        thread = threading.Thread(target=executor.shutdown, name="shutdown", daemon=True)
        thread.start()
        thread.join(self.patience)
        assert not thread.is_alive(), f"shutdown() took more than {self.patience} s"

    def _eventually(self, holds: Callable[[], bool]) -> None:
        """Wait for a state that has no event: counts may lag behind the future that a test waited for."""
        deadline = time.monotonic() + self.patience
        pause = threading.Event()
        while not holds():
            assert time.monotonic() < deadline, "the state was not reached in time"
            pause.wait(0.005)


def _run(folder: Path) -> RunContext:
    return RunContext(run_id="conformance", run_dir=folder)
