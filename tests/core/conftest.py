"""Runs for the tests of the kernel and of apps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import flowcore
from flowcore.dataflow.kernel import DataFlowKernel
from flowcore.executors import ThreadPoolExecutor

Load = Callable[..., DataFlowKernel]


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
