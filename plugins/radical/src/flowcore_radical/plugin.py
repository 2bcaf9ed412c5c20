"""Announces the RadicalPilotExecutor to flowcore."""

from __future__ import annotations

from collections.abc import Iterator

from flowcore.plugin import Component, hookimpl

FLOWCORE_API = 1


@hookimpl
def flowcore_executors() -> Iterator[Component]:
    """Offer the executor."""
    yield Component(
        "RadicalPilotExecutor",
        "flowcore_radical.executor:RadicalPilotExecutor",
        "Runs tasks on RADICAL-Pilot.",
        companions=("ResourceConfig",),
    )
