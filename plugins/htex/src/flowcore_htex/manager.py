"""The per-node process: takes tasks from the interchange, has its workers run them, reports what came of them."""
# ruff: noqa: PTH103, PTH118, PTH123 - these processes have to start fast, and pathlib is slow to import

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from flowcore_htex import descriptors, wire
from flowcore_htex.affinity import accelerator_environment, affinity_environment, worker_cores
from flowcore_htex.environment import worker_environment
from flowcore_htex.link import LinkClosed
from flowcore_htex.log import DEBUG, Log
from flowcore_htex.loop import Loop
from flowcore_htex.node import inspect_node, worker_count
from flowcore_htex.nursery import NodeBroken
from flowcore_htex.pool import WorkerPool
from flowcore_htex.registration import python_version
from flowcore_htex.slots import Slot
from flowcore_htex.upstream import Unreachable, Upstream
from flowcore_htex.version import RELEASE
from flowcore_htex.walltime import ALMOST_OVER, BLOCK_END, seconds_left, time_for_tasks
from flowcore_htex.wire import Task

_BIRTH: Final = 30.0
"""Seconds that a new interchange may take to start, once the user's process has noticed that the old one is lost."""

_HAND_IN: Final = 30.0
"""Seconds that the last outcomes may take to arrive before the manager ends all the same."""


class Refused(Exception):
    """The interchange does not want this manager."""


