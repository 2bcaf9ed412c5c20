"""A block of one minute, the least that Slurm knows: its manager ends in time, and the next block goes on."""

from __future__ import annotations

import logging
import re

import pytest

import flowcore
from clusters.slurm import SlurmCluster
from flowcore import Config, python_app
from flowcore.errors import InvalidResourceSpecification
from flowcore.executors import HighThroughputExecutor
from flowcore.jobs.states import JobState
from flowcore.providers import SlurmProvider
from waiting import eventually

BOUND = 150.0
LATE = 25.0
"""Seconds that the first block no longer has when a task wants them, and that the second has for sure."""


@python_app
def block(seconds: float) -> str:
    import os
    import time

    time.sleep(seconds)
    return os.environ["FLOWCORE_BLOCK_ID"]


@python_app
def busy(seconds: float) -> str:
    """Do the same; as it is not known to be short, no more are sent ahead than there are workers."""
    import os
    import time

    time.sleep(seconds)
    return os.environ["FLOWCORE_BLOCK_ID"]


def time_left(executor: HighThroughputExecutor, block_id: str) -> float:
    """Return the seconds that the managers of a block still have; 0 where it has none any more."""
    managers = executor.connected_managers()
    return max((one["seconds_left"] for one in managers if one["block_id"] == block_id), default=0)


@pytest.mark.slow
def test_a_manager_ends_before_the_walltime_of_its_block(slurm: SlurmCluster, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flowcore")
    executor = HighThroughputExecutor(max_workers=2, provider=SlurmProvider(walltime="00:01:00"))
    with flowcore.load(Config(executors=[executor], strategy_period=1, retries=0, lost_retries=0)):
        with pytest.raises(InvalidResourceSpecification, match="walltime of 60 s"):
            block(0, resource_specification={"walltime": "00:01:00"}).result(BOUND)
        assert block(0).result(BOUND) == "0"
        (manager,) = executor.connected_managers()
        assert 0 < manager["seconds_left"] <= 55
        fill = [busy(1) for _ in range(2 * round(manager["seconds_left"]) + 6)]  # more than there is time for
        assert fill[3].result(BOUND) == "0"
        soon = block(0, resource_specification={"walltime": 5, "priority": 1})
        assert soon.result(BOUND) == "0"
        eventually(lambda: time_left(executor, "0") < LATE, BOUND, "the end of the first block coming near")
        late = block(0, resource_specification={"running_time_min": LATE, "priority": 1})
        assert late.result(BOUND) == "1"
        assert {future.result(BOUND) for future in fill} == {"0", "1"}
        status = executor.status()
        said = "\n".join(record.getMessage() for record in caplog.records)
        jobs = re.findall(r"block (\d+) is job (\d+)", said)
        job = slurm.call("scontrol", "show", "job", dict(jobs)["0"])
    assert (status["0"].state, status["0"].message) == (JobState.COMPLETED, "ended: its walltime is almost over")
    assert "block 0 takes no more tasks: its walltime is almost over" in said
    assert "JobState=COMPLETED" in job
    assert list(status) == ["0", "1"]
    assert not [line for line in said.splitlines() if "FAILED" in line or "MISSING" in line]
