"""Frames: what the processes say to each other, and how it is laid out in bytes. Nothing here is ever unpickled."""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Sequence
from functools import partial
from itertools import repeat
from typing import Any, Final, NamedTuple

VERSION: Final = 1
"""Generation of everything in this module; a peer of another generation is refused."""

MAGIC: Final = b"fc"
BIG: Final = 65536
"""Bytes from which a payload travels alone, in buffers of its own that no hop copies together."""

MAX_HEAD: Final = 1 << 30
MAX_BUFFERS: Final = 1 << 20
MAX_BUFFER: Final = 1 << 40

# message kinds; the direction is from the user's process (up) to the workers (down)
HELLO: Final = 1  # interchange, manager -> up: json, who is there
REGISTER: Final = 2  # manager -> interchange: json, what the manager has; back: empty, it is to register anew
REFUSED: Final = 3  # down: json, why a manager may not serve
HEARTBEAT: Final = 4  # both ways: empty
FUNCTION: Final = 5  # down: number, then the pickled function
FORGET: Final = 6  # down: numbers of functions that nobody needs any more
WANTED: Final = 7  # up: numbers of functions that the peer does not have
TASKS: Final = 8  # down: a batch of tasks
BIG_TASK: Final = 9  # down: one task with its buffers
CANCEL: Final = 10  # down: ids of tasks whose outcome nobody wants
RESULTS: Final = 11  # up: a batch of outcomes
BIG_RESULT: Final = 12  # up: one outcome with its buffers
LOST: Final = 13  # up: json, tasks that a process took with it
DROPPED: Final = 14  # up: ids of tasks that were cancelled and are gone
ACK: Final = (
    15  # down: how many more outcome messages (RESULTS, BIG_RESULT, LOST, DROPPED) have reached the user's process
)
DRAIN: Final = 16  # up: json, why no more tasks should come, or which are handed back; down: there will be none
END: Final = 17  # down: end now; up: json, the manager is about to end, and which tasks it had begun
ASK: Final = 18  # down: json, a question of the user's process
ANSWER: Final = 19  # up: json, its answer
MANAGERS: Final = 20  # up: json, which managers there are, when that changes
PROBE: Final = 21  # manager -> interchange: is this address the right one?
READY: Final = 22  # down: all that was outstanding has been sent again
RECALL: Final = 23  # to a manager: how many tasks to hand back; to a worker: which not to begin; back: refusals
PARCEL: Final = 24  # between neighbors on one host: another message, whose buffers are in the file that comes with it
TAKEN: Final = 25  # down: how many bytes of big outcomes the user's process has taken in since it last said so
STUCK: Final = 26  # up: ids of tasks that wait and that no manager there is will ever have room, or time, for

VALUE: Final = 0  # status of an outcome: a pickled value
ERROR: Final = 1  # a packed exception
NONE: Final = 2  # the value None, no payload

_PREFIX: Final = struct.Struct("<2sBBIQ")
PREFIX_SIZE: Final = _PREFIX.size
_TASKS: Final = struct.Struct("<II")
_BIG_TASK: Final = struct.Struct("<QI")
_BIG_RESULT: Final = struct.Struct("<QfB")
_NUMBER: Final = struct.Struct("<Q")
_PARCEL: Final = struct.Struct("<BI")


class ProtocolError(Exception):
    """The bytes are no message of this protocol."""


MALFORMED: Final = (ProtocolError, ValueError, TypeError, KeyError, AttributeError)
"""What handling a malformed message may raise, its fields being of the wrong kind included."""


class Task(NamedTuple):
    """One task as it travels: opaque payload, buffers only where it is big, what it asks for as json text."""

    tid: int
    function: int
    payload: bytes
    buffers: Sequence[Any] = ()
    spec: bytes = b""


_make_task = partial(tuple.__new__, Task)
"""`Task._make` without its check of the length: half the cost."""


def prefix(kind: int, head_size: int, buffers: int) -> bytes:
    """Return the first bytes of a message."""
    return _PREFIX.pack(MAGIC, VERSION, kind, buffers, head_size)


def parse_prefix(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int, int]:
    """Return kind, size of the head and number of buffers, or raise `ProtocolError`."""
    magic, version, kind, buffers, head_size = _PREFIX.unpack_from(data, offset)
    if magic != MAGIC:
        raise ProtocolError("not a flowcore message")
    if version != VERSION:
        raise ProtocolError(f"protocol version {version}, this is {VERSION}")
    if head_size > MAX_HEAD or buffers > MAX_BUFFERS:
        raise ProtocolError(f"a message of {head_size} bytes and {buffers} buffers is out of bounds")
    return kind, head_size, buffers


