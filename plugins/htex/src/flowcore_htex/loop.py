"""One thread, one wait: an epoll over descriptors, each with the function that serves it."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

from flowcore_htex.link import Link

Handler = Callable[[int], object]


class Loop:
    """Waits for descriptors and calls their handlers."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}

    def watch(self, descriptor: int, handler: Handler, *, writable: bool = False, readable: bool = True) -> None:
        """Call `handler(descriptor)` when it can be read (or written); replaces an earlier request."""
        events = (select.EPOLLIN if readable else 0) | (select.EPOLLOUT if writable else 0)
        if descriptor in self._handlers:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
        self._handlers[descriptor] = handler

    def unwatch(self, descriptor: int) -> None:
        """Forget a descriptor; harmless where it is not known."""
        if self._handlers.pop(descriptor, None) is not None:
            try:
                self._epoll.unregister(descriptor)
            except OSError:  # it was closed already
                pass

    def watch_link(self, link: Link, handler: Handler) -> None:
        """Call the handler when the link can be read, and when it can be written while there is a backlog."""
        descriptor = link.fileno()
        link.on_blocked = lambda blocked: self.watch(descriptor, handler, writable=blocked)
        self.watch(descriptor, handler, writable=bool(link.backlog))

    def turn(self, timeout: float | None) -> bool:
        """Wait once, at most `timeout` seconds, and serve whatever is ready; whether anything was."""
        ready = self._epoll.poll(timeout)
        for descriptor, _ in ready:
            handler = self._handlers.get(descriptor)
            if handler is not None:
                handler(descriptor)
        return bool(ready)

    def wake_on_signals(self) -> None:
        """Let a signal end the wait; Python alone would resume it after the handler."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self.watch(reader, lambda descriptor: bool(os.read(descriptor, 64)))

    def close(self) -> None:
        """Release the epoll itself."""
        self._epoll.close()
