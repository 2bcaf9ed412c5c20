"""A real Slurm whose slurmctld is down for a minute, with the default settings of flowcore."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import flowcore
from clusters.slurm import SlurmCluster
from flowcore import Config, python_app
from flowcore.executors import HighThroughputExecutor
from flowcore.jobs.states import JobState
from flowcore.providers import SlurmProvider
from flowcore.providers.errors import SchedulerError, SubmitException
from waiting import eventually

OUTAGE = 60.0
BOUND = 90.0
WORDS = "Unable to contact slurm controller"


def where(seconds: float) -> str:
    import socket
    import time

    time.sleep(seconds)
    return socket.gethostname()


def executor(label: str, **options: Any) -> HighThroughputExecutor:
    return HighThroughputExecutor(label=label, max_workers=1, provider=SlurmProvider(**options))


@pytest.mark.slow
@pytest.mark.fault
def test_a_minute_without_slurm_loses_no_block_fails_no_task_and_is_told_in_the_words_of_slurm(
    slurm: SlurmCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One executor has a connected block, one a block that waits in the queue, one none until the outage has begun.

    A provider without an executor has a job in the queue that is cancelled in vain, and must do nothing when it starts.
    """

    def provider_alone() -> None:
        with pytest.raises(SchedulerError, match=f"squeue(.|\n)*{WORDS}"):
            alone.status([job_id])
        with pytest.raises(SubmitException, match=f"sbatch(.|\n)*{WORDS}") as caught:
            alone.submit("exit 0", 1)
        assert caught.value.unanswered
        with pytest.raises(SchedulerError, match=f"scancel(.|\n)*{WORDS}"):
            alone.cancel([job_id])

    alone = SlurmProvider(script_dir=str(tmp_path / "scripts"), scheduler_options="#SBATCH --hold")
    job_id = alone.submit(f"touch {tmp_path}/sign; sleep 600", 1)
    working, queued = executor("working", max_blocks=2), executor("queued", scheduler_options="#SBATCH --hold")
    late = executor("late", init_blocks=0)
    at = {label: python_app(where, executors=[label]) for label in ("working", "queued", "late")}
    with flowcore.load(Config(executors=[working, queued, late])):
        assert at["working"](0).result(BOUND) in slurm.nodes
        waiting = [at["queued"](0)]
        slurm.stop_master()
        began = time.monotonic()
        try:
            waiting += [at["late"](0), *(at["working"](5) for _ in range(4))]
            eventually(lambda: WORDS in (queued.status()["0"].message or ""), BOUND, "words about a waiting block")
            eventually(lambda: "0" in late.status() and WORDS in str(late.status()), BOUND, "a block without answer")
            eventually(lambda: "executor working: no job status" in caplog.text, BOUND, "words about a working block")
            assert WORDS in (working.status()["0"].message or "")
            provider_alone()
            while time.monotonic() < began + OUTAGE:
                assert at["working"](0.2).result(BOUND) in slurm.nodes
            assert working.status()["0"].state is JobState.RUNNING
            assert queued.status()["0"].state in {JobState.PENDING, JobState.HELD}
        finally:
            slurm.start_master()
        slurm.await_master()
        for pending in slurm.call("squeue", "--noheader", "--states=PENDING", "--format=%i").split():
            slurm.call("scontrol", "release", pending, check=False)  # some start meanwhile
        assert {future.result(BOUND) for future in waiting} <= set(slurm.nodes)
        assert working.status()["0"].state is JobState.RUNNING
        assert [status.state for status in queued.poll().values()] == [JobState.RUNNING]
        assert not any(one.bad_state_is_set for one in (working, queued, late))
    eventually(lambda: alone.status([job_id])[0].terminal, BOUND, "the end of the cancelled job")
    assert not (tmp_path / "sign").exists()
