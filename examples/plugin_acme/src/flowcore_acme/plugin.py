"""The manifest: announces what this plugin offers, and imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from flowcore.plugin import Component, hookimpl

FLOWCORE_API = 1


@hookimpl
def flowcore_executors() -> Iterator[Component]:
    """Offer the executor, named but not imported."""
    yield Component("AcmeExecutor", "flowcore_acme.executor:AcmeExecutor", "Runs tasks on Acme.")
