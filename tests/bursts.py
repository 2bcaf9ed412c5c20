"""A bursty load on blocks of one worker each, and what the blocks do about it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import flowcore
from clusters.daemons import eventually
from flowcore import Config, python_app
from flowcore.executors import HighThroughputExecutor
from flowcore.providers.base import Provider

BOUND = 60.0

PROMPT = 0.2
"""Seconds from demand to the submission of a block, where nothing else keeps the machine busy."""


def watched(kind: type[Provider]) -> Any:
    """Return a class of the same kind whose objects note, in `asked`, when they were asked for blocks."""

    class Watched(kind):  # type: ignore[valid-type,misc]
        @property
        def label(self) -> str:
            return kind.__name__.removesuffix("Provider").lower()

        def submit(self, *args: Any) -> str:
            asked.append(time.monotonic())
            return str(super().submit(*args))

    asked: list[float] = []
    Watched.asked = asked
    return Watched


def live(executor: HighThroughputExecutor) -> int:
    """Count the blocks that have not ended."""
    return sum(not status.terminal for status in executor.status().values())


def bursts(provider: Any, folder: Path, times: int = 3) -> list[float]:
    """Let the blocks grow from none to three and shrink to none again; return the seconds until each first block.

    Args:
        provider: of a `watched` class, from 0 to 3 blocks.
        times: how often; a busy machine delays some of them.
        folder: seen by the workers too.
    """

    @python_app
    def held(gate: str) -> str:
        import os
        import time
        from pathlib import Path

        block = os.environ["FLOWCORE_BLOCK_ID"]
        Path(f"{gate}.reached-by-{block}").touch()
        while not Path(gate).exists():
            time.sleep(0.02)
        return block

    executor = HighThroughputExecutor(max_workers=1, provider=provider)
    delays = []
    config = Config(
        executors=[executor], strategy="simple", strategy_period=0.5, max_idletime=0.5, run_dir=folder / "run"
    )
    with flowcore.load(config):
        for number in range(times):
            assert live(executor) == 0
            began, gate, asked = time.monotonic(), folder / f"gate-{number}", len(provider.asked)
            tasks = [held(str(gate)) for _ in range(9)]
            eventually(lambda: len([*folder.glob(f"{gate.name}.*")]) == 3, BOUND, "three blocks at work")  # noqa: B023
            delays.append(provider.asked[asked] - began)
            assert live(executor) == 3
            gate.touch()
            assert len({task.result(BOUND) for task in tasks}) == 3
            eventually(lambda: live(executor) == 0, BOUND, "no block")
    return delays
