"""A Slurm of four nodes for the tests of this folder; each test leaves it without jobs and processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clusters.cluster import boot
from clusters.slurm import SlurmCluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "integration/slurm" in str(item.path):
            item.add_marker("slurm")


@pytest.fixture(scope="session")
def booted() -> Iterator[SlurmCluster]:
    """The cluster of this test process."""
    cluster = boot(SlurmCluster, 4)
    with cluster.known():
        yield cluster
    cluster.close()


@pytest.fixture
def slurm(booted: SlurmCluster) -> Iterator[SlurmCluster]:
    """The cluster, at rest before the test and after it."""
    yield booted
    left = booted.await_rest()
    if left:
        booted.purge()
    assert not left
