"""The workers of one node: who gets which task, what came of it, who died and what that cost."""

from __future__ import annotations

import json
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from flowcore_htex import wire
from flowcore_htex.affinity import accelerator_environment
from flowcore_htex.enforcement import Enforcement
from flowcore_htex.link import LinkClosed, StreamLink
from flowcore_htex.log import Log
from flowcore_htex.loop import Loop
from flowcore_htex.matching import UNITS, learn, units
from flowcore_htex.node import slots_needed
from flowcore_htex.nursery import NodeBroken, Nursery
from flowcore_htex.recall import LATE, Recall
from flowcore_htex.slots import Slot, tail
from flowcore_htex.wire import Task

_STILLBORN: Final = 5
"""So many workers in a row that die before they finish a task, and the manager gives up."""

Report = Callable[[int, bytes, "Sequence[Any]"], None]


class WorkerPool:
    """Keeps workers busy and alive. One thread; whatever becomes readable is handed to `on_readable`.

    Args:
        slots: the workers to be.
        report: sends an outcome (kind, head, buffers) to the interchange.
        log: the manager's log.
        settings: the manager's settings.
        loop: where the connections to the workers and to the zygote are watched.
        gpus: accelerators that are not bound to a worker.
    """

    def __init__(
        self,
        slots: list[Slot],
        report: Report,
        log: Log,
        settings: dict[str, Any],
        loop: Loop,
        gpus: Iterable[str],
    ) -> None:
        self.slots = slots
        self.functions: dict[int, bytes] = {}
        self.estimates: dict[int, float] = {}
        self.queue: deque[Task] = deque()
        self.wanted: dict[int, list[Task]] = {}
        self.last_active = time.time()
        self.enforcement = Enforcement(self._doom)
        self._report = report
        self._log = log
        self._settings = settings
        self._loop = loop
        self._free_gpus = sorted(gpus)
        self._extra: dict[int, tuple[list[Slot], list[str]]] = {}
        self._ready: deque[Slot] = deque()
        self._stillborn = 0
        self._by_descriptor: dict[int, Slot] = {}
        self._nursery = Nursery(slots, loop, log, settings["sys_path"], self._born, self._died)
        self._cells = self._nursery.cells
        self._recall = Recall(slots, self._cells, self._send_recall, self._put_back)
        for slot in slots:
            self._spawn(slot)

    def _spawn(self, slot: Slot) -> None:
        self._cells[2 * slot.index] = self._cells[2 * slot.index + 1] = 0
        link = self._nursery.order(slot)
        self._by_descriptor[link.fileno()] = slot
        self._loop.watch_link(link, self._on_worker)
        self._list(slot)

    def _born(self, slot: Slot) -> None:
        """Note that the worker is there: the limits of a task that it was given before begin to count."""
        for task in slot.tasks.values():
            if task.spec:
                self.enforcement.begin(task.tid, slot, json.loads(task.spec), born_of=self._nursery.zygote)

    def _kill(self, slot: Slot) -> None:
        slot.killed = True
        self._nursery.kill(slot)

    # -- tasks in

    def add_function(self, number: int, blob: bytes) -> None:
        """Keep a function for the workers; tasks that waited for it go on."""
        self.functions[number] = blob
        self.queue.extend(self.wanted.pop(number, ()))

    def forget_functions(self, numbers: list[int]) -> None:
        """Drop functions that nobody needs any more, here and in the workers, and the tasks that wait to call them."""
        for number in numbers:
            self.functions.pop(number, None)
            self.estimates.pop(number, None)
        waiting, self.queue = self.queue, deque()
        self._queue_again(waiting)
        for slot in self.slots:
            stale = slot.known.intersection(numbers)
            if stale and slot.link is not None:
                slot.known -= stale
                self._send(slot, wire.FORGET, wire.pack_ids(sorted(stale)))

    def add(self, tasks: list[Task]) -> list[int]:
        """Queue tasks; returns the numbers of functions that are missing here and have to be asked for."""
        missing = []
        for task in tasks:
            if task.function and task.function not in self.functions:
                if task.function not in self.wanted:
                    missing.append(task.function)
                self.wanted.setdefault(task.function, []).append(task)
            else:
                self.queue.append(task)
        return missing

    def _queue_again(self, tasks: Iterable[Task]) -> None:
        """Put tasks before all others, but for those whose function was forgotten: nobody wants these any more."""
        wanted: list[Task] = []
        unwanted: list[int] = []
        for task in tasks:
            if task.function and task.function not in self.functions:
                unwanted.append(task.tid)
            else:
                wanted.append(task)
        self.queue.extendleft(reversed(wanted))
        if unwanted:
            self._report(wire.DROPPED, wire.pack_ids(unwanted), [])

    def held(self) -> list[int]:
        """Return the ids of all tasks that were received and not answered."""
        return self.unstarted() + [tid for slot in self.slots for tid in slot.tasks]

    def unstarted(self) -> list[int]:
        """Return the ids of tasks that were received and never given to a worker."""
        return [task.tid for tasks in self.wanted.values() for task in tasks] + [task.tid for task in self.queue]

    def give_up(self) -> list[int]:
        """Forget the tasks that were never given to a worker; returns their ids."""
        tids = self.unstarted()
        self.queue.clear()
        self.wanted.clear()
        return tids

    def give_back(self, count: int) -> list[int]:
        """Forget up to so many tasks that wait for a worker, the last ones; returns their ids."""
        return [self.queue.pop().tid for _ in range(min(count, len(self.queue)))][::-1]

    def busy(self) -> bool:
        """Whether there is any task that was not answered."""
        return bool(self.queue or self.wanted or any(slot.tasks for slot in self.slots))

    def deadline(self) -> float | None:
        """Return when `keep_time` has to be called next, None for never."""
        due = [at for at in (self.enforcement.deadline(), self._recall.due) if at is not None]
        return min(due, default=None)

    def keep_time(self, now: float) -> None:
        """Kill workers whose tasks are over a limit, and take back tasks that wait behind a long one."""
        self.enforcement.check(now)
        if self._recall.due is not None and now >= self._recall.due:
            self._recall.check(now)

    def dispatch(self) -> None:
        """Give queued tasks to workers."""
        queue, ready = self.queue, self._ready
        now = time.monotonic() if queue else 0.0
        share = -(-len(queue) // len(self.slots))
        while queue:
            if queue[0].spec:
                if not self._place_special():
                    return
                continue
            if not ready:
                return
            slot = ready.popleft()
            slot.listed = False
            if slot.tasks and now - slot.since >= LATE:
                continue  # it is in the midst of a long task, and is listed again when that has ended
            if slot.blocked is None and slot.link is not None and not slot.killed:
                self._feed(slot, share, now)

    def _feed(self, slot: Slot, share: int, now: float) -> None:
        """Give a worker up to `share` tasks, as long as they are short enough to be one worker's next work."""
        queue = self.queue
        given: list[Task] = []
        if not slot.tasks:
            slot.since = now
        while queue and len(given) < share and not queue[0].spec:
            weight = units(self.estimates.get(queue[0].function))
            if slot.load and slot.load + weight > UNITS:
                break
            task = queue.popleft()
            slot.take(task, weight)
            given.append(task)
            if task.buffers:
                break
        self._hand_over(slot, given)
        if len(slot.tasks) > 1:
            self._recall.watch(now)
        if given and slot.load <= UNITS // 2:
            self._list(slot)

    def _hand_over(self, slot: Slot, given: list[Task], spec: bytes = b"") -> None:
        link = slot.link
        if not given or link is None:
            return
        for task in given:
            if task.function and task.function not in slot.known:
                slot.known.add(task.function)
                link.queue(wire.FUNCTION, wire.pack_function(task.function, self.functions[task.function]))
        small = [task for task in given if not task.buffers]
        if small:
            link.queue(wire.TASKS, wire.pack_tasks(small, spec))
        for task in given:
            if task.buffers:
                link.queue(wire.BIG_TASK, wire.pack_big_task(task.tid, task.function, spec), task.buffers)
        self._flush(slot)

    def _place_special(self) -> bool:
        """Give the first task, which asks for something, what it asks for; False where it has to wait."""
        task = self.queue[0]
        need = json.loads(task.spec)
        bound = bool(self._settings["accelerators"])
        count = slots_needed(need, self._settings["cores_per_worker"], self._settings["mem_per_worker"], bound)
        gpus = 0 if bound else need.get("gpus", 0)
        idle = [slot for slot in self.slots if slot.idle]
        if len(idle) < count or len(self._free_gpus) < gpus:
            return False
        self.queue.popleft()
        slot, extra = idle[0], idle[1:count]
        names = [self._free_gpus.pop(0) for _ in range(gpus)]
        self._extra[task.tid] = (extra, names)
        for other in extra:
            other.blocked = task.tid
        visible = names if not bound else [str(one.gpu) for one in idle[: max(count, 1)]] if need.get("gpus") else []
        slot.take(task, UNITS)
        if slot.pid:
            self.enforcement.begin(task.tid, slot, need)
        self._hand_over(slot, [task], wire.pack_json({"env": accelerator_environment(visible)}) if visible else b"")
        return True

    def _list(self, slot: Slot) -> None:
        if not slot.listed:
            slot.listed = True
            self._ready.append(slot)

    # -- outcomes

    def _on_worker(self, descriptor: int) -> None:
        slot = self._by_descriptor[descriptor]
        link = slot.link
        assert link is not None
        slot.since = time.monotonic()
        if link.backlog:
            self._flush(slot)
        try:
            messages = link.receive()
        except (LinkClosed, wire.ProtocolError):
            self._disconnect(slot)
            self._nursery.kill(slot)  # which then tells how it ended
            return
        for message in messages:
            self._outcome(slot, *message)

    def _outcome(self, slot: Slot, kind: int, head: bytes, buffers: Sequence[Any]) -> None:
        if kind == wire.RESULTS:
            tids, seconds = wire.unpack_result_times(head)
            for tid, time_taken in zip(tids, seconds):  # noqa: B905 - one length, by construction
                self._finished(slot, tid, time_taken)
        elif kind == wire.BIG_RESULT:
            tid, time_taken, _ = wire.unpack_big_result(head)
            self._finished(slot, tid, time_taken)
        else:
            if kind == wire.RECALL:
                self._recall.returned(slot, wire.unpack_refusals(head))
            return
        slot.proven = True
        self._stillborn = 0
        self._report(kind, head, buffers)
        if slot.load <= UNITS // 2:
            self._list(slot)

    def _finished(self, slot: Slot, tid: int, seconds: float) -> None:
        task = slot.answered(tid)
        if task is None:
            return
        if seconds >= 0 and task.function:
            self.estimates[task.function] = learn(self.estimates.get(task.function), seconds)
        if task.spec:
            self._release(tid)
        if not slot.tasks:
            self.last_active = time.time()

    def _release(self, tid: int) -> None:
        self.enforcement.end(tid)
        extra, names = self._extra.pop(tid, ((), ()))
        self._free_gpus += names
        for slot in extra:
            slot.blocked = None
            self._list(slot)

    # -- deaths

    def cancel(self, tids: Iterable[int]) -> None:
        """Forget tasks that wait, kill the workers of those that run."""
        wanted = set(tids)
        waiting = [task.tid for task in self.queue if task.tid in wanted]
        if waiting:
            self.queue = deque(task for task in self.queue if task.tid not in wanted)
        for number, tasks in list(self.wanted.items()):
            waiting += [task.tid for task in tasks if task.tid in wanted]
            tasks[:] = [task for task in tasks if task.tid not in wanted]
            if not tasks:
                del self.wanted[number]
        if waiting:
            self._report(wire.DROPPED, wire.pack_ids(waiting), [])
        for slot in self.slots:
            for tid in wanted.intersection(slot.tasks):
                self._cancel_given(slot, tid)

    def _cancel_given(self, slot: Slot, tid: int) -> None:
        if self._cells[2 * slot.index] == tid and not slot.killed:
            self._recall.begin(slot)
        if self._cells[2 * slot.index] == tid or len(slot.tasks) == 1:
            self._doom(slot, tid, None)
            return
        slot.doomed[tid] = None
        self._call_off(slot, wire.CANCEL, [tid])

    def _call_off(self, slot: Slot, kind: int, tids: list[int]) -> int:
        """Tell a worker not to begin tasks, in a message that it looks for before it begins one; return its number."""
        self._send(slot, kind, wire.pack_ids(tids))
        slot.called_off += 1
        self._cells[2 * slot.index + 1] = slot.called_off
        return slot.called_off

    def _send_recall(self, slot: Slot, tids: list[int]) -> int:
        self._log.info(f"worker {slot.index}: {len(tids)} tasks behind the one that it runs go elsewhere")
        return self._call_off(slot, wire.RECALL, tids)

    def _put_back(self, slot: Slot, tids: list[int]) -> None:
        dropped = [tid for tid in tids if tid in slot.doomed]
        if dropped:
            self._report(wire.DROPPED, wire.pack_ids(dropped), [])
        tasks = [slot.answered(tid) for tid in tids]
        self._queue_again(task for task in tasks if task is not None and task.tid not in dropped)
        if not slot.tasks:
            self._list(slot)  # no outcome will do that

    def _doom(self, slot: Slot, tid: int, record: dict[str, Any] | None) -> None:
        """Kill a worker for the sake of one task; `record` is what is reported of that task."""
        if tid in slot.tasks:
            slot.doomed[tid] = record
            self._kill(slot)

    def _died(self, slot: Slot, code: int, alone: bool) -> None:
        """Take the last outcomes, report the task that was running, put the others back, start another worker.

        Args:
            slot: the worker.
            code: how it ended.
            alone: whether it ended by itself, and not with the zygote.
        """
        if slot.link is not None:
            self._drain(slot, slot.link)
            self._disconnect(slot)
        started = self._cells[2 * slot.index]
        victims = [tid for tid in slot.tasks if tid in slot.doomed]
        if started in slot.tasks and started not in slot.doomed and not slot.killed:
            victims.append(started)
        self._log.warning(f"worker {slot.index} (pid {slot.pid}) ended with {code}, task {victims or 'none'}")
        if alone and not slot.proven and not victims and not slot.killed:
            self._stillborn += 1
        for tid in victims:
            self._report_victim(slot, tid, code)
        for tid, task in slot.tasks.items():
            if task.spec:
                self._release(tid)
        self._queue_again(task for tid, task in slot.tasks.items() if tid not in victims)
        if self._stillborn >= _STILLBORN:
            raise NodeBroken(f"workers end before they run a task (exit code {code}):\n{tail(slot.log)}")
        self._spawn(slot)

    def _report_victim(self, slot: Slot, tid: int, code: int) -> None:
        lost = {
            "tids": [tid],
            "error": "WorkerLost",
            "worker": slot.index,
            "host": socket.gethostname(),
            "code": code,
            "tail": tail(slot.log),
        }
        record = slot.doomed.get(tid, lost)
        if record is None:
            self._report(wire.DROPPED, wire.pack_ids([tid]), [])
        else:
            self._report(wire.LOST, wire.pack_json(record), [])

    def _drain(self, slot: Slot, link: StreamLink) -> None:
        while True:
            try:
                messages = link.receive()
            except (LinkClosed, wire.ProtocolError):
                return
            if not messages:
                return
            for message in messages:
                self._outcome(slot, *message)

    # -- connections

    def _send(self, slot: Slot, kind: int, head: bytes) -> None:
        if slot.link is not None:
            slot.link.queue(kind, head)
            self._flush(slot)

    def _flush(self, slot: Slot) -> None:
        link = slot.link
        if link is None:
            return
        try:
            link.flush()
        except LinkClosed:
            pass  # the zygote reports how it ended

    def _disconnect(self, slot: Slot) -> None:
        if slot.link is not None:
            descriptor = slot.link.fileno()
            self._by_descriptor.pop(descriptor, None)
            self._loop.unwatch(descriptor)
            slot.close()

    def close(self) -> list[int]:
        """End the workers; returns the ids of tasks that were started, once the last outcomes are reported."""
        for slot in self.slots:
            if slot.link is not None:
                slot.link.finish()
        self._nursery.close()
        begun = []
        for slot in self.slots:
            if slot.link is not None:
                self._drain(slot, slot.link)
                slot.close()
            started = self._cells[2 * slot.index]
            begun += [tid for tid in slot.tasks if tid == started]
        return begun
