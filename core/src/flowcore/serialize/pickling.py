"""Pickle protocol 5, with cloudpickle for what other processes cannot import."""

from __future__ import annotations

import functools
import io
import os
import pickle
import sys
from collections import ChainMap
from collections.abc import Callable, Iterable
from types import CodeType, FunctionType
from typing import Any, ClassVar, Final

_PLAIN: Final = frozenset({int, float, str, bytes, bool, type(None), complex})
_NOTHING: Final = pickle.dumps(((), {}), 5)

OUT_OF_BAND: Final = 65536
"""Bytes from which a buffer (a numpy array's, say) travels beside the pickle instead of inside it."""

Buffers = list[pickle.PickleBuffer]

_importable: dict[str, bool] = {"builtins": True, "__main__": False, "__mp_main__": False}


class _NeedsCloudpickle(Exception):
    """A function or a class has to travel by value."""


class _Pickler(pickle.Pickler):
    """The C pickler, stopped at the first function or class that has to travel by value."""

    def reducer_override(self, obj: Any) -> Any:
        if (type(obj) is FunctionType or isinstance(obj, type)) and not importable(obj.__module__):
            raise _NeedsCloudpickle
        return NotImplemented


def dumps(obj: Any, buffers: Buffers | None = None) -> bytes:
    """Pickle any object; what is defined in the script, in a function or on the fly travels by value.

    Args:
        obj: what to pickle.
        buffers: where large buffers are put that are to travel beside the pickle; None keeps them inside.
    """
    if type(obj) in _PLAIN:
        return pickle.dumps(obj, 5)
    return b"".join(_pieces(obj, buffers))


def pieces(obj: Any, buffers: Buffers | None = None) -> list[bytes]:
    """Pickle like `dumps`, in one or more pieces that follow each other; large bytes are one, which saves copying."""
    kind = type(obj)
    if kind in _PLAIN and not (kind is bytes and len(obj) >= OUT_OF_BAND):
        return [pickle.dumps(obj, 5)]
    return _pieces(obj, buffers)


def pieces_of_call(args: tuple[Any, ...], kwargs: dict[str, Any], buffers: Buffers | None = None) -> list[bytes]:
    """Pickle the arguments of a call as the pair `(args, kwargs)`, in pieces; plain values take a short way."""
    if not kwargs:
        if not args:
            return [_NOTHING]
        for arg in args:
            kind = type(arg)
            if kind not in _PLAIN or (kind is bytes and len(arg) >= OUT_OF_BAND):
                break
        else:
            return [pickle.dumps((args, kwargs), 5)]
    return _pieces((args, kwargs), buffers)


def loads(blob: bytes | bytearray | memoryview, buffers: Iterable[Any] | None = None) -> Any:
    """Unpickle what `dumps` made, given the buffers that travelled beside it."""
    return pickle.loads(blob, buffers=buffers)


def importable(name: str | None) -> bool:
    """Whether another process with the same import path would import the same module under this name."""
    if name is None:
        return False
    known = _importable.get(name)
    if known is None:
        known = _importable[name] = _is_importable(name)
        if not known and name in sys.modules:
            import cloudpickle

            cloudpickle.register_pickle_by_value(sys.modules[name])
    return known


def _is_importable(name: str) -> bool:
    """Look for the module the way an import would, and compare what is found with what is loaded."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    if module is None or spec is None:
        return False
    if spec.origin in ("built-in", "frozen") or name in sys.builtin_module_names:
        return True
    parent, _, _ = name.rpartition(".")
    if parent and not _is_importable(parent):
        return False
    found = _find(name, getattr(sys.modules.get(parent), "__path__", None) if parent else None)
    if found is None:
        return False
    loaded_from = getattr(module, "__file__", None)
    if loaded_from is None or found.origin is None:
        return bool(loaded_from is None and found.submodule_search_locations is not None)
    return bool(os.path.realpath(found.origin) == os.path.realpath(loaded_from))


def _find(name: str, path: Any) -> Any:
    for finder in sys.meta_path:
        try:
            found = finder.find_spec(name, path)
        except Exception:  # noqa: BLE001, S112 - a foreign import hook may do anything; it then finds nothing
            continue
        if found is not None:
            return found
    return None


class _Pieces:
    """A file that keeps what is written to it piece by piece."""

    __slots__ = ("pieces", "write")

    def __init__(self) -> None:
        self.pieces: list[Any] = []
        self.write = self.pieces.append


def _pieces(obj: Any, buffers: Buffers | None) -> list[bytes]:
    stream = _Pieces()
    large: Buffers = []
    try:
        _Pickler(stream, 5, buffer_callback=None if buffers is None else _sieve(large)).dump(obj)
    except (_NeedsCloudpickle, pickle.PicklingError, AttributeError, TypeError):
        return [_cloudpickled(obj, buffers)]
    if large and buffers is not None:
        buffers += large
    return [piece if type(piece) is bytes else bytes(piece) for piece in stream.pieces]  # others may still change


def _cloudpickled(obj: Any, buffers: Buffers | None) -> bytes:
    stream = io.BytesIO()
    large: Buffers = []
    _by_value()(stream, 5, buffer_callback=None if buffers is None else _sieve(large)).dump(obj)
    if large and buffers is not None:
        buffers += large
    return stream.getvalue()


@functools.cache
def _by_value() -> Callable[..., pickle.Pickler]:
    """Return cloudpickle's pickler, but with code that keeps the name of its file.

    Since 3.1.3 cloudpickle drops that name, so that the same code gives the same bytes whatever file it is in; but then
    no traceback from a worker can show a line of the user's script.
    """
    import cloudpickle

    reduce = cloudpickle.CloudPickler.dispatch_table[CodeType]

    def reduced(code: CodeType) -> tuple[Callable[..., CodeType], tuple[Any, ...]]:
        _, parts = reduce(code)
        return _code_of_file, (code.co_filename, *parts)

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # cloudpickle ships no types
        dispatch_table: ClassVar[Any] = ChainMap({CodeType: reduced}, cloudpickle.CloudPickler.dispatch_table)

    return Pickler


def _code_of_file(filename: str, *parts: Any) -> CodeType:
    return CodeType(*parts).replace(co_filename=filename)


def _sieve(large: Buffers) -> Callable[[pickle.PickleBuffer], bool]:
    """Return a callback that keeps large buffers, and says of all others that they stay in the pickle."""

    def stays(buffer: pickle.PickleBuffer) -> bool:
        if memoryview(buffer).nbytes < OUT_OF_BAND or not memoryview(buffer).contiguous:
            return True
        large.append(buffer)
        return False

    return stays
