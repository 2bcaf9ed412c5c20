"""A Grid Engine of two hosts for the tests of this folder; each test leaves it without jobs and processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clusters.cluster import boot
from clusters.grid_engine import GridEngineCell
from flowcore.executors.base import RunContext


@pytest.fixture(scope="session")
def booted() -> Iterator[GridEngineCell]:
    """The cell of this test process."""
    cell = boot(GridEngineCell, 2)
    with cell.known():
        yield cell
    cell.close()


@pytest.fixture
def cell(booted: GridEngineCell) -> Iterator[GridEngineCell]:
    """The cell, at rest before the test and after it."""
    yield booted
    left = booted.await_rest()
    if left:
        booted.purge()
    assert not left


@pytest.fixture
def run(tmp_path: Path) -> RunContext:
    """What an executor is told when it starts."""
    return RunContext(run_id="run", run_dir=tmp_path / "runinfo")
