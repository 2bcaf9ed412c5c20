"""Where a manager's workers come from: the zygote, the orders it gets, the births and deaths it reports."""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from flowcore_htex.lineage import adopt_orphans, sweep
from flowcore_htex.link import StreamLink
from flowcore_htex.log import Log
from flowcore_htex.loop import Loop
from flowcore_htex.memory import shared_file
from flowcore_htex.search import BARE
from flowcore_htex.slots import Slot

_PACKET: Final = 1 << 17
_END: Final = 3.0
"""Seconds that the zygote gets to sweep up at the end."""

_SWEEP: Final = 2.0
"""Seconds that killing what it left may take."""

_ZYGOTES: Final = 3
"""So many zygotes may be killed before the manager gives up."""

_BIRTHS: Final = 32
"""Workers that may be asked for and not yet be there, so that neither side ever waits for the other to read."""


class NodeBroken(Exception):
    """Workers cannot live on this node."""


class Nursery:
    """Starts the zygote and talks to it.

    Args:
        slots: the workers to be.
        loop: where the zygote's answers are waited for.
        log: the manager's log.
        sys_path: folders that the user's process imports from.
        born: called with a slot when its worker has been forked.
        died: called with a slot, an exit code, and whether it ended by itself, when a worker has ended.

    Attributes:
        cells: two shared 64-bit cells for each worker; see `Worker`.
        zygote: the process that workers are forked from.
    """

    def __init__(
        self,
        slots: list[Slot],
        loop: Loop,
        log: Log,
        sys_path: list[list[str]],
        born: Callable[[Slot], None],
        died: Callable[[Slot, int, bool], None],
    ) -> None:
        self._slots = slots
        self._loop = loop
        self._log = log
        self._sys_path = sys_path
        self._born = born
        self._died = died
        self._shared = shared_file("flowcore-cells")
        os.ftruncate(self._shared, 16 * len(slots))
        self.cells = memoryview(mmap.mmap(self._shared, 0)).cast("Q")
        self._lost = 0
        self._births: deque[tuple[Slot, socket.socket]] = deque()
        self._unborn = 0
        self.zygote = 0
        self._control = self._start()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.set_inheritable(True)
        os.set_inheritable(self._shared, True)
        arguments = [sys.executable, "-c", BARE, "flowcore_htex.zygote", str(theirs.fileno()), str(self._shared)]
        self.zygote = os.posix_spawn(sys.executable, arguments, os.environ)
        theirs.close()
        try:
            ours.send(json.dumps({"sys_path": self._sys_path}).encode())
        except OSError:
            pass  # it has been killed already, which is noticed where its answers are read
        self._loop.watch(ours.fileno(), self._on_zygote)
        adopt_orphans(True)
        return ours

    def order(self, slot: Slot) -> StreamLink:
        """Ask for a worker; the connection to it can be used at once."""
        theirs = slot.connect()
        assert slot.link is not None
        self._births.append((slot, theirs))
        self._order_births()
        return slot.link

    def _order_births(self) -> None:
        while self._births and self._unborn < _BIRTHS:
            slot, theirs = self._births.popleft()
            order = {
                "do": "spawn",
                "slot": slot.index,
                "log": slot.log,
                "env": slot.environment,
                "affinity": slot.cores,
            }
            try:
                socket.send_fds(self._control, [json.dumps(order).encode()], [theirs.fileno()])
            except OSError:
                self._births.appendleft((slot, theirs))
                return  # the zygote is gone, which is noticed where its answers are read
            theirs.close()
            self._unborn += 1

    def kill(self, slot: Slot) -> None:
        """Have a worker killed, with all that its tasks have started."""
        if slot.pid:
            self._tell({"do": "kill", "pid": slot.pid})

    def _tell(self, order: dict[str, Any]) -> None:
        try:
            self._control.send(json.dumps(order).encode())
        except OSError:
            pass  # a zygote that is gone is noticed where its answers are read

    def _on_zygote(self, _descriptor: int) -> None:
        try:
            data = self._control.recv(_PACKET)
        except OSError:
            data = b""
        if not data:
            self._replace()
            return
        record = json.loads(data)
        if "spawned" in record:
            slot = self._slots[record["spawned"]]
            slot.pid = record["pid"]
            self._unborn -= 1
            self._order_births()
            self._born(slot)
            if slot.killed:
                self.kill(slot)
        elif "exited" in record:
            self._died(self._slots[record["exited"]], record["code"], True)
        else:
            raise NodeBroken(f"a worker cannot be forked: {record['why']}")

    def _replace(self) -> None:
        """Start another zygote, and other workers: those of a zygote that was killed die with it."""
        self._log.error("the zygote was killed, and all workers with it")
        for slot in self._slots:
            if slot.pid:
                try:
                    os.killpg(slot.pid, signal.SIGKILL)
                except OSError:
                    continue
        self._loop.unwatch(self._control.fileno())
        self._control.close()
        os.waitpid(self.zygote, 0)
        sweep(_SWEEP)
        self._lost += 1
        if self._lost > _ZYGOTES:
            raise NodeBroken("the process that forks the workers keeps being killed")
        for _slot, theirs in self._births:
            theirs.close()
        self._births.clear()
        self._unborn = 0
        self._control = self._start()
        for slot in self._slots:
            self._died(slot, -signal.SIGKILL, False)

    def close(self) -> None:
        """Have all workers end, and wait until the zygote has swept up."""
        self._tell({"do": "end"})
        try:
            self._control.settimeout(_END)
            while self._control.recv(_PACKET):
                pass
        except OSError:
            pass
        self._control.close()
        try:
            os.waitpid(self.zygote, os.WNOHANG)
        except ChildProcessError:
            pass  # it was the last of those that were killed
        sweep(_SWEEP)
