"""Work through what follows from what, in a loop where calls would nest."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")
Step = Callable[[T], object]

logger = logging.getLogger(__name__)

DEEPEST: Final = 20
"""How many loops of one thread may be inside each other."""


class Trampoline(threading.local, Generic[T]):
    """A queue of each thread's own: what is added while it is being worked off waits its turn.

    A task that ends makes others ready, and may end them too. As nested calls a chain of 100,000 tasks would need as
    many stack frames; here it needs one.

    Args:
        give_up: called with the subject of a step that raised, and with what it raised.
    """

    def __init__(self, give_up: Callable[[T, BaseException], object]) -> None:
        self._give_up = give_up
        self._queue: deque[tuple[Step[T], T]] = deque()
        self._depth = 0

    def run(self, step: Step[T], subject: T) -> None:
        """Take the step now or, from within another one, when that is over."""
        if self._depth == 0:
            self._work_off(step, subject)
        else:
            self._queue.append((step, subject))

    def run_inside(self, step: Step[T], subject: T) -> None:
        """Take the step now, even from within another one: that one may have called user code, which may wait for it.

        Nested too deeply it comes later, so that code which always makes another one from its callback ends.
        """
        if self._depth in (0, DEEPEST):
            self.run(step, subject)
            return
        outer, self._queue = self._queue, deque()
        try:
            self._work_off(step, subject)
        finally:
            self._queue = outer

    def catch_up(self) -> None:
        """Take what waits its turn now: user code that the current step has called is going to wait, perhaps for it.

        Nested too deeply it waits all the same.
        """
        if self._queue and self._depth < DEEPEST:
            self._work_off(*self._queue.popleft())

    def _work_off(self, step: Step[T], subject: T) -> None:
        """Take a step, and then those that it adds."""
        queue = self._queue
        interruption: BaseException | None = None
        self._depth += 1
        try:
            while True:
                try:
                    step(subject)
                except BaseException as error:  # an interrupt, or a bug: the others' turn comes all the same
                    self._give_up(subject, error)
                    if isinstance(error, Exception):
                        logger.exception("a step of %r went wrong", subject)
                    else:
                        interruption = error
                if not queue:
                    break
                step, subject = queue.popleft()
        finally:
            self._depth -= 1
        if interruption is not None:
            raise interruption
