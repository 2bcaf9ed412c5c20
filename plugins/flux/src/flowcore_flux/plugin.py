"""Announces the FluxExecutor to flowcore."""

from __future__ import annotations

from collections.abc import Iterator

from flowcore.plugin import Component, hookimpl

FLOWCORE_API = 1


@hookimpl
def flowcore_executors() -> Iterator[Component]:
    """Offer the executor."""
    yield Component("FluxExecutor", "flowcore_flux.executor:FluxExecutor", "Runs each task as a Flux job.")