class Manager:
    """One loop over the interchange, the workers and the zygote."""

    def __init__(self, settings: dict[str, Any], folder: str, name: str, log: Log) -> None:
        self.name = name
        self._settings = settings
        self._folder = folder
        self._log = log
        self._node = inspect_node(os.environ, folder)
        self._accelerators: list[str] = settings["accelerators"]
        self._count = worker_count(
            self._node,
            max_workers=settings["max_workers"] or float("inf"),
            cores_per_worker=settings["cores_per_worker"],
            mem_per_worker=settings["mem_per_worker"],
            accelerators=self._accelerators,
        )
        self._gpus = [] if self._accelerators else list(self._node.gpus)
        self._loop = Loop()
        self._upstream = Upstream(settings, self._loop, log)
        self._started = time.monotonic()
        self._drain_at = self._started + settings["drain_period"] if settings["drain_period"] else None
        self._end_at = self._find_end()
        self._ending = False
        self._reason: str | None = None
        self._draining = False
        self._going = True
        self._dismissed = False
        self._closing = False
        self._hold = settings["poll_period"] / 1000
        self._held_since: float | None = None
        descriptors.allow(3 * self._count + 64)
        self._pool = WorkerPool(self._slots(), self._report, log, settings, self._loop, self._gpus)

    def _find_end(self) -> float | None:
        """Return when this node drains because its block is about to end, None where nobody knows of an end."""
        try:
            left = seconds_left(os.environ, time.time())
        except ValueError as error:
            self._log.warning(f"{BLOCK_END} cannot be understood, tasks are taken as if there were no end: {error}")
            return None
        if left is None:
            return None
        seconds = time_for_tasks(left)
        if seconds <= 0:
            raise NodeBroken(
                f"the walltime of this block leaves no time for tasks: {left:.1f} s ({BLOCK_END})\n"
                "  give the provider a longer walltime, or make its worker_init quicker"
            )
        self._log.info(f"the block ends in {left:.0f} s; tasks are taken for {seconds:.0f} s")
        return self._started + seconds

    def _slots(self) -> list[Slot]:
        logs = self._settings["worker_logs"]
        logs = os.path.join(logs, self.name) if logs else self._folder
        os.makedirs(logs, exist_ok=True)
        slots = []
        cores = sorted(os.sched_getaffinity(0))
        for rank in range(self._count):
            gpu = self._accelerators[rank] if self._accelerators else None
            mine = worker_cores(self._settings["cpu_affinity"], rank, self._count, cores)
            if not set(mine) <= set(cores):
                absent = ", ".join(str(core) for core in sorted(set(mine) - set(cores)))
                raise NodeBroken(f"cpu_affinity={self._settings['cpu_affinity']!r}: this node has no core {absent}")
            environment = {
                **worker_environment(rank, self._count, self.name, self._settings["block_id"]),
                **affinity_environment(mine),
                **accelerator_environment([gpu] if gpu is not None else []),
            }
            slots.append(Slot(rank, os.path.join(logs, f"worker-{rank}.log"), environment, mine, gpu))
        return slots

    # -- the loop

    def run(self) -> None:
        """Serve until the interchange says so, is gone for good, or the drained node has nothing left to do."""
        self._connect(self._settings["address_probe_timeout"])
        while self._going:
            if self._upstream.pending():
                self._on_interchange(-1)
            else:
                self._loop.turn(self._timeout())
            self._keep_time()
            if self._ending:
                self._hand_back(self._pool.give_up())
            else:
                self._pool.dispatch()
            self._forward()

    def _timeout(self) -> float:
        now = time.monotonic()
        due: list[float] = [self._upstream.sent + self._settings["heartbeat_period"]]
        due.append(self._upstream.heard + self._settings["heartbeat_threshold"])
        due += [at for at in (self._drain_at, self._end_at) if at is not None]
        if self._held_since is not None:
            due.append(self._held_since + self._hold)
        limit = self._pool.deadline()
        if limit is not None:
            due.append(limit)
        return max(0.0, min(due) - now)

    def _keep_time(self) -> None:
        now = time.monotonic()
        self._pool.keep_time(now)
        if now - self._upstream.sent >= self._settings["heartbeat_period"]:
            self._upstream.send(wire.HEARTBEAT)
        if now - self._upstream.heard >= self._settings["heartbeat_threshold"]:
            self._log.warning(f"the interchange has been silent for {self._settings['heartbeat_threshold']} s")
            self._reconnect()
        if self._drain_at is not None and now >= self._drain_at:
            self._drain_at = None
            self._drain("its drain_period is over")
        if self._end_at is not None and now >= self._end_at:
            self._end_at = None
            self._ending = True
            self._drain(ALMOST_OVER)
        if self._draining and not self._pool.busy():
            self._log.info("drained")
            self._going = False

    def _drain(self, reason: str) -> None:
        """Ask for no more tasks; the answer is the last to come after those on their way."""
        self._reason = reason
        self._log.info(f"draining: {reason}")
        self._upstream.send(wire.DRAIN, wire.pack_json({"why": reason}))

    def _hand_back(self, tids: list[int]) -> None:
        """Let others have tasks that have not begun: there would be no time for them here, or somebody else is idle."""
        if tids:
            self._log.info(f"handing back {len(tids)} tasks")
            self._upstream.send(wire.DRAIN, wire.pack_json({"back": tids}))

    def _report(self, kind: int, head: bytes, buffers: Sequence[Any]) -> None:
        if self._log.level <= DEBUG:
            self._log.debug(f"outcome of kind {kind}, {len(head)} bytes, {len(buffers)} buffers")
        self._upstream.report(kind, head, buffers)

    def _forward(self) -> None:
        """Send outcomes on; while every worker has a next task at hand they may wait for each other."""
        if not self._upstream.unsent:
            return
        now = time.monotonic()
        if self._held_since is None:
            self._held_since = now
        enough = self._upstream.unsent >= 2 * len(self._pool.slots)
        if enough or len(self._pool.queue) < len(self._pool.slots) or now - self._held_since >= self._hold:
            self._held_since = None
            self._upstream.flush()

    # -- the interchange

    def _connect(self, timeout: float) -> None:
        """Find the interchange and register; whoever says there that it drains gets no more tasks."""
        self._draining = self._reason is not None
        if self._ending:
            self._pool.give_up()  # what is not held goes elsewhere
        registration = {
            "manager": self.name,
            "protocol": wire.VERSION,
            "release": RELEASE,
            "python": python_version(),
            "byteorder": sys.byteorder,
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
            "block_id": self._settings["block_id"],
            "cores": self._node.cores,
            "memory": self._node.memory,
            "disk": self._node.disk,
            "gpus": len(self._accelerators or self._gpus),
            "worker_count": self._count,
            "start": time.time(),
            "draining": self._draining,
            "drain_reason": self._reason,
            "seconds_left": self._seconds_left(),
            "held": self._pool.held() + self._upstream.unacknowledged_ids(),
        }
        self._upstream.connect(self._on_interchange, registration, timeout)

    def _seconds_left(self) -> float | None:
        if self._ending:
            return 0.0
        return None if self._end_at is None else max(0.0, self._end_at - time.monotonic())

    def _reconnect(self) -> None:
        self._upstream.disconnect()
        if not self._closing:
            settings = self._settings
            self._connect(max(settings["address_probe_timeout"], settings["heartbeat_threshold"] + _BIRTH))

    def _on_interchange(self, _descriptor: int) -> None:
        if time.monotonic() - self._upstream.sent >= self._settings["heartbeat_threshold"]:
            self._log.warning("this manager was stopped for so long that it has been given up")
            self._reconnect()  # what it was sent meanwhile is somebody else's by now
            return
        try:
            messages = self._upstream.receive()
        except LinkClosed as error:
            self._log.warning(f"the interchange is gone: {error}")
            self._reconnect()
            return
        for message in messages:
            self._handle(*message)

    def _handle(self, kind: int, head: bytes, buffers: Sequence[Any]) -> None:
        if kind == wire.TASKS:
            self._take(wire.tasks_of(head))
        elif kind == wire.BIG_TASK:
            tid, function, spec = wire.unpack_big_task(head)
            self._take([Task(tid, function, b"", buffers, spec)])
        elif kind == wire.FUNCTION:
            self._pool.add_function(*wire.unpack_function(head))
        elif kind == wire.FORGET:
            self._pool.forget_functions(wire.unpack_ids(head))
        elif kind == wire.CANCEL:
            self._pool.cancel(wire.unpack_ids(head))
        elif kind == wire.ACK:
            self._upstream.acknowledged(sum(wire.unpack_ids(head)))
        elif kind == wire.DRAIN:
            self._draining = True
        elif kind == wire.RECALL:
            self._hand_back(self._pool.give_back(sum(wire.unpack_ids(head))))
        elif kind == wire.REGISTER:
            self._log.warning("the interchange has given this manager up")
            self._reconnect()
        elif kind == wire.END:
            self._log.info("told to end")
            self._dismissed = True
            self._going = False
        elif kind == wire.REFUSED:
            raise Refused(wire.unpack_json(head).get("reason", "no reason given"))

    def _take(self, tasks: list[Task]) -> None:
        missing = self._pool.add(tasks)
        if missing:
            self._upstream.send(wire.WANTED, wire.pack_ids(missing))

    def heed_signals(self) -> None:
        """Let SIGTERM be a clean end, after the current turn."""
        self._loop.wake_on_signals()
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: object) -> None:
        self._log.info("SIGTERM")
        self._going = False
        if not self._upstream.connected:
            raise SystemExit(0)  # out of the wait for an interchange

    @property
    def farewell(self) -> str:
        """What is said of a good end of this manager."""
        return "was told to end" if self._reason is None else f"ended: {self._reason}"

    def close(self, why: str) -> None:
        """End the workers; where the run goes on, report their last outcomes and say what is lost with them.

        All else that is meant for this manager goes elsewhere, be it still on its way here.
        """
        begun = self._pool.close()
        if not self._dismissed:
            self._hand_in(why)
            self._upstream.send(wire.END, wire.pack_json({"why": why, "begun": begun}))
        self._upstream.disconnect()

    def _hand_in(self, why: str) -> None:
        """Wait until all outcomes have arrived: what is still here when this process ends is lost."""
        self._closing = True
        if self._upstream.unacknowledged and self._reason is None:
            self._drain(why)  # who drains is told of each at once
        deadline = time.monotonic() + _HAND_IN
        while self._upstream.unacknowledged and not self._dismissed and (left := deadline - time.monotonic()) > 0:
            if not self._upstream.connected:
                return
            if self._upstream.unsent:
                self._upstream.flush()
            if self._upstream.pending():
                self._on_interchange(-1)
            else:
                self._loop.turn(left)


