"""The process that forks workers: small, without threads, and the one that reaps and kills them."""

from __future__ import annotations

import array
import contextlib
import gc
import json
import mmap
import os
import select
import signal
import socket
import sys
import time
from typing import Any, Final, NoReturn

from flowcore_htex.lineage import adopt_orphans, descendants, die_with_parent
from flowcore_htex.search import extend_path
from flowcore_htex.worker import Worker

PACKET: Final = 1 << 17
_GRACE: Final = 0.15
"""Seconds that idle workers get to end by themselves when everything ends."""
_REAP: Final = 2.0


class Zygote:
    """Forks workers on request of its manager, tells it at once how they ended, and leaves nothing behind."""

    def __init__(self, control: socket.socket, shared: int) -> None:
        self._control = control
        self._cells = mmap.mmap(shared, 0)
        self._slots: dict[int, int] = {}
        self._wakeup, self._signals = os.pipe()
        os.set_blocking(self._signals, False)
        os.set_blocking(self._wakeup, False)

    def run(self) -> NoReturn:
        """Serve until the manager says so, or is gone."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._signals, warn_on_full_buffer=False)
        adopt_orphans(True)
        waiter = select.poll()
        waiter.register(self._control, select.POLLIN)
        waiter.register(self._wakeup, select.POLLIN)
        going = True
        while going:
            for descriptor, _ in waiter.poll():
                if descriptor == self._wakeup:
                    self._reap()
                else:
                    going = self._obey()
        self._end()

    def _obey(self) -> bool:
        """Do what the manager asks; False when it is time to end."""
        try:
            data, ancillary, _, _ = self._control.recvmsg(PACKET, socket.CMSG_SPACE(8))
        except OSError:
            return False
        if not data:
            return False
        order: dict[str, Any] = json.loads(data)
        if order["do"] == "spawn":
            self._spawn(order, _descriptors(ancillary))
        elif order["do"] == "kill":
            self._kill(order["pid"])
        return bool(order["do"] != "end")

    def _spawn(self, order: dict[str, Any], descriptors: list[int]) -> None:
        parent = os.getpid()
        os.set_inheritable(descriptors[0], False)
        try:
            pid = os.fork()
        except OSError as error:
            os.close(descriptors[0])
            self._tell({"refused": order["slot"], "why": str(error)})
            return
        if pid == 0:
            code = 70
            try:
                self._become_worker(order, descriptors[0], parent)
                code = 0
            except SystemExit as error:
                code = _exit_code(error)
            except BaseException:  # noqa: BLE001 - a worker that cannot go on says why and dies
                sys.excepthook(*sys.exc_info())
            finally:
                _leave(code)
        os.close(descriptors[0])
        self._slots[pid] = order["slot"]
        self._tell({"spawned": order["slot"], "pid": pid})

    def _become_worker(self, order: dict[str, Any], descriptor: int, parent: int) -> None:
        os.setsid()
        adopt_orphans(False)
        die_with_parent()
        if os.getppid() != parent:
            return
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.close(self._wakeup)
        os.close(self._signals)
        self._control.close()
        _redirect(order["log"])
        os.environ.update(order["env"])
        if order["affinity"]:
            os.sched_setaffinity(0, order["affinity"])
        cells = memoryview(self._cells).cast("Q")[2 * order["slot"] : 2 * order["slot"] + 2]
        self._held = socket.socket(
            fileno=descriptor
        )  # open until the very end: its closing says that the worker is dead
        Worker(self._held, cells).run()

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup, 4096)
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            slot = self._slots.pop(ended.si_pid, None)
            if slot is not None:
                _kill_group(ended.si_pid)  # before the process id can be given to another
            _, status = os.waitpid(ended.si_pid, 0)
            if slot is not None:
                self._tell({"exited": slot, "pid": ended.si_pid, "code": os.waitstatus_to_exitcode(status)})

    def _kill(self, pid: int) -> None:
        """Kill a worker with everything that its tasks started, in groups of their own or not."""
        if pid in self._slots:
            for other in descendants(pid):
                _kill_one(other)
            _kill_group(pid)

    def _tell(self, record: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a manager that is gone is noticed by the main loop
            self._control.send(json.dumps(record).encode())

    def _end(self) -> NoReturn:
        """Let idle workers end, then kill what is left, whatever the tasks may have started included."""
        waiter = select.poll()
        waiter.register(self._wakeup, select.POLLIN)
        deadline = time.monotonic() + _GRACE
        while self._slots and (left := deadline - time.monotonic()) > 0:
            waiter.poll(1000 * left)
            self._reap()
        deadline = time.monotonic() + _REAP
        while (left := deadline - time.monotonic()) > 0:
            everything = descendants(os.getpid())
            for pid in everything:
                _kill_one(pid)
            self._reap()
            if not everything:
                break
            waiter.poll(min(1000 * left, 20))
        os._exit(0)


def _kill_one(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()


def _redirect(log: str) -> None:
    """Let standard input be empty, and standard output and error go to the worker's log."""
    import faulthandler

    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:  # a full or vanished disk must not stop the worker
        output = nothing
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # they are text files here
    faulthandler.enable(2)


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1


def _leave(code: int) -> NoReturn:
    """End a worker, with the exit functions and the buffers of the libraries that its tasks used."""
    import atexit

    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001, S110 - nothing may keep a worker from ending
        pass
    os._exit(code)


def main() -> NoReturn:
    """Run the zygote; the arguments are the descriptors of the control socket and of the shared cells."""
    os.setsid()
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    settings = json.loads(control.recv(PACKET))
    extend_path(settings["sys_path"])
    import cloudpickle  # noqa: F401 - loaded here once, for all workers

    gc.collect()
    gc.freeze()
    Zygote(control, int(sys.argv[2])).run()


if __name__ == "__main__":
    main()