def pack_tasks(tasks: list[Task] | list[tuple[Any, ...]], spec: bytes = b"") -> bytes:
    """Lay out a batch of small tasks that ask for the same."""
    return b"".join(
        (
            _TASKS.pack(len(tasks), len(spec)),
            spec,
            array("Q", [task[0] for task in tasks]).tobytes(),
            array("I", [task[1] for task in tasks]).tobytes(),
            array("I", [len(task[2]) for task in tasks]).tobytes(),
            *[task[2] for task in tasks],
        )
    )


def unpack_tasks(head: bytes) -> tuple[list[int], list[int], list[bytes], bytes]:
    """Return ids, function numbers, payloads and what the tasks ask for."""
    count, spec_size = _unpack(_TASKS, head)
    start = _TASKS.size + spec_size
    spec = head[_TASKS.size : start]
    tids, start = _column("Q", 8, head, start, count)
    functions, start = _column("I", 4, head, start, count)
    sizes, start = _column("I", 4, head, start, count)
    return tids, functions, _payloads(head, start, sizes), spec


def tasks_of(head: bytes) -> list[Task]:
    """Return the tasks of a batch."""
    tids, functions, payloads, spec = unpack_tasks(head)
    return list(map(_make_task, zip(tids, functions, payloads, repeat(()), repeat(spec))))


def pack_results(tids: list[int], seconds: list[float], statuses: bytearray, payloads: list[bytes]) -> bytes:
    """Lay out a batch of outcomes; `seconds` is how long each task ran."""
    return b"".join(
        (
            _NUMBER.pack(len(tids)),
            array("Q", tids).tobytes(),
            array("f", seconds).tobytes(),
            array("I", [len(payload) for payload in payloads]).tobytes(),
            statuses,
            *payloads,
        )
    )


def unpack_result_times(head: bytes) -> tuple[list[int], list[float]]:
    """Return ids and seconds of a batch of outcomes, without touching the payloads."""
    (count,) = _unpack(_NUMBER, head)
    tids, start = _column("Q", 8, head, 8, count)
    seconds, start = _column("f", 4, head, start, count)
    if len(head) < start + 5 * count:
        raise ProtocolError("a batch of results is cut short")
    return tids, seconds


def check_outcome(kind: int, head: bytes, buffers: Sequence[Any]) -> list[int]:
    """Return the ids of the tasks of which an outcome tells, or raise `ProtocolError` if it is not well made."""
    if kind == RESULTS:
        (count,) = _unpack(_NUMBER, head)
        tids, start = _column("Q", 8, head, _NUMBER.size, count)
        sizes, start = _column("I", 4, head, start + 4 * count, count)
        statuses = head[start : start + count]
        if start + count + sum(sizes) != len(head) or (statuses and max(statuses) > NONE):
            raise ProtocolError("a batch of results does not add up")
        return tids
    if kind == BIG_RESULT:
        tid, _seconds, status = unpack_big_result(head)
        if status > NONE or not buffers:
            raise ProtocolError("a big result has no payload, or an unknown status")
        return [tid]
    return outcome_ids(kind, head)


def unpack_results(head: bytes) -> tuple[list[int], bytes, list[bytes]]:
    """Return ids, statuses and payloads of a batch of outcomes."""
    (count,) = _unpack(_NUMBER, head)
    tids, start = _column("Q", 8, head, 8, count)
    sizes, start = _column("I", 4, head, start + 4 * count, count)
    statuses = head[start : start + count]
    return tids, statuses, _payloads(head, start + count, sizes)


def pack_big_task(tid: int, function: int, spec: bytes = b"") -> bytes:
    """Lay out the head of one big task; payload and buffers follow as buffers."""
    return _BIG_TASK.pack(tid, function) + spec


def unpack_big_task(head: bytes) -> tuple[int, int, bytes]:
    """Return id, function number and what the task asks for."""
    tid, function = _unpack(_BIG_TASK, head)
    return tid, function, head[_BIG_TASK.size :]


def pack_big_result(tid: int, seconds: float, status: int) -> bytes:
    """Lay out the head of one big outcome; payload and buffers follow as buffers."""
    return _BIG_RESULT.pack(tid, seconds, status)


