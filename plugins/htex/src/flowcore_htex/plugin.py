"""The manifest: what this distribution offers to flowcore."""

from __future__ import annotations

from collections.abc import Iterable

from flowcore.plugin import Component, hookimpl

FLOWCORE_API = 1


@hookimpl
def flowcore_executors() -> Iterable[Component]:
    """Offer the executor."""
    yield Component(
        "HighThroughputExecutor",
        "flowcore_htex.executor:HighThroughputExecutor",
        "Runs many tasks in worker processes, on this machine or on blocks of nodes.",
    )
