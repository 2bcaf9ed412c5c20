"""Runs for the tests of the kernel and of apps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import flowcore
from flowcore.dataflow.kernel import DataFlowKernel
from flowcore.executors import ThreadPoolExecutor

Load = Callable[..., DataFlowKernel]


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """Let a test end when its threads have: a task that still runs may write a file where the next test is."""
    before = set(threading.enumerate())
    yield
    flowcore.clear(wait=False)
    deadline = time.monotonic() + 60.0
    while left := set(threading.enumerate()) - before:  # not joined: one that is being started cannot be
        assert time.monotonic() < deadline, f"{left} still run"
        time.sleep(0.005)


@pytest.fixture
def load() -> Iterator[Load]:
    """Load a run on threads; options are those of `Config`. It is cleared at the end without waiting."""

    def load(**options: Any) -> DataFlowKernel:
        options.setdefault("executors", [ThreadPoolExecutor(max_threads=4)])
        return flowcore.load(flowcore.Config(**options))

    yield load
    flowcore.clear(wait=False)


@pytest.fixture
def kernel(load: Load) -> DataFlowKernel:
    """A loaded run on four threads."""
    return load()
