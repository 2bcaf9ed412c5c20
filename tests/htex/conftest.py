"""What the tests of htex share: executors that are shut down and looked after, and a gate at which tasks wait."""

from __future__ import annotations

import logging
import os

import pytest

from flowcore.executors.base import RunContext
from flowcore.testing.gate import Gate
from flowcore.testing.leftovers import Leftovers
from flowcore_htex.executor import HighThroughputExecutor

PATIENCE = 60
"""Seconds that anything may take before a test fails; more than a busy machine needs."""


@pytest.fixture
def start(tmp_path):
    """Start executors with one worker or whatever is asked for; each is shut down, and must leave nothing."""
    leftovers = Leftovers()
    started = []

    def start_one(**options):
        executor = HighThroughputExecutor(**{"max_workers": 1, **options})
        run_dir = tmp_path / f"run-{len(started)}"
        run_dir.mkdir()
        started.append(executor)
        executor.start(RunContext(run_id=f"{os.getpid()}-{len(started)}", run_dir=run_dir, log_level=logging.INFO))
        return executor

    yield start_one
    leftovers.watch()
    for executor in started:
        executor.shutdown()
    assert leftovers.after(PATIENCE) == []


@pytest.fixture
def gate():
    """Hold `flowcore.testing.tasks.hold(gate.port)` until the test opens it."""
    with Gate(PATIENCE) as gate:
        yield gate
