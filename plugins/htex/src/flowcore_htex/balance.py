"""Tasks that wait in a manager while another has nothing to do: asked back, as far as nobody has begun them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from flowcore_htex import wire
from flowcore_htex.matching import UNITS
from flowcore_htex.peers import Manager

_SETTLED: Final = 0.05
"""Seconds after which what a manager was given in advance should have been begun, were it as short as was thought."""

_LONGEST: Final = 2.0
"""Seconds between two requests, at most, where a manager gives nothing back."""


class Balance:
    """Looks at the managers when no task waits in the interchange; what comes back is then given to those with room."""

    def __init__(self, managers: Mapping[str, Manager]) -> None:
        self._managers = managers
        self._pause = _SETTLED
        self.due: float | None = None

    def stir(self, now: float) -> None:
        """Take note that some manager has less to do than before, or is new."""
        self._pause = _SETTLED
        if self.due is None or self.due > now + _SETTLED:
            self.due = now + _SETTLED

    def look(self, now: float) -> None:
        """Ask managers with more tasks than workers for as many as others can begin; call it when it is `due`."""
        self.due = None
        idle = sum(_idle(manager) for manager in self._managers.values() if manager.open)
        if not idle:
            return
        uneven = False
        for manager in self._managers.values():
            count = min(idle, _waiting(manager))
            if count <= 0:
                continue
            uneven = True
            if now - manager.told >= _SETTLED:
                manager.peer.queue(wire.RECALL, wire.pack_ids([count]))
                manager.peer.flush()
                idle -= count
        if uneven:
            self.due = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST)


def _idle(manager: Manager) -> int:
    """Return how many of its workers have nothing to do."""
    return max(0, manager.workers - max(len(manager.tasks), math.ceil(manager.used / UNITS)))


def _waiting(manager: Manager) -> int:
    """Return how many of its tasks wait for a worker, at least."""
    return max(len(manager.tasks) - manager.workers, math.ceil(manager.used / UNITS) - manager.workers)
