"""A real Grid Engine whose sge_qmaster is down."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flowcore
from clusters.grid_engine import GridEngineCell
from flowcore import Config, python_app
from flowcore.executors import HighThroughputExecutor
from flowcore.jobs.states import TERMINAL_STATES, JobState
from flowcore.providers import GridEngineProvider, batch
from flowcore.providers.errors import SchedulerError, SubmitException
from waiting import eventually

POLLS_OF_A_MINUTE = 13
"""How often a job is asked about in the minute after its submission, with the default settings."""

BOUND = 90.0
WORDS = "unable to send message to qmaster"
WORKER_INIT = f"export PATH={Path(sys.executable).parent}:$PATH"

pytestmark = [pytest.mark.slow, pytest.mark.fault]


@pytest.fixture(autouse=True)
def _tidied(cell: GridEngineCell) -> Iterator[None]:
    yield
    flowcore.clear(wait=False)
    cell.clear()


def where(seconds: float) -> str:
    import socket
    import time

    time.sleep(seconds)
    return socket.gethostname()


def test_as_many_polls_without_the_master_as_a_minute_has_lose_no_block_and_fail_no_task(
    cell: GridEngineCell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The outage is shorter than a minute, and jobs are asked about more often; commands fail at once as they do.

    One executor has a connected block, one a block that waits in the queue, one none until the outage has begun;
    a provider without an executor has a running job.
    """
    monkeypatch.setattr(batch, "SHORTEST_INTERVAL", 0.2)
    monkeypatch.setattr(batch, "LONGEST_INTERVAL", 0.2)

    def executor(label: str, **options: Any) -> HighThroughputExecutor:
        provider = GridEngineProvider(worker_init=WORKER_INIT, **options)
        return HighThroughputExecutor(label=label, address=cell.hosts.head, max_workers=1, provider=provider)

    def provider_alone() -> None:
        begin = time.monotonic()
        with pytest.raises(SchedulerError, match=f"qstat(.|\n)*{WORDS}"):
            alone.status([job_id])
        with pytest.raises(SubmitException, match=WORDS) as caught:
            alone.submit("exit 0", 1)
        assert caught.value.unanswered
        assert time.monotonic() - begin < 2 * alone.cmd_timeout

    alone = GridEngineProvider(script_dir=str(tmp_path / "scripts"))
    job_id = alone.submit("sleep 600", 1)
    working, queued = executor("working", max_blocks=2), executor("queued", scheduler_options="#$ -h")
    late = executor("late", init_blocks=0)
    at = {label: python_app(where, executors=[label]) for label in ("working", "queued", "late")}
    with flowcore.load(Config(executors=[working, queued, late])):
        assert at["working"](0).result(BOUND) in cell.nodes
        waiting = [at["queued"](0)]
        eventually(lambda: alone.status([job_id])[0].state is JobState.RUNNING, BOUND, "a running job")
        eventually(lambda: working.status()["0"].state is JobState.RUNNING, BOUND, "a running block")
        eventually(lambda: queued.status()["0"].state is JobState.HELD, BOUND, "a block that is held")
        cell.stop_master()
        try:
            waiting += [at["late"](0), *(at["working"](2) for _ in range(4))]
            provider_alone()
            last = f"executor queued: no job status, time {POLLS_OF_A_MINUTE}:"
            eventually(lambda: last in caplog.text, BOUND, "as many polls as a minute has")
            eventually(lambda: WORDS in str(late.status()), BOUND, "a block without answer")
            eventually(lambda: WORDS in (working.status()["0"].message or ""), BOUND, "words about a working block")
            assert at["working"](0).result(BOUND) in cell.nodes
            assert working.status()["0"].state is JobState.RUNNING
            assert queued.status()["0"].state is JobState.HELD
        finally:
            cell.start_master()
            cell.await_master()
        cell.call("qrls", "-u", "*")
        assert {future.result(BOUND) for future in waiting} <= set(cell.nodes)
        assert working.status()["0"].state is JobState.RUNNING
        assert not any(one.bad_state_is_set for one in (working, queued, late))
    assert alone.status([job_id])[0].state is JobState.RUNNING
    assert alone.cancel([job_id]) == [True]
    eventually(lambda: alone.status([job_id])[0].state in TERMINAL_STATES, 120, "the end of the job")
    assert alone.status([job_id])[0].state is JobState.CANCELLED
