"""One script runs on this machine and on a real Grid Engine; the provider's line is all that differs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flowcore
from clusters.grid_engine import GridEngineCell
from flowcore import Config, bash_app, python_app
from flowcore.executors import HighThroughputExecutor
from flowcore.providers import GridEngineProvider, LocalProvider
from flowcore.providers.base import Provider

WORKER_INIT = f"export PATH={Path(sys.executable).parent}:$PATH"

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _cleared(cell: GridEngineCell, cleared: None) -> Iterator[None]:
    del cleared
    yield
    flowcore.clear(wait=False)
    cell.clear()


@python_app
def host(seconds: float) -> str:
    import socket
    import time

    time.sleep(seconds)
    return socket.gethostname()


@bash_app
def greet(name: str, stdout: str = "greeting") -> str:
    return f"echo hello {name}"


def run(provider: Provider, address: str) -> set[str]:
    """Run the script; return the names of the hosts that its tasks ran on."""
    executor = HighThroughputExecutor(address=address, max_workers=2, provider=provider)
    return run_with(Config(executors=[executor]))


def run_with(config: Config) -> set[str]:
    with flowcore.load(config):
        hosts = {future.result(timeout=60) for future in [host(0.3) for _ in range(12)]}
        assert greet("you", stdout="greeting").result(timeout=60) == 0
    assert Path("greeting").read_text() == "hello you\n"
    return hosts


def test_on_this_machine(cell: GridEngineCell) -> None:
    assert cell.hosts is not None
    assert len(run(LocalProvider(nodes_per_block=2), cell.hosts.head)) == 1


def test_on_every_node_of_a_block(cell: GridEngineCell) -> None:
    assert cell.hosts is not None
    provider = GridEngineProvider(nodes_per_block=2, parallel_environment="mpi", worker_init=WORKER_INIT)
    assert run(provider, cell.hosts.head) == {"n1", "n2"}


def test_in_two_blocks_of_one_node(cell: GridEngineCell) -> None:
    assert cell.hosts is not None
    provider = GridEngineProvider(
        init_blocks=2, max_blocks=2, queue="all.q", scheduler_options="#$ -pe smp 4", worker_init=WORKER_INIT
    )
    assert run(provider, cell.hosts.head) == {"n1", "n2"}


@pytest.mark.usefixtures("cell")
def test_the_configuration_of_the_page() -> None:
    page = (Path(__file__).parents[3] / "docs" / "providers" / "grid_engine.md").read_text()
    text = page.partition("```python\n")[2].partition("```")[0]
    own = text.replace("source ~/venv/bin/activate", WORKER_INIT)
    assert own != text
    namespace: dict[str, Any] = {}
    exec(own, namespace)
    assert run_with(namespace["config"]) == {"n1", "n2"}
