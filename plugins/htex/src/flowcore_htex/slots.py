"""What a manager knows of each of its workers."""
# ruff: noqa: PTH123 - these processes have to start fast, and pathlib is slow to import

from __future__ import annotations

import socket
from typing import Any

from flowcore_htex.link import StreamLink
from flowcore_htex.wire import Task


class Slot:
    """One worker: its connection, what it was given and has not answered, what it is bound to.

    Attributes:
        index: the worker's rank on the node.
        pid: its process, 0 until it has been forked.
        tasks: what it was given and has not answered, in the order in which it will run.
        weights: what each of these counts for.
        load: their sum.
        known: numbers of the functions it has.
        doomed: tasks that nobody is to run after this worker, with the record that is to be reported for each; None
            stands for a cancellation.
        killed: whether the manager has asked for its death.
        proven: whether it has ever finished a task.
        blocked: the task of another worker that also takes this worker's share of the node.
        cores: the cores it keeps to, empty for all.
        gpu: the accelerator it has to itself.
        listed: whether it is among the workers that can be given tasks.
        called_off: how many messages it was sent that call tasks off.
        since: when it last said anything or, if that is later, began to be busy, by `time.monotonic`.
        recalled: tasks that it is not to begin any more, and of which it is not known yet whether it has, each with
            the number of the message that says so.
        recalling: whether some of them were recalled a moment ago.
    """

    __slots__ = (
        "blocked",
        "called_off",
        "cores",
        "doomed",
        "environment",
        "gpu",
        "index",
        "killed",
        "known",
        "link",
        "listed",
        "load",
        "log",
        "pid",
        "proven",
        "recalled",
        "recalling",
        "since",
        "tasks",
        "weights",
    )

    def __init__(self, index: int, log: str, environment: dict[str, str], cores: list[int], gpu: str | None) -> None:
        self.index = index
        self.cores = cores
        self.log = log
        self.environment = environment
        self.gpu = gpu
        self.proven = False
        self.blocked: int | None = None
        self.listed = False
        self.link: StreamLink | None = None
        self._forget()

    def _forget(self) -> None:
        self.pid = 0
        self.tasks: dict[int, Task] = {}
        self.weights: dict[int, int] = {}
        self.load = 0
        self.known: set[int] = set()
        self.doomed: dict[int, dict[str, Any] | None] = {}
        self.killed = False
        self.called_off = 0
        self.since = 0.0
        self.recalled: dict[int, int] = {}
        self.recalling = False

    def connect(self) -> socket.socket:
        """Start anew with a fresh connection, and return the worker's end of it."""
        self._forget()
        ours, theirs = socket.socketpair()
        self.link = StreamLink(ours)
        return theirs

    def close(self) -> None:
        """Close the connection: an idle worker ends."""
        if self.link is not None:
            self.link.close()
            self.link = None

    @property
    def idle(self) -> bool:
        """Whether the worker has nothing to do and is free to be given something."""
        return not self.tasks and self.blocked is None and self.link is not None and not self.killed

    def take(self, task: Task, weight: int) -> None:
        """Note that the worker was given a task."""
        self.tasks[task.tid] = task
        self.weights[task.tid] = weight
        self.load += weight

    def answered(self, tid: int) -> Task | None:
        """Note that the worker has answered a task."""
        task = self.tasks.pop(tid, None)
        if task is not None:
            self.load -= self.weights.pop(tid)
            self.recalled.pop(tid, None)
            self.doomed.pop(tid, None)
        return task


def tail(path: str, size: int = 2000) -> str:
    """Return the end of a text file, empty where there is none."""
    try:
        with open(path, "rb") as stream:
            end = stream.seek(0, 2)
            stream.seek(max(0, end - size))
            return stream.read().decode(errors="replace").strip()
    except OSError:
        return ""
