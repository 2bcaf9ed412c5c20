"""The broker process: takes tasks from the user's process, gives them to managers, hands outcomes back."""

from __future__ import annotations

import base64
import json
import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from flowcore_htex import descriptors, private_folder, wire
from flowcore_htex.addresses import listen_on_ports
from flowcore_htex.balance import Balance
from flowcore_htex.doors import Doors, Listeners
from flowcore_htex.link import Link, LinkClosed, Message, StreamLink
from flowcore_htex.log import DEBUG, Log
from flowcore_htex.loop import Loop
from flowcore_htex.matching import RandomManagerSelector, learn
from flowcore_htex.parcels import weight
from flowcore_htex.peers import Manager, Peer
from flowcore_htex.pending import Pending
from flowcore_htex.registration import misfit
from flowcore_htex.search import extend_path
from flowcore_htex.version import RELEASE
from flowcore_htex.wire import Task

_RECOVERY: Final = 3.0
"""Seconds that a new interchange waits for the managers of the old one, before it gives their tasks to others."""

_FAREWELL: Final = 1.0
"""Seconds that managers get to end when the run ends."""

_CONGESTED: Final = 64 << 20
"""Bytes waiting for the user's process, sent or not, above which nobody gets tasks, nor are local managers read."""

_OWED: Final = 64

_CROWDED: Final = 0.9
"""Share of the open files allowed that may be in use before the log says that there are too many."""


