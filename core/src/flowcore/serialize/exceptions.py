"""Exceptions as bytes: type, arguments, notes, traceback, causes and contexts, or what can be told of them."""

from __future__ import annotations

import pickle
import types
from typing import Any, Final, NamedTuple

from flowcore.serialize.pickling import dumps, loads

_MOST_FRAMES: Final = 60
_MOST_EXCEPTIONS: Final = 30

Frame = tuple[str, int, str]


class _Node(NamedTuple):
    """One exception of a chain; `cause` and `context` are places in the list of nodes, -1 for none."""

    pickled: bytes | None
    parts: bytes | None
    type_name: str
    message: str
    reason: str
    frames: list[Frame]
    text: str
    cause: int
    context: int
    suppressed: bool


def pack_exception(error: BaseException, skip: int = 0) -> bytes:
    """Turn an exception with its chain into bytes. Never fails: what does not pickle is described.

    Args:
        error: the exception.
        skip: how many of the outermost traceback frames belong to the caller and are left out.
    """
    chain: list[BaseException] = [error]
    places = {id(error): 0}
    nodes: list[_Node] = []
    for one in chain:  # grows while it is read
        linked = [_place(other, chain, places) for other in (one.__cause__, one.__context__)]
        nodes.append(_node(one, linked[0], linked[1], skip if one is error else 0))
    return pickle.dumps([tuple(node) for node in nodes], 5)


def unpack_exception(blob: bytes | bytearray | memoryview) -> BaseException:
    """Rebuild what `pack_exception` packed, with the remote frames in the tracebacks.

    An exception that cannot be rebuilt becomes a `RemoteExceptionError` that tells of it.
    """
    nodes = [_Node(*fields) for fields in pickle.loads(blob)]
    errors = [_rebuilt(node) for node in nodes]
    for node, error in zip(nodes, errors, strict=True):
        if node.cause >= 0:
            error.__cause__ = errors[node.cause]
        if node.context >= 0:
            error.__context__ = errors[node.context]
        error.__suppress_context__ = node.suppressed
        error.__traceback__ = _traceback(node.frames)
    return errors[0]


def _place(error: BaseException | None, chain: list[BaseException], places: dict[int, int]) -> int:
    if error is None:
        return -1
    if id(error) not in places:
        if len(chain) >= _MOST_EXCEPTIONS:
            return -1
        places[id(error)] = len(chain)
        chain.append(error)
    return places[id(error)]


def _node(error: BaseException, cause: int, context: int, skip: int) -> _Node:
    kind = type(error)
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide the error
        message = "<its __str__ raises>"
    pickled, parts, reason = _pickled(error)
    return _Node(
        pickled,
        parts,
        f"{kind.__module__}.{kind.__qualname__}" if kind.__module__ != "builtins" else kind.__qualname__,
        message,
        reason,
        _frames(error, skip),
        _text(error) if pickled is None else "",
        cause,
        context,
        error.__suppress_context__,
    )


def _pickled(error: BaseException) -> tuple[bytes | None, bytes | None, str]:
    """Return the pickled exception, else its type, arguments and attributes, else the reason why not."""
    if not isinstance(error, Exception):
        return None, None, "it is no Exception, and would end the process that receives it"
    try:
        blob = dumps(error)
        if type(loads(blob)) is type(error):
            return blob, None, ""
        reason = "unpickling it gives another type"
    except Exception as failure:  # noqa: BLE001 - user classes may raise anything while they pickle
        reason = f"{type(failure).__name__}: {failure}"
    try:
        return None, dumps((type(error), error.args, vars(error))), reason
    except Exception:  # noqa: BLE001 - as above
        return None, None, reason


def _frames(error: BaseException, skip: int) -> list[Frame]:
    frames: list[Frame] = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append((code.co_filename, trace.tb_lineno, code.co_name))
        trace = trace.tb_next
    frames = frames[skip:]
    return frames if len(frames) <= _MOST_FRAMES else frames[: _MOST_FRAMES // 2] + frames[-_MOST_FRAMES // 2 :]


def _text(error: BaseException) -> str:
    import traceback

    try:
        return "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception:  # noqa: BLE001 - formatting calls user code
        return ""


def _rebuilt(node: _Node) -> BaseException:
    reason = node.reason
    if node.pickled is not None:
        try:
            error = loads(node.pickled)
            if isinstance(error, BaseException):
                return error
        except Exception as failure:  # noqa: BLE001 - unpickling runs user code
            reason = f"{type(failure).__name__}: {failure}"
    if node.parts is not None:
        try:
            return _assembled(*loads(node.parts))
        except Exception:  # noqa: BLE001, S110 - unpickling runs user code; the description below is what is left
            pass
    from flowcore.serialize.errors import RemoteExceptionError

    return RemoteExceptionError(node.type_name, node.message, node.text or _listed(node), reason)


def _assembled(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    """Make the exception without its `__init__`, which does not take what `args` holds."""
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    return error


def _listed(node: _Node) -> str:
    lines = [f'  File "{name}", line {line}, in {function}\n' for name, line, function in node.frames]
    return "".join(["Traceback (most recent call last):\n", *lines, f"{node.type_name}: {node.message}\n"])


def _traceback(frames: list[Frame]) -> types.TracebackType | None:
    """Build traceback objects that print as the remote frames."""
    trace: types.TracebackType | None = None
    for filename, line, function in reversed(frames):
        trace = types.TracebackType(trace, _frame(filename, function), -1, line)
    return trace


def _frame(filename: str, function: str) -> types.FrameType:
    """Make a frame of the given name by running a line of code that raises there."""
    code = compile("raise LookupError", filename, "exec").replace(co_name=function)
    try:
        exec(code, {"__name__": "remote", "__file__": filename})  # noqa: S102 - the constant line above
    except LookupError as error:
        trace = error.__traceback__
        assert trace is not None
        assert trace.tb_next is not None
        return trace.tb_next.tb_frame
    raise AssertionError
