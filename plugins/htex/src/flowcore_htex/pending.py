"""The tasks that wait in the interchange, and how they are given out."""

from __future__ import annotations

import heapq
import json
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from flowcore_htex.log import Log
from flowcore_htex.matching import UNITS, ManagerSelector, Rooms, fits, reserve, units_ahead
from flowcore_htex.peers import Manager
from flowcore_htex.wire import Task

_LAST: Final = float("inf")
_SOONEST: Final = float("-inf")
_ANY: Final = float("inf")
_LOOK_BEHIND: Final = 64
"""How many demanding tasks behind one that has to wait are tried."""

_FEW: Final = 64
"""How many stuck tasks are told of: enough to start blocks for them."""


_Special: TypeAlias = "tuple[float, int, Task, dict[str, Any]]"
"""A task that asks for something: its priority, its age, itself, and what it asks for."""


class Pending:
    """Queues of waiting tasks; a task's id tells its age, as the user's process counts upwards."""

    def __init__(self, selector: ManagerSelector, prefetch: int, log: Log) -> None:
        self.estimates: dict[int, float] = {}
        self._log = log
        self._selector_failed = False
        self._selector = selector
        self._prefetch = prefetch
        self._plain: deque[Task] = deque()
        self._special: list[_Special] = []
        self.stuck_changes = 0
        """How often it has changed which tasks are stuck."""
        self._stuck: list[_Special] = []  # they ask for more than any manager has; only another one can help them

    def __len__(self) -> int:
        return len(self._plain) + len(self._special) + len(self._stuck)

    def __bool__(self) -> bool:
        """Whether there are tasks that the managers there are may take."""
        return bool(self._plain or self._special)

    def stuck(self) -> list[int]:
        """Return the ids of tasks that wait and that no manager there is will ever have room, or time, for: a few."""
        return [tid for _, tid, _, _ in self._stuck[:_FEW]]

    def add(self, tasks: Iterable[Task]) -> None:
        """Queue tasks that ask for nothing, in the order given."""
        self._plain.extend(tasks)

    def add_special(self, task: Task) -> None:
        """Queue a task that asks for something; for the manager only what is not a priority matters."""
        need: dict[str, Any] = json.loads(task.spec)
        priority = need.pop("priority", _LAST)
        spec = json.dumps(need).encode() if need else b""
        heapq.heappush(self._special, (priority, task.tid, task._replace(spec=spec), need))

    def put_back(self, tasks: list[Task]) -> None:
        """Queue tasks again that were given out and never started.

        Those that ask for something go before all others, those that ask for nothing before all that ask for nothing.
        """
        self._plain.extendleft(task for task in reversed(tasks) if not task.spec)
        for task in tasks:
            if task.spec:
                heapq.heappush(self._special, (_SOONEST, task.tid, task, json.loads(task.spec)))

    def reconsider(self) -> None:
        """Have another look at the tasks that are stuck: a manager has come."""
        if not self._stuck:
            return
        for entry in self._stuck:
            heapq.heappush(self._special, entry)
        self._stuck.clear()
        self.stuck_changes += 1

    def drop(self, tids: set[int]) -> set[int]:
        """Forget cancelled tasks; returns those that were waiting here."""
        found = {task.tid for task in self._plain if task.tid in tids}
        if found:
            self._plain = deque(task for task in self._plain if task.tid not in found)
        waiting = {entry[1] for entry in self._special if entry[1] in tids}
        if waiting:
            self._special = [entry for entry in self._special if entry[1] not in waiting]
            heapq.heapify(self._special)
        stuck = {entry[1] for entry in self._stuck if entry[1] in tids}
        if stuck:
            self._stuck = [entry for entry in self._stuck if entry[1] not in stuck]
            self.stuck_changes += 1
        return found | waiting | stuck

    def give_out(self, managers: dict[str, Manager], functions: dict[int, bytes]) -> None:
        """Send as many tasks to the managers as they have room for."""
        everyone = {name: manager for name, manager in managers.items() if manager.open}
        able = everyone
        behind_others = bool(self._plain)
        if self._special and able:
            able = self._give_special(able, everyone, functions)
        for level in (1, 1 + self._prefetch) if self._prefetch else (1,):
            if self._plain:
                self._give_plain(able, level, functions)
        if self._special and behind_others and not self._plain and able:
            self._give_special(able, everyone, functions)

    def _give_plain(self, able: dict[str, Manager], level: int, functions: dict[int, bytes]) -> None:
        ready = {name for name, manager in able.items() if manager.used < level * UNITS * manager.workers}
        if not ready:
            return
        names: Iterable[str] = ready
        if len(able) > 1:
            names = self._sorted({name: able[name].report() for name in ready})
            idle = [name for name in names if len(able[name].tasks) < able[name].workers]
            self._fill(able, idle, level, 1, functions)  # nobody waits in line while somebody else is idle
        self._fill(able, names, level, _ANY, functions)

    def _fill(
        self, able: dict[str, Manager], names: Iterable[str], level: int, each: float, functions: dict[int, bytes]
    ) -> None:
        """Give managers tasks for `level` times their workers, but not more than `each` for each worker."""
        plain, estimates = self._plain, self.estimates
        for name in names:
            if not plain:
                return
            manager = able[name]
            limit = level * UNITS * manager.workers
            room = each * manager.workers - len(manager.tasks)
            given: list[Task] = []
            while plain and manager.used < limit and len(given) < room:
                task = plain.popleft()
                manager.take(task, units_ahead(estimates.get(task.function)))
                given.append(task)
            if given:
                manager.hand_over(given, functions)

    def _sorted(self, ready: dict[str, dict[str, Any]]) -> list[str]:
        """Ask the selector, which may be the user's, and take whatever it says for advice."""
        try:
            chosen = [name for name in self._selector.sort_managers(ready, set(ready)) if name in ready]
        except Exception as error:  # noqa: BLE001 - it is foreign code; the tasks go out all the same
            if not self._selector_failed:
                self._selector_failed = True
                self._log.error(f"the manager selector failed, once or more: {type(error).__name__}: {error}")
            chosen = []
        return list(dict.fromkeys([*chosen, *ready]))

    def _give_special(
        self, able: dict[str, Manager], everyone: dict[str, Manager], functions: dict[int, bytes]
    ) -> dict[str, Manager]:
        """Place tasks that ask for something; returns the managers that are left for all others.

        Args:
            able: managers that may be given tasks.
            everyone: those that may have room for a task when they are idle.
            functions: the functions by number.
        """
        kept: list[_Special] = []
        waiting: dict[bytes, bool] = {}  # requests for which there is no room now, and whether there ever is
        reserved: str | None = None
        rooms = Rooms({name: manager.free() for name, manager in able.items()})
        while self._special and rooms.free and len(kept) < _LOOK_BEHIND:
            priority, tid, task, need = self._special[0]
            if priority == _LAST and self._plain and self._plain[0].tid < tid:
                break
            entry = heapq.heappop(self._special)
            slots = next(iter(everyone.values())).slots_for(need)
            name = rooms.choose(task.spec, need, slots)
            if name is not None:
                able[name].take(task, UNITS, need)
                able[name].hand_over([task], functions)
                rooms.free[name] = able[name].free()
                continue
            new = task.spec not in waiting
            if new:
                waiting[task.spec] = any(fits(manager.total, need, slots) for manager in everyone.values())
            if not waiting[task.spec]:
                self._stuck.append(entry)
                self.stuck_changes += 1
                continue
            kept.append(entry)
            if reserved is not None and rooms.full:
                break
            if reserved is None and new:
                totals = {name: able[name].total for name in rooms.free}
                reserved = reserve(totals, rooms.free, need, slots)
                if reserved is not None:
                    del rooms.free[reserved]
        for entry in kept:
            heapq.heappush(self._special, entry)
        return {name: able[name] for name in rooms.free}
