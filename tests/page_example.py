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
MEETING = 600.0
PAGES = Path(__file__).parents[1] / "docs" / "providers"


@python_app
def where(seconds: float) -> str:
    import socket
    import time

    time.sleep(seconds)
    return socket.gethostname()


@python_app
def met(folder: str, count: int, seconds: float) -> str:
    """Return the name of the host once so many hosts have such a task; give up after so many seconds."""
    import socket
    import time
    from pathlib import Path

    deadline = time.monotonic() + seconds
    Path(folder, f"at-{socket.gethostname()}").touch()
    while len(list(Path(folder).glob("at-*"))) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    return socket.gethostname()


@python_app
def held(n: int, folder: str) -> tuple[int, str]:
    """Leave a sign of the host, and return number and host when there is a file `gate`."""
    import socket
    import time
    from pathlib import Path

    Path(folder, f"at-{socket.gethostname()}").touch()
    while not Path(folder, "gate").exists():
        time.sleep(0.05)
    return n, socket.gethostname()


def hosts_met(folder: Path, count: int, tasks: int) -> set[str]:
    """Run tasks that wait for each other until so many hosts have one; return the names of the hosts."""
    return {future.result(BOUND) for future in [met(str(folder), count, MEETING) for _ in range(tasks)]}


def run_example(provider: Provider, folder: Path, count: int) -> tuple[set[str], list[JobStatus]]:
    """Run the script on so many hosts; return the names of those that its tasks ran on, and the blocks at its end."""
    htex_hpc = HighThroughputExecutor(
        label="cluster_htex",
        cores_per_worker=4,
        mem_per_worker=4000,
        max_workers=100,
        provider=provider,
    )
    with flowcore.load(Config(executors=[htex_hpc], strategy_period=1)):
        return hosts_met(folder, count, 100), list(htex_hpc.poll().values())


def page(name: str, own: dict[str, str] | None = None) -> Any:
    """Return the first configuration on a page about a provider, with words replaced by one's own."""
    text = (PAGES / f"{name}.md").read_text().partition("```python\n")[2].partition("```")[0]
    for theirs, mine in (own or {}).items():
        assert theirs in text
        text = text.replace(theirs, mine)
    namespace: dict[str, Any] = {}
    exec(text, namespace)
    return namespace["config"]
