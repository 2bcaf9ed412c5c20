"""The manifest: announces the thread executor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowcore.plugin import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

FLOWCORE_API = 1


@hookimpl
def flowcore_executors() -> Iterator[Component]:
    """Offer the one executor of this plugin."""
    yield Component(
        "ThreadPoolExecutor", "flowcore_threads.executor:ThreadPoolExecutor", "Runs tasks in threads of this process."
    )
