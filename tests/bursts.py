"""A bursty load on blocks of one worker each, and what the blocks do about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flowcore
from flowcore import Config, python_app
from flowcore.executors import HighThroughputExecutor
from flowcore.providers.base import Provider
from waiting import eventually

BOUND = 60.0

NEVER = 3600.0
"""Seconds between two looks at the blocks where nobody is meant to look."""


def watched(kind: type[Provider]) -> Any:
    """Return a class of the same kind whose objects count, in `asked`, the blocks that they were asked for.

    Blocks are looked at every `Watched.interval` seconds, after the next call of `Watched.look`; there is one object.
    """

    class Watched(kind):  # type: ignore[valid-type,misc]
        interval = NEVER
        told = 0.0
        asked = 0

        @property
        def label(self) -> str:
            return kind.__name__.removesuffix("Provider").lower()

        @property
        def status_polling_interval(self) -> float:
            Watched.told = self.interval
            return Watched.told

        def submit(self, *args: Any) -> str:
            Watched.asked += 1
            return str(super().submit(*args))

        def watch(self, changed: Callable[[], None]) -> None:
            Watched.look = staticmethod(changed)

    return Watched


def live(executor: HighThroughputExecutor) -> int:
    """Count the blocks that have not ended."""
    return sum(not status.terminal for status in executor.status().values())


def bursts(provider: Any, folder: Path, times: int = 3) -> None:
    """Let the blocks grow from none to three, with nothing but the demand to start them, and shrink to none again.

    Args:
        provider: of a `watched` class, from 0 to 3 blocks.
        times: how often.
        folder: seen by the workers too.
    """
    kind = type(provider)

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
    config = Config(
        executors=[executor], strategy="simple", strategy_period=NEVER, max_idletime=0.5, run_dir=folder / "run"
    )
    with flowcore.load(config):
        for number in range(times):
            eventually(lambda: kind.told == NEVER, BOUND, "the last look")
            assert live(executor) == 0
            gate = folder / f"gate-{number}"
            tasks = [held(str(gate)) for _ in range(9)]
            eventually(lambda: len([*folder.glob(f"{gate.name}.*")]) == 3, BOUND, "three blocks at work")  # noqa: B023
            assert live(executor) == 3
            gate.touch()
            assert len({task.result(BOUND) for task in tasks}) == 3
            kind.interval = 0.2
            kind.look()
            eventually(lambda: live(executor) == 0, BOUND, "no block")
            kind.interval = NEVER