class Interchange:
    """One loop over the user's process and the managers. Payloads pass through unread."""

    def __init__(self, settings: dict[str, Any], client: Link, listeners: Listeners, log: Log) -> None:
        self._settings = settings
        self._client = client
        self._log = log
        self._loop = Loop()
        self._doors = Doors(listeners, settings["cert_dir"], self._loop, log, self._from_peer, self._on_peer_lost)
        self._managers: dict[str, Manager] = {}
        self._balance = Balance(self._managers)
        self._functions: dict[int, bytes] = {}
        self._pending = Pending(_selector(settings["manager_selector"]), settings["prefetch_capacity"], log)
        self._recovering: dict[int, Task] | None = None
        self._expected: set[str] = set(settings["expected_managers"])
        self._recovered_by = 0.0
        self._going = True
        self._dirty: set[str] = set()
        self._cancelled: set[int] = set()
        self._check_every: float = min(settings["heartbeat_period"], settings["heartbeat_threshold"] / 3)
        self._next_check = time.monotonic() + self._check_every
        self._congested = self._over = False
        self._untaken = 0
        self._stuck_changes = 0
        self._descriptors = descriptors.allow()
        if self._expected:
            self._recovering = {}

    # -- the loop

    def run(self) -> None:
        """Serve until the user's process says so, or is gone."""
        loop = self._loop
        loop.watch_link(self._client, self._on_client)
        for descriptor in self._client.other_filenos():
            loop.watch(descriptor, self._on_client)
        if self._recovering is None:
            self._open()
        self._tell(wire.HELLO, {"pid": os.getpid(), "release": RELEASE})
        self._flush_client()
        while self._going:
            if self._client.pending():
                self._on_client(-1)
            elif self._doors.pending():
                self._doors.serve_pending()
            else:
                loop.turn(max(0.0, self._deadline() - time.monotonic()))
            if self._cancelled:
                self._cancel()
            self._flush_client()
            if time.monotonic() >= self._deadline():
                self._keep_time()
            if self._pending and self._recovering is None and not self._congested:
                self._pending.give_out(self._managers, self._functions)
            self._tell_of_stuck()
            self._settle()

    def _open(self) -> None:
        """Begin to listen: all that was outstanding is known now, and no manager is told to drop what it has of it."""
        if self._settings["client"] != "inherited":
            self._doors.open_hub()
        self._doors.open()
        if self._expected:
            self._recovered_by = time.monotonic() + _RECOVERY

    def _deadline(self) -> float:
        due: float = min(
            self._next_check, self._recovered_by or self._next_check, self._balance.due or self._next_check
        )
        return due

    def _keep_time(self) -> None:
        now = time.monotonic()
        if self._recovered_by and now >= self._recovered_by:
            self._catch_up()
            if self._recovered_by:
                self._end_recovery()
        if self._balance.due is not None and now >= self._balance.due:
            self._rebalance(now)
        if now < self._next_check:
            return
        self._next_check = now + self._check_every
        self._doors.sweep(now)
        settings = self._settings
        if any(now - manager.peer.heard >= settings["heartbeat_threshold"] for manager in self._managers.values()):
            self._catch_up()
        for manager in list(self._managers.values()):
            if now - manager.peer.heard >= settings["heartbeat_threshold"] and not self._congested:
                self._lose(manager, f"was silent for {settings['heartbeat_threshold']:g} s", silent=True)
            elif now - manager.told >= self._check_every / 2:
                manager.told = now
                manager.acknowledge()
                manager.peer.queue(wire.HEARTBEAT)
                manager.peer.flush()
        self._client.queue(wire.HEARTBEAT)
        self._flush_client()

    def _catch_up(self) -> None:
        """Serve what has arrived: a process that was stopped itself must not take those for late who were in time."""
        for _ in range(2 * len(self._expected) + 2):  # whoever knocks is let in by one turn, and heard by another
            if self._doors.pending():
                self._doors.serve_pending()
            elif not self._loop.turn(0):
                return

    def _rebalance(self, now: float) -> None:
        """See that nothing waits in one manager while another is idle; what waits here is given out anyway."""
        if self._pending or self._recovering is not None:
            self._balance.due = None
        else:
            self._balance.look(now)

    # -- the user's process

    def _on_client(self, _descriptor: int) -> None:
        try:
            for message in self._client.receive():
                self._from_client(*message)
        except LinkClosed:
            self._log.info("the user's process is gone")
            self._end()

    def _from_client(self, kind: int, head: bytes, buffers: Sequence[Any]) -> None:
        if kind == wire.TASKS:
            self._accept(wire.tasks_of(head))
        elif kind == wire.BIG_TASK:
            tid, function, spec = wire.unpack_big_task(head)
            self._accept([Task(tid, function, b"", buffers, spec)])
        elif kind == wire.FUNCTION:
            number, blob = wire.unpack_function(head)
            self._functions[number] = blob
        elif kind == wire.FORGET:
            self._forget_functions(wire.unpack_ids(head))
        elif kind == wire.CANCEL:
            self._cancelled.update(wire.unpack_ids(head))
        elif kind == wire.TAKEN:
            self._untaken = max(0, self._untaken - sum(wire.unpack_ids(head)))
        elif kind == wire.ASK:
            self._answer(wire.unpack_json(head))
        elif kind == wire.READY and self._recovering is not None:
            self._open()
        elif kind == wire.END:
            self._log.info("told to end")
            self._end()

    def _accept(self, tasks: list[Task]) -> None:
        if self._recovering is not None:
            self._recovering.update((task.tid, task) for task in tasks)
        elif tasks and tasks[0].spec:
            for task in tasks:
                self._pending.add_special(task)
        else:
            self._pending.add(tasks)
        if self._log.level <= DEBUG:
            self._log.debug(f"tasks {tasks[0].tid} to {tasks[-1].tid}")

    def _forget_functions(self, numbers: list[int]) -> None:
        if self._cancelled:
            self._cancel()  # first: whoever has a task needs its function
        for number in numbers:
            self._functions.pop(number, None)
            self._pending.estimates.pop(number, None)
        for manager in self._managers.values():
            stale = manager.known.intersection(numbers)
            if stale:
                manager.known -= stale
                manager.peer.queue(wire.FORGET, wire.pack_ids(sorted(stale)))
                self._dirty.add(manager.name)

    def _cancel(self) -> None:
        """Forget what was cancelled; once per turn, as each look at the queue is a long one."""
        tids, self._cancelled = self._cancelled, set()
        tids -= self._pending.drop(tids)
        if self._recovering is not None:
            for tid in tids:
                self._recovering.pop(tid, None)
        for manager in self._managers.values():
            given = tids.intersection(manager.tasks)
            if given:
                manager.cancelled |= given
                manager.peer.queue(wire.CANCEL, wire.pack_ids(sorted(given)))
                self._dirty.add(manager.name)

    def _answer(self, question: dict[str, Any]) -> None:
        if question["what"] == "hold":
            for manager in self._managers.values():
                manager.held = manager.held or manager.info["block_id"] in question["blocks"]
        reports = [manager.report() for manager in self._managers.values()]
        self._tell(wire.ANSWER, {"id": question["id"], "managers": reports})

    def _tell(self, kind: int, record: dict[str, Any]) -> None:
        self._client.queue(kind, wire.pack_json(record))

    def _tell_of_stuck(self) -> None:
        if self._stuck_changes != self._pending.stuck_changes:
            self._stuck_changes = self._pending.stuck_changes
            self._client.queue(wire.STUCK, wire.pack_ids(self._pending.stuck()))
            self._flush_client()

    def _flush_client(self) -> None:
        client = self._client
        try:
            client.flush()
        except LinkClosed:
            self._end()
            return
        if self._congested != (max(client.backlog, self._untaken) > _CONGESTED):
            self._congested = not self._congested
            self._doors.hold_back(self._congested)

    # -- managers

    def _on_peer_lost(self, peer: Peer, why: str) -> None:
        if peer.manager is not None:
            self._lose(peer.manager, why)

    def _from_peer(self, peer: Peer, message: Message) -> None:
        kind, head, buffers = message
        manager: Manager | None = peer.manager
        if kind == wire.PROBE:
            peer.queue(wire.PROBE)
            peer.flush()
        elif kind == wire.REGISTER:
            self._register(peer, wire.unpack_json(head))
        elif manager is None or self._managers.get(manager.name) is not manager:
            if peer.known and kind in (wire.RESULTS, wire.BIG_RESULT):  # given up too early: used if still wanted
                wire.check_outcome(kind, head, buffers)
                self._pass_on(kind, head, buffers)
        elif kind in (wire.RESULTS, wire.BIG_RESULT, wire.LOST, wire.DROPPED):
            self._outcome(manager, kind, head, buffers)
        elif kind == wire.WANTED:
            self._send_functions(manager, wire.unpack_ids(head))
        elif kind == wire.DRAIN:
            self._drain(manager, wire.unpack_json(head))
        elif kind == wire.END:
            self._dismiss(manager, wire.unpack_json(head))

    def _outcome(self, manager: Manager, kind: int, head: bytes, buffers: Sequence[Any]) -> None:
        tids = wire.check_outcome(kind, head, buffers)
        if not manager.proven and kind in (wire.RESULTS, wire.BIG_RESULT):
            manager.proven = True
            self._announce("proven", manager)
        if kind != wire.DROPPED:
            self._pass_on(kind, head, buffers)
        if kind != wire.RESULTS:
            for tid in tids:
                manager.answered(tid)
            self._owe(manager, _OWED)
            self._stir()
            return
        estimates = self._pending.estimates
        for tid, seconds in zip(tids, wire.unpack_result_times(head)[1]):  # noqa: B905 - one length, by construction
            task = manager.answered(tid)
            if task is not None and seconds >= 0:
                estimates[task.function] = learn(estimates.get(task.function), seconds)
        self._owe(manager, 1)
        self._stir()

    def _pass_on(self, kind: int, head: bytes, buffers: Sequence[Any]) -> None:
        """Send an outcome to the user's process, which says later how much of the big ones it has taken in."""
        self._client.queue(kind, head, buffers)
        self._untaken += weight(buffers)

    def _stir(self) -> None:
        """Note that a manager can take more; where tasks wait here, it is given those anyway."""
        if len(self._managers) > 1 and not self._pending:
            self._balance.stir(time.monotonic())

    def _owe(self, manager: Manager, urgency: int) -> None:
        manager.owed += 1
        if manager.owed >= _OWED or urgency >= _OWED or manager.draining:
            self._dirty.add(manager.name)

    def _settle(self) -> None:
        """Send what managers are to have soon; outcomes are acknowledged once the user's process has them."""
        dirty, self._dirty = self._dirty, set()
        for name in dirty:
            manager = self._managers.get(name)
            if manager is not None:
                if not self._client.backlog:
                    manager.acknowledge()
                elif manager.draining:
                    self._dirty.add(name)  # it waits for that before it ends
                manager.peer.flush()

    def _send_functions(self, manager: Manager, numbers: list[int]) -> None:
        for number in numbers:
            if number in self._functions:
                manager.peer.queue(wire.FUNCTION, wire.pack_function(number, self._functions[number]))
        manager.peer.flush()
        absent = [number for number in numbers if number not in self._functions]
        tids = [task.tid for task, *_ in manager.tasks.values() if task.function in absent]
        if tids:  # they would wait for ever
            self._tell_of_lost(manager, tids, "its function is not in the interchange")
            self._cancelled.update(tids)

    def _register(self, peer: Peer, info: dict[str, Any]) -> None:
        reason = misfit(info)
        if reason is not None:
            self._log.error(f"refused manager {info.get('manager')} on {info.get('hostname')}: {reason}")
            peer.queue(wire.REFUSED, wire.pack_json({"reason": reason}))
            peer.flush()
            record = {"event": "refused", "reason": reason, "manager": {"block_id": str(info.get("block_id"))}}
            self._tell(wire.MANAGERS, record)
            return
        peer.accept()
        self._count(peer)
        old = self._managers.get(info["manager"])
        manager = Manager(peer, info, self._settings)
        peer.manager = manager
        self._managers[manager.name] = manager
        self._log.info(
            f"manager {manager.name} of block {info['block_id']}, {manager.workers} workers: {info['hostname']}"
        )
        held = set(info["held"])
        if old is not None:
            manager.held = old.held
            self._pending.put_back(old.given_back([tid for tid in old.tasks if tid not in held]))
            for task, weight, need, _ in old.tasks.values():
                if task.tid not in old.cancelled:
                    manager.take(task, weight, need)
        if self._recovering is not None:
            for tid in held & self._recovering.keys():
                self._take_over(manager, self._recovering.pop(tid))
        unwanted = held - manager.tasks.keys()
        if unwanted:
            peer.queue(wire.CANCEL, wire.pack_ids(sorted(unwanted)))
            peer.flush()
        self._pending.reconsider()
        self._tell_of_stuck()  # none is, until all of them have been looked at again
        self._stir()
        self._announce("registered", manager)
        self._expected.discard(manager.name)
        if self._recovering is not None and not self._expected:
            self._end_recovery()

    def _count(self, peer: Peer) -> None:
        """Say once when connections come close to the limit; beyond it managers wait at the door, unheard."""
        if self._descriptors and peer.descriptor >= _CROWDED * self._descriptors:
            self._log.warning(
                f"nearly all of {self._descriptors} open files are in use; managers beyond that cannot connect: "
                "raise the hard limit (ulimit -Hn) where the script is started, or use fewer nodes"
            )
            self._descriptors = 0

    def _take_over(self, manager: Manager, task: Task) -> None:
        need = json.loads(task.spec) if task.spec else None
        if need is not None:
            need.pop("priority", None)
        manager.take(task, 1, need or None)

    def _end_recovery(self) -> None:
        self._recovered_by = 0.0
        tasks, self._recovering = self._recovering, None
        for name in self._expected:
            self._tell(wire.MANAGERS, {"event": "lost", "manager": {"manager": name}, "silent": True})
        self._expected.clear()
        self._log.info(f"recovered: {len(tasks or ())} tasks are to be given out again")
        for task in (tasks or {}).values():
            self._accept([task])

    def _lose(self, manager: Manager, why: str, *, silent: bool = False) -> None:
        """Report the tasks that a manager took with it."""
        if self._managers.get(manager.name) is not manager:
            return  # it was lost before, or has come back over another connection
        del self._managers[manager.name]
        log = self._log.warning if manager.tasks or not manager.draining else self._log.info
        log(f"manager {manager.name} of block {manager.info['block_id']} {why}; {len(manager.tasks)} tasks")
        if manager.tasks:
            self._tell_of_lost(manager, list(manager.tasks), why)
        if silent:
            manager.peer.queue(wire.REGISTER)
            manager.peer.flush()
        self._announce("lost", manager, silent=silent)

    def _tell_of_lost(self, manager: Manager, tids: list[int], why: str) -> None:
        record = {
            "tids": tids,
            "error": "ManagerLost",
            "manager": manager.name,
            "host": manager.info["hostname"],
            "block": manager.info["block_id"],
            "why": why,
        }
        self._tell(wire.LOST, record)

    def _drain(self, manager: Manager, record: dict[str, Any]) -> None:
        """Give a manager no more tasks; those that it has not begun, and hands back, go elsewhere."""
        tids, reason = record.get("back", []), record.get("why")
        if not isinstance(tids, list) or not isinstance(reason, (str, type(None))):
            raise wire.ProtocolError("a manager says why it drains, and lists the tasks that it hands back")
        self._pending.put_back(manager.given_back(tids))
        if reason is not None:
            manager.draining = True
            manager.info["drain_reason"] = reason
            manager.peer.queue(wire.DRAIN)
            self._dirty.add(manager.name)
            self._announce("draining", manager)

    def _dismiss(self, manager: Manager, farewell: dict[str, Any]) -> None:
        """Let a manager go that ends by itself: tasks that it had not begun go elsewhere."""
        begun = farewell.get("begun")
        if not isinstance(begun, list):
            raise wire.ProtocolError("a farewell lists the tasks that were begun")
        self._pending.put_back(manager.given_back([tid for tid in manager.tasks if tid not in begun]))
        self._lose(manager, str(farewell.get("why", "ended")))

    def _announce(self, event: str, manager: Manager, *, silent: bool = False) -> None:
        self._tell(wire.MANAGERS, {"event": event, "manager": manager.report(), "silent": silent})

    def _end(self) -> None:
        self._over = True
        self._going = False

    def close(self) -> None:
        """Tell the managers to end, and wait a moment until they have."""
        if self._over:  # at once: whoever kills all of the run may come next, or the user's process while it waits
            private_folder.remove(self._settings["socket"])
        for manager in self._managers.values():
            manager.peer.queue(wire.END)
            manager.peer.flush()
        for descriptor in (self._client.fileno(), *self._client.other_filenos()):
            self._loop.unwatch(descriptor)
        deadline = time.monotonic() + _FAREWELL
        self._going = True
        while self._managers and (left := deadline - time.monotonic()) > 0:
            if self._doors.pending():
                self._doors.serve_pending()
            else:
                self._loop.turn(left)
        self._client.close()
        self._doors.close()
        self._log.info("ended")


