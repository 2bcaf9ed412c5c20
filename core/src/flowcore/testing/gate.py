"""A gate at which running tasks wait, so that a test decides when they end."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class Gate:
    """Holds every `flowcore.testing.tasks.hold(gate.port)` until it opens.

    A task is known to run when its connection arrives, and known to have gone, however it died, when that closes.

    Args:
        patience: seconds to wait for a task to arrive or to leave before `TimeoutError`.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.settimeout(patience)
        self._held: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]

    def wait_for(self, count: int) -> None:
        """Wait until `count` more tasks run."""
        for _ in range(count):
            connection, _address = self._listener.accept()
            self._held.append(connection)

    def arrived(self) -> bool:
        """Whether yet another task has begun to run."""
        return bool(select.select([self._listener], [], [], 0)[0])

    def wait_until_gone(self) -> None:
        """Wait until every task that ran has ended, the gate being closed: somebody stopped them."""
        for connection in self._held:
            connection.settimeout(self.patience)
            try:
                connection.recv(1)
            except ConnectionError:  # the process was killed
                pass

    def open(self) -> None:
        """Let every task end that waits, and those that arrive later fail."""
        self._listener.close()
        while self._held:
            self._held.pop().close()

    def __enter__(self) -> Gate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open()