def unpack_big_result(head: bytes) -> tuple[int, float, int]:
    """Return id, seconds and status of one big outcome."""
    tid, seconds, status = _unpack(_BIG_RESULT, head)
    return tid, seconds, status


def parted(pickled: list[bytes], buffers: list[Any]) -> tuple[bytes, list[Any]]:
    """Return payload and buffers of a task or an outcome: what is big has no payload, but its pickle as first buffer.

    The pickle stays in pieces: a list stands for one buffer, wherever buffers are sent.
    """
    if buffers or len(pickled) > 1 or len(pickled[0]) >= BIG:
        return b"", [pickled, *buffers]
    return pickled[0], buffers


def views(buffer: Any) -> list[memoryview]:
    """Return the bytes of a buffer, piece by piece."""
    return [memoryview(piece).cast("B") for piece in (buffer if type(buffer) is list else (buffer,))]


def size(buffer: Any) -> int:
    """Count the bytes of a buffer."""
    return sum(map(len, views(buffer)))


def pack_parcel(kind: int, head: bytes, sizes: Sequence[int]) -> bytes:
    """Lay out a message whose buffers travel in a parcel."""
    return b"".join((_PARCEL.pack(kind, len(sizes)), array("Q", sizes).tobytes(), head))


def unpack_parcel(head: bytes) -> tuple[int, bytes, list[int]]:
    """Return kind, head and the sizes of the buffers."""
    kind, count = _unpack(_PARCEL, head)
    sizes, start = _column("Q", 8, head, _PARCEL.size, count)
    return kind, head[start:], sizes


def outcome_ids(kind: int, head: bytes) -> list[int]:
    """Return the ids of the tasks of which a message of any outcome kind tells."""
    if kind == RESULTS:
        return unpack_result_times(head)[0]
    if kind == BIG_RESULT:
        return [unpack_big_result(head)[0]]
    if kind == LOST:
        return [int(tid) for tid in unpack_json(head)["tids"]]
    return unpack_ids(head)


def pack_function(number: int, blob: bytes) -> bytes:
    """Lay out a pickled function with the number that stands for it."""
    return _NUMBER.pack(number) + blob


def unpack_function(head: bytes) -> tuple[int, bytes]:
    """Return a function's number and its pickle."""
    (number,) = _unpack(_NUMBER, head)
    return number, head[_NUMBER.size :]


def pack_ids(ids: list[int]) -> bytes:
    """Lay out ids of tasks or numbers of functions."""
    return array("Q", ids).tobytes()


def pack_refusals(refusals: list[tuple[int, int]]) -> bytes:
    """Lay out ids of tasks that were not begun, each with the number of the message that called it off."""
    return pack_ids([number for refusal in refusals for number in refusal])


def unpack_refusals(head: bytes) -> list[tuple[int, int]]:
    """Return what `pack_refusals` laid out."""
    numbers = unpack_ids(head)
    if len(numbers) % 2:
        raise ProtocolError("a list of pairs is cut short")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def unpack_ids(head: bytes) -> list[int]:
    """Return what `pack_ids` laid out."""
    if len(head) % 8:
        raise ProtocolError("a list of ids is cut short")
    ids = array("Q")
    ids.frombytes(head)
    return ids.tolist()


def pack_json(record: Any) -> bytes:
    """Lay out a record of rare traffic."""
    return json.dumps(record, separators=(",", ":")).encode()


def unpack_json(head: bytes) -> dict[str, Any]:
    """Return a record of rare traffic; it is a dictionary, or the message is malformed."""
    try:
        record = json.loads(head)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not json: {error}") from error
    if not isinstance(record, dict):
        raise ProtocolError("a record is a json object")
    return record


def _unpack(layout: struct.Struct, head: bytes) -> tuple[Any, ...]:
    try:
        return layout.unpack_from(head)
    except struct.error as error:
        raise ProtocolError(str(error)) from error


def _column(code: str, size: int, head: bytes, start: int, count: int) -> tuple[list[Any], int]:
    end = start + size * count
    if end > len(head):
        raise ProtocolError("a batch is cut short")
    column = array(code)
    column.frombytes(head[start:end])
    return column.tolist(), end


def _payloads(head: bytes, start: int, sizes: list[int]) -> list[bytes]:
    payloads = []
    for size in sizes:
        end = start + size
        payloads.append(head[start:end])
        start = end
    if start != len(head):
        raise ProtocolError("the payloads of a batch do not add up")
    return payloads
