"""The cluster example of the manual on this machine; on Slurm and Grid Engine only the provider's line is another."""

from __future__ import annotations

import socket

import pytest

from flowcore.jobs.states import JobState
from flowcore.providers import LocalProvider
from page_example import run_example


@pytest.mark.slow
@pytest.mark.usefixtures("cleared")
def test_the_example_of_the_manual_runs_on_this_machine() -> None:
    hosts, blocks = run_example(LocalProvider(nodes_per_block=2, init_blocks=1, max_blocks=2))
    assert hosts == {socket.gethostname()}
    assert {status.state for status in blocks} == {JobState.RUNNING}