def main() -> NoReturn:
    """Run a manager: `--config FILE --block-id ID [--debug]`, and `--NAME VALUE` for settings that are to be others."""
    settings = read_settings(sys.argv[1:])
    name = os.urandom(6).hex()
    folder = os.path.join(settings["logdir"], f"block-{settings['block_id']}", name)
    os.makedirs(folder, exist_ok=True)
    journal = Log(os.path.join(folder, "manager.log"), settings["log_level"])
    journal.info(f"manager {name} of block {settings['block_id']}, flowcore {RELEASE}, pid {os.getpid()}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = 1
    manager = None
    why = None
    try:
        manager = Manager(settings, folder, name, journal)
        manager.heed_signals()
        manager.run()
        code = 0
    except (Unreachable, Refused, NodeBroken) as error:
        why = f"ended: {error}"
        journal.error(str(error))
        sys.stderr.write(f"flowcore manager: {error}\n")
    except SystemExit:
        raise
    except BaseException as error:  # the log is where the error is looked for
        why = f"ended: {type(error).__name__}: {error}"
        journal.error(f"{type(error).__name__}: {error}")
        raise
    finally:
        if manager is not None:
            manager.close(why or manager.farewell)
    journal.info("ended")
    sys.exit(code)


def read_settings(arguments: list[str]) -> dict[str, Any]:
    """Read the configuration file that the arguments name, with what they change in it."""
    words = [word for word in arguments if word != "--debug"]
    options = dict(zip(words[::2], words[1::2], strict=True))
    with open(options.pop("--config"), encoding="utf-8") as stream:
        settings: dict[str, Any] = json.load(stream)
    if "--debug" in arguments:
        settings["log_level"] = DEBUG
    for name, text in options.items():
        key = name.removeprefix("--").replace("-", "_")
        if key != "block_id" and key not in settings:
            raise SystemExit(f"flowcore manager: there is no setting {key!r}")
        settings[key] = text if key == "block_id" or isinstance(settings[key], str) else json.loads(text)
    return settings


if __name__ == "__main__":
    main()
