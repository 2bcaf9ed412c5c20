"""Tasks that wait in a worker behind one that turns out long: taken back, for whichever worker is free first."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from flowcore_htex.slots import Slot

LATE: Final = 0.01
"""Seconds without an outcome after which a worker that has a task is given no other."""

_STUCK: Final = 0.05
"""Seconds without an outcome after which what a worker has not begun is taken back."""

_SEEN: Final = 0.002
"""Seconds after which one process sees what the other has written to the memory they share, and many times more."""


class Recall:
    """Watches the workers that have more than one task.

    Nobody is asked and waited for, since a worker that is in the midst of a task does not listen. The worker says which
    task begins, in the first of its cells, before it looks in the second how many messages call tasks off. So what it
    has not begun a moment after the second was raised, it will not begin: it sees that the tasks were recalled. What it
    was about to begin at that moment it runs, or reports as not begun. A task may come to the same worker again, and be
    recalled again, before such a report of the first time is read: so it names the message that it answers.

    Args:
        slots: the workers.
        cells: two shared cells for each of them; see `Worker`.
        send: tells a worker that tasks are recalled, and raises its second cell; returns the number of the message.
        put_back: takes the tasks with these ids from a worker.
    """

    def __init__(
        self,
        slots: list[Slot],
        cells: memoryview,
        send: Callable[[Slot, list[int]], int],
        put_back: Callable[[Slot, list[int]], None],
    ) -> None:
        self._slots = slots
        self._cells = cells
        self._send = send
        self._put_back = put_back
        self.due: float | None = None

    def watch(self, now: float) -> None:
        """Take note that a worker was given more than one task."""
        if self.due is None:
            self.due = now + _STUCK

    def check(self, now: float) -> None:
        """Recall what is stuck, and take back what was recalled; to be called when it is `due`."""
        pause: float | None = None
        for slot in self._slots:
            if slot.recalling:
                slot.recalling = False
                self._take_back(slot)
            elif slot.killed or slot.link is None or len(slot.tasks) < 2:
                continue
            elif not slot.recalled and now - slot.since >= _STUCK:
                self._recall(slot)
                pause = _SEEN
            elif pause is None:
                pause = _STUCK
        self.due = None if pause is None else time.monotonic() + pause

    def begin(self, slot: Slot) -> None:
        """Recall at once what waits in a worker that may have to be killed: what it had begun would be run twice."""
        if self._recall(slot):
            self.due = time.monotonic() + _SEEN

    def returned(self, slot: Slot, refusals: list[tuple[int, int]]) -> None:
        """Take note of tasks that the worker says it has not begun; news of those that were taken back are no news.

        A worker that says so listens: what else was recalled it has run, or will tell of too.
        """
        news = [tid for tid, number in refusals if slot.recalled.get(tid) == number]
        if news:
            slot.recalling = False
            self._give_up(slot, news)

    def _recall(self, slot: Slot) -> bool:
        """Recall all but the first of the tasks that have not been recalled before; whether there are any."""
        behind = [tid for tid in list(slot.tasks)[1:] if tid not in slot.recalled]
        if behind:
            slot.recalling = True
            slot.recalled.update(dict.fromkeys(behind, self._send(slot, behind)))
        return bool(behind)

    def _take_back(self, slot: Slot) -> None:
        begun = self._cells[2 * slot.index]
        behind = list(slot.tasks)
        if begun in slot.tasks:
            behind = behind[behind.index(begun) + 1 :]
        self._give_up(slot, [tid for tid in behind if tid in slot.recalled])

    def _give_up(self, slot: Slot, tids: list[int]) -> None:
        for tid in tids:
            del slot.recalled[tid]
        self._put_back(slot, tids)
