"""The per-node process: takes tasks from the interchange, has its workers run them, reports what came of them."""
# ruff: noqa: PTH103, PTH118, PTH123 - these processes have to start fast, and pathlib is slow to import

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import time
from typing import Any, Final, NoReturn

from flowcore_htex import wire
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
from flowcore_htex.wire import Task

_RECONNECT: Final = 10.0
"""Seconds in which a new interchange has to answer after the old one was lost."""


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
        self._draining = False
        self._going = True
        self._dismissed = False
        self._hold = settings["poll_period"] / 1000
        self._held_since: float | None = None
        _allow_descriptors(3 * self._count + 64)
        self._pool = WorkerPool(self._slots(), self._report, log, settings, self._loop, self._gpus)

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
            self._pool.dispatch()
            self._forward()
            self._keep_time()

    def _timeout(self) -> float:
        now = time.monotonic()
        due: list[float] = [self._upstream.sent + self._settings["heartbeat_period"]]
        due.append(self._upstream.heard + self._settings["heartbeat_threshold"])
        if self._drain_at is not None:
            due.append(self._drain_at)
        if self._held_since is not None:
            due.append(self._held_since + self._hold)
        limit = self._pool.enforcement.deadline()
        if limit is not None:
            due.append(limit)
        return max(0.0, min(due) - now)

    def _keep_time(self) -> None:
        now = time.monotonic()
        self._pool.enforcement.check(now)
        if now - self._upstream.sent >= self._settings["heartbeat_period"]:
            self._upstream.send(wire.HEARTBEAT)
        if now - self._upstream.heard >= self._settings["heartbeat_threshold"]:
            self._log.warning(f"the interchange has been silent for {self._settings['heartbeat_threshold']} s")
            self._reconnect()
        if self._drain_at is not None and now >= self._drain_at:
            self._drain_at = None
            self._log.info("draining")
            self._upstream.send(wire.DRAIN)
        if self._draining and not self._pool.busy():
            self._log.info("drained")
            self._going = False

    def _report(self, kind: int, head: bytes, buffers: list[Any]) -> None:
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
            "held": self._pool.held() + self._upstream.unacknowledged_ids(),
        }
        self._upstream.connect(self._on_interchange, registration, timeout)

    def _reconnect(self) -> None:
        self._upstream.disconnect()
        self._connect(_RECONNECT)

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

    def _handle(self, kind: int, head: bytes, buffers: list[Any]) -> None:
        if kind == wire.TASKS:
            self._take(wire.tasks_of(head))
        elif kind == wire.BIG_TASK:
            tid, function, spec = wire.unpack_big_task(head)
            self._take([Task(tid, function, b"", tuple(buffers), spec)])
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

    def close(self, why: str) -> None:
        """End the workers; where the run goes on, report their last outcomes and say what is lost with them.

        All else that is meant for this manager goes elsewhere, be it still on its way here.
        """
        begun = self._pool.close()
        if not self._dismissed:
            self._upstream.send(wire.END, wire.pack_json({"why": why, "begun": begun}))
        self._upstream.disconnect()


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
    why = "was told to end"
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
        journal.error(f"{type(error).__name__}: {error}")
        raise
    finally:
        if manager is not None:
            manager.close(why)
    journal.info("ended")
    sys.exit(code)


def _allow_descriptors(wanted: int) -> None:
    """Raise the limit on open files where the workers need more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (min(hard, wanted) if hard != resource.RLIM_INFINITY else wanted, hard)
        )


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
