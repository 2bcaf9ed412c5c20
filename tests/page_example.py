"""The cluster example of the manual, whose script is the same wherever its blocks come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flowcore
from flowcore import Config, python_app
from flowcore.executors import HighThroughputExecutor
from flowcore.jobs.states import JobStatus
from flowcore.providers.base import Provider

BOUND = 90.0
PAGES = Path(__file__).parents[1] / "docs" / "providers"


@python_app
def where(seconds: float) -> str:
    import socket
    import time

    time.sleep(seconds)
    return socket.gethostname()


def run_example(provider: Provider) -> tuple[set[str], list[JobStatus]]:
    """Run the script; return the names of the hosts that its tasks ran on, and the blocks at its end."""
    htex_hpc = HighThroughputExecutor(
        label="cluster_htex",
        cores_per_worker=4,
        mem_per_worker=4000,
        max_workers=100,
        provider=provider,
    )
    with flowcore.load(Config(executors=[htex_hpc], strategy_period=1)):
        hosts = {future.result(BOUND) for future in [where(0.2) for _ in range(100)]}
        return hosts, list(htex_hpc.poll().values())


def page(name: str, own: dict[str, str] | None = None) -> Any:
    """Return the first configuration on a page about a provider, with words replaced by one's own."""
    text = (PAGES / f"{name}.md").read_text().partition("```python\n")[2].partition("```")[0]
    for theirs, mine in (own or {}).items():
        assert theirs in text
        text = text.replace(theirs, mine)
    namespace: dict[str, Any] = {}
    exec(text, namespace)
    return namespace["config"]
