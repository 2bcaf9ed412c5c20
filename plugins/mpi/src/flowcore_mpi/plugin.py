"""Announces the MPIExecutor to flowcore."""

from __future__ import annotations

from collections.abc import Iterator

from flowcore.plugin import Component, hookimpl

FLOWCORE_API = 1


@hookimpl
def flowcore_executors() -> Iterator[Component]:
    """Offer the executor."""
    yield Component("MPIExecutor", "flowcore_mpi.executor:MPIExecutor", "Runs multi-node MPI applications.")
