"""Work through what follows from what, in a loop where calls would nest."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class Trampoline(threading.local):
    """A queue of each thread's own: what is added while it is being worked off waits its turn.

    A task that ends makes others ready, and may end them too. As nested calls a chain of 100,000 tasks would need as
    many stack frames; here it needs one.
    """

    def __init__(self) -> None:
        self._queue: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._busy = False

    def run(self, function: Callable[[Any], None], argument: Any) -> None:
        """Call `function(argument)` now or, from within such a call, when that is over."""
        queue = self._queue
        queue.append((function, argument))
        if self._busy:
            return
        self._busy = True
        try:
            while queue:
                function, argument = queue.popleft()
                function(argument)
        finally:
            self._busy = False
