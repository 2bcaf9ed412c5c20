"""The poller: it wakes for events, scales, survives failures and ends when told."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from flowcore.errors import ConfigurationError
from flowcore.executors.base import RunContext
from flowcore.executors.errors import BadStateException
from flowcore.jobs import poller as poller_module
from flowcore.jobs.poller import JobStatusPoller
from flowcore.jobs.states import JobState
from flowcore.providers.errors import SubmitException
from flowcore.testing.blocks import HandRunExecutor
from flowcore.testing.faults import FaultyProvider

BOUND = 60.0


class Observed(HandRunExecutor):
    """Tells, through a condition, whenever its blocks have been looked at or changed."""

    def __init__(self, provider: FaultyProvider, **options: Any) -> None:
        super().__init__(provider, **options)
        self.looked = threading.Condition()
        self.looks = 0
        self.counts = 0
        self.submitted_at: list[float] = []

    def tally(self) -> Any:
        tally = super().tally()
        with self.looked:
            self.looks += 1
            self.looked.notify_all()
        return tally

    def stuck_tasks(self) -> int:
        with self.looked:
            self.counts += 1
            self.looked.notify_all()
        return super().stuck_tasks()

    def block_command(self, block_id: str) -> str:
        self.submitted_at.append(time.monotonic())
        return super().block_command(block_id)

    def until(self, condition: Any) -> None:
        with self.looked:
            assert self.looked.wait_for(condition, BOUND), self.status()

    def until_looked_at(self) -> None:
        looks = self.looks
        self.until(lambda: self.looks > looks)

    def until_reviewed(self) -> None:
        """Wait until the tasks have been counted once more."""
        counts = self.counts
        self.until(lambda: self.counts > counts)

    def names(self) -> list[str]:
        return [status.status_name for status in self.status().values()]

    def kill(self, block_id: str) -> None:
        job_id = self._provider_blocks.unsettled()[int(block_id)]
        os.killpg(int(job_id.partition(".")[0]), signal.SIGKILL)


@pytest.fixture
def review(tmp_path: Path):
    """Start an executor under the review of a poller, and close both in the end."""
    made: list[tuple[JobStatusPoller, Observed]] = []

    def review(
        *,
        strategy: str | None = "simple",
        max_idletime: float = 120.0,
        strategy_period: float = 60.0,
        command: str = "exec sleep 600",
        workers: float = 1,
        handler: Any = True,
        **options: Any,
    ) -> Observed:
        provider = FaultyProvider(**{"init_blocks": 0, "max_blocks": 4, **options})
        executor = Observed(provider, command=command, workers=workers, block_error_handler=handler)
        poller = JobStatusPoller(strategy=strategy, max_idletime=max_idletime, strategy_period=strategy_period)
        made.append((poller, executor))
        executor.start(RunContext(run_id="test", run_dir=tmp_path))
        poller.add(executor)
        return executor

    yield review
    for poller, executor in made:
        poller.close()
        provider = executor.provider
        assert isinstance(provider, FaultyProvider)
        provider.cancel_error = provider.status_error = None
        executor.shutdown()


def demand(executor: Observed, tasks: int = 1) -> list[Future[Any]]:
    return [executor.submit(pow, {}, 2, 3) for _ in range(tasks)]


def test_demand_starts_blocks_at_once_not_at_the_next_period(review) -> None:
    executor = review(strategy_period=600.0, interval=600.0)  # more than `until` waits
    executor.until(lambda: executor.counts)
    demand(executor, 3)
    executor.until(lambda: len(executor.submitted_at) == 3)


@pytest.mark.performance
def test_a_task_without_a_block_has_one_submitted_within_200_ms(review) -> None:
    delays = []
    while not delays or (min(delays) >= 0.2 and len(delays) < 20):  # a busy machine delays some of them
        executor = review()
        executor.until(lambda: executor.counts)  # noqa: B023 - called before the next turn
        begin = time.monotonic()
        demand(executor)
        executor.until(lambda: executor.submitted_at)  # noqa: B023 - called before the next turn
        delays.append(executor.submitted_at[0] - begin)
    assert min(delays) < 0.2


def test_work_that_was_there_before_is_seen(tmp_path: Path, review) -> None:
    executor = review(strategy_period=0.1)
    executor.detach()
    demand(executor, 2)
    executor.until(lambda: len(executor.status()) == 2)
    executor.until_looked_at()
    assert len(executor.status()) == 2


def test_more_work_never_takes_more_than_max_blocks(review) -> None:
    executor = review(max_blocks=2, strategy_period=0.02)
    demand(executor, 50)
    executor.until(lambda: len(executor.submitted_at) == 2)
    demand(executor, 50)
    for _ in range(3):
        executor.until_looked_at()
    assert len(executor.status()) == 2


def test_a_task_counts_for_the_slots_that_it_takes(review) -> None:
    executor = review(workers=2)
    executor.until(lambda: executor.counts)
    executor.size = 4
    demand(executor)
    executor.until(lambda: len(executor.submitted_at) == 2)
    demand(executor)
    executor.until(lambda: len(executor.submitted_at) == 4)
    assert len(executor.status()) == 4


def test_stuck_tasks_get_a_block_beyond_those_that_have_workers(review) -> None:
    executor = review(init_blocks=1, workers=9)
    executor.connected |= {"0"}
    executor.until(lambda: executor.counts)
    executor.stuck = 1
    demand(executor)
    executor.until(lambda: len(executor.submitted_at) == 2)
    looks = executor.looks
    demand(executor)  # one that is still to come is enough
    executor.until(lambda: executor.looks > looks)
    assert len(executor.status()) == 2


def test_min_blocks_are_there_without_any_work(review) -> None:
    executor = review(min_blocks=2, strategy_period=0.05)
    executor.until(lambda: len(executor.status()) == 2)
    executor.until_looked_at()
    assert len(executor.status()) == 2


def test_unused_blocks_go_after_the_idle_time(review) -> None:
    executor = review(init_blocks=3, min_blocks=1, max_idletime=0.2, strategy_period=0.05)
    executor.until(lambda: executor.names().count("SCALED_IN") == 2)
    executor.until_looked_at()
    assert executor.names().count("SCALED_IN") == 2


def test_blocks_with_tasks_stay_however_little_there_is_to_do(review) -> None:
    # Until there is demand the blocks are without work: they must not be given back for that.
    executor = review(strategy="htex_auto_scale", init_blocks=3, max_idletime=90.0, strategy_period=0.05)
    executor.connected |= {"0", "1", "2"}
    executor.idle = {"1": 99.0, "2": 99.0}
    demand(executor)
    executor.until(lambda: executor.names().count("SCALED_IN") == 2)
    assert executor.status()["0"].state is JobState.RUNNING


def test_strategy_none_scales_nothing(review) -> None:
    executor = review(strategy="none", init_blocks=1, strategy_period=0.05, max_idletime=0.05)
    demand(executor, 50)
    executor.until(lambda: executor.names() == ["RUNNING"])
    for _ in range(2):
        executor.until_looked_at()
    assert executor.names() == ["RUNNING"]


@pytest.mark.fault
def test_strategy_none_does_not_leave_tasks_waiting_for_a_block_that_never_comes(review) -> None:
    executor = review(strategy="none", init_blocks=1)
    executor.connected.add("0")
    [future] = demand(executor)
    executor.kill("0")
    with pytest.raises(BadStateException, match="strategy 'none' starts no other"):
        future.result(BOUND)


@pytest.mark.fault
def test_a_killed_block_is_seen_without_polling_and_replaced(review) -> None:
    executor = review(init_blocks=1)
    executor.connected.add("0")
    [future] = demand(executor)
    executor.kill("0")
    executor.until(lambda: len(executor.status()) == 2)
    assert executor.status()["0"].state is JobState.FAILED
    assert not future.done()


def test_a_provider_that_does_not_tell_is_polled(review) -> None:
    executor = review(init_blocks=1, command="exit 3", tells=False, interval=0.05)
    with pytest.raises(BadStateException, match="exit code 3"):
        demand(executor)[0].result(BOUND)  # where the block has failed already, nothing is accepted


def test_blocks_that_never_work_fail_the_tasks_with_what_they_said(review) -> None:
    executor = review(command="echo no such module >&2; exit 3")
    [future] = demand(executor)
    with pytest.raises(BadStateException, match="no such module"):
        future.result(BOUND)


def test_a_provider_that_refuses_blocks_fails_the_tasks_with_its_words(review) -> None:
    refusal = SubmitException("job", "refused", stderr="invalid partition", retcode=1)
    executor = review(submit_error=refusal, strategy_period=0.05)
    [future] = demand(executor)
    with pytest.raises(BadStateException, match="invalid partition"):
        future.result(BOUND)


def test_blocks_that_keep_failing_are_not_replaced_in_a_rush(review) -> None:
    begin = time.monotonic()
    executor = review(command="exit 3", handler=False, strategy_period=0.3)
    demand(executor)
    executor.until(lambda: len(executor.submitted_at) >= 4)
    # Counted from the begin: each respite is after the look that led to a submission, which may itself have been late.
    for moment, respites in zip(executor.submitted_at, [0, 0.2, 0.2 + 0.3, 0.2 + 0.3 + 0.3], strict=False):
        assert moment - begin >= respites


def test_a_failing_review_is_logged_tried_again_and_in_the_end_fails_the_tasks(review, caplog) -> None:
    def broken(executor: Any, status: Any) -> None:
        raise LookupError("broken handler")

    executor = review(init_blocks=1, handler=broken, strategy_period=0.02)
    with pytest.raises(BadStateException, match="broken handler"):
        demand(executor)[0].result(BOUND)
    assert f"failure {poller_module.FAILED_REVIEWS}" in caplog.text


def test_one_failing_executor_does_not_hold_up_another(tmp_path: Path) -> None:
    def broken(executor: Any, status: Any) -> None:
        raise LookupError("broken handler")

    poor = Observed(FaultyProvider(init_blocks=0), label="poor", block_error_handler=broken)
    fine = Observed(FaultyProvider(init_blocks=0), label="fine")
    poller = JobStatusPoller(strategy_period=0.05)
    logging.getLogger("flowcore.jobs.poller").setLevel(logging.CRITICAL)
    try:
        for executor in (poor, fine):
            executor.start(RunContext(run_id="test", run_dir=tmp_path))
            poller.add(executor)
        demand(fine)
        fine.until(lambda: len(fine.status()) == 1)
    finally:
        logging.getLogger("flowcore.jobs.poller").setLevel(logging.NOTSET)
        poller.close()
        for executor in (poor, fine):
            executor.shutdown()


def test_after_reset_the_blocks_come_back(tmp_path: Path, review) -> None:
    go = tmp_path / "go"
    executor = review(command=f"until [ -e {go} ]; do sleep 0.02; done; exit 3", init_blocks=1)
    [future] = demand(executor)
    go.touch()
    with pytest.raises(BadStateException):
        future.result(BOUND)
    executor.command = "exec sleep 600"
    executor.reset()
    demand(executor, 2)
    executor.until(lambda: len(executor.status()) == 2 and set(executor.names()) <= {"RUNNING", "PENDING"})


@pytest.mark.fault
def test_a_poll_that_a_reset_overtakes_leaves_the_new_blocks_alone(tmp_path: Path) -> None:
    executor = Observed(FaultyProvider(init_blocks=1))
    executor.start(RunContext(run_id="test", run_dir=tmp_path))
    blocks = executor._provider_blocks
    live = blocks.live

    def overtaken() -> list[str]:
        blocks.live = live
        executor.reset()
        return live()

    try:
        executor.set_bad_state_and_fail_all(OSError("all nodes are down"))
        blocks.live = overtaken
        executor.poll()
        assert executor.names() == ["RUNNING"]
    finally:
        executor.shutdown()


def test_a_removed_executor_is_left_alone(tmp_path: Path) -> None:
    executor = Observed(FaultyProvider(init_blocks=0))
    executor.start(RunContext(run_id="test", run_dir=tmp_path))
    poller = JobStatusPoller(strategy_period=0.02)
    poller.add(executor)
    poller.remove(executor)
    poller.close()
    demand(executor)
    assert executor.status() == {}


def test_close_ends_the_thread_and_may_be_called_twice(tmp_path: Path) -> None:
    executor = Observed(FaultyProvider(init_blocks=0))
    executor.start(RunContext(run_id="test", run_dir=tmp_path))
    poller = JobStatusPoller()
    poller.add(executor)
    [thread] = [thread for thread in threading.enumerate() if thread.name == "flowcore-poller-blocks"]
    assert thread.daemon
    poller.close()
    assert not thread.is_alive()
    poller.close()
    with pytest.raises(RuntimeError, match="closed"):
        poller.add(executor)


@pytest.mark.fault
def test_close_ends_a_thread_that_is_just_about_to_look(tmp_path: Path) -> None:
    executor = Observed(FaultyProvider(init_blocks=0))
    executor.start(RunContext(run_id="test", run_dir=tmp_path))
    poller = JobStatusPoller()
    closer, told = threading.Thread(target=poller.close), threading.Event()

    class Awake(threading.Event):
        def set(self) -> None:
            super().set()
            if threading.current_thread() is closer:
                told.set()

        def clear(self) -> None:
            if not told.is_set():
                closer.start()
                assert told.wait(BOUND)
            super().clear()

    poller._awake = Awake()
    poller.add(executor)
    assert told.wait(BOUND)
    closer.join(BOUND)
    assert poller._thread is not None
    poller._thread.join(BOUND)
    assert not poller._thread.is_alive()


def test_a_poller_without_executors_has_no_thread() -> None:
    before = set(threading.enumerate())
    poller = JobStatusPoller()
    assert set(threading.enumerate()) <= before
    poller.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strategy": "sipmle"}, "'htex_auto_scale'"),
        ({"max_idletime": -1}, "max_idletime"),
        ({"strategy_period": 0}, "strategy_period"),
    ],
)
def test_what_makes_no_sense_is_refused_at_construction(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        JobStatusPoller(**options)


def test_a_young_block_is_asked_about_soon_however_seldom_the_old_ones_are(review) -> None:
    executor = review(tells=False, strategy_period=0.05, interval=600.0)
    executor.submit(int, {})
    executor.until(lambda: executor.names() == ["PENDING"])
    executor.until_reviewed()
    executor.provider.interval = 0.1  # from the next submission on
    executor.provider.calls.clear()
    executor.submit(int, {})
    executor.until(lambda: len(executor.names()) == 2)
    executor.until(lambda: "status" in executor.provider.calls)
    calls = executor.provider.calls
    assert calls.index("submit") < calls.index("status")  # the old one was not asked about before
