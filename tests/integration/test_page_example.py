"""The cluster example of the manual on this machine; on Slurm and Grid Engine only the provider's line is another."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

import flowcore
from flowcore.jobs.states import JobState
from flowcore.providers import LocalProvider
from page_example import page, run_example, where


@pytest.mark.slow
def test_the_example_of_the_manual_runs_on_this_machine(tmp_path: Path) -> None:
    hosts, blocks = run_example(LocalProvider(nodes_per_block=2, init_blocks=1, max_blocks=2), tmp_path, 1)
    assert hosts == {socket.gethostname()}
    assert {status.state for status in blocks} == {JobState.RUNNING}


@pytest.mark.slow
def test_the_configuration_of_the_page_about_this_machine_runs() -> None:
    with flowcore.load(page("local")):
        assert {future.result(60) for future in [where(0) for _ in range(8)]} == {socket.gethostname()}