def _selector(text: str) -> Any:
    return pickle.loads(base64.b64decode(text)) if text else RandomManagerSelector()


def _connect(settings: dict[str, Any]) -> tuple[Link, Listeners]:
    """Return the link to the user's process and the listening sockets, inherited or made here."""
    if settings["client"] == "inherited":
        link = StreamLink(socket.socket(fileno=settings["client_descriptor"]))
        local = socket.socket(fileno=settings["local_descriptor"])
        return link, Listeners(local, [socket.socket(fileno=number) for number in settings["tcp_descriptors"]])
    from flowcore_htex.standalone import connect_over_tcp

    return connect_over_tcp(settings, listen_on_ports)


def main() -> NoReturn:
    """Run an interchange; its settings come as one line of json on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = json.loads(sys.stdin.buffer.readline())
    journal = Log(settings["log"], settings["log_level"])
    journal.info(f"interchange of {settings['label']}, flowcore {RELEASE}, pid {os.getpid()}")
    interchange = None
    extend_path(settings["sys_path"])  # the selector may be the user's
    try:
        link, listeners = _connect(settings)
        interchange = Interchange(settings, link, listeners, journal)
        interchange.run()
    except BaseException as error:  # the log is where the error is looked for
        journal.error(f"{type(error).__name__}: {error}")
        raise
    finally:
        if interchange is not None:
            interchange.close()
    os._exit(0)


if __name__ == "__main__":
    main()
