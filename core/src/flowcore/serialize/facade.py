"""The plain interface: an object to bytes and back, a call to bytes and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowcore.serialize.errors import DeserializationError, SerializationError
from flowcore.serialize.pickling import dumps, loads


def serialize(obj: Any) -> bytes:
    """Turn an object into bytes.

    >>> deserialize(serialize({"a": [1, 2]}))
    {'a': [1, 2]}

    Raises:
        SerializationError: the object, or a part of it, does not pickle.
    """
    try:
        return dumps(obj)
    except Exception as error:
        raise SerializationError(type(obj).__qualname__, f"{type(error).__name__}: {error}", "an object") from error


def deserialize(payload: bytes | bytearray | memoryview) -> Any:
    """Turn bytes from `serialize` into the object.

    Never call it on bytes from a peer that has not authenticated: unpickling runs code.

    Raises:
        DeserializationError: the bytes are damaged, or name code that is not here.
    """
    try:
        return loads(payload)
    except Exception as error:
        raise DeserializationError("the object", f"{type(error).__name__}: {error}") from error


def pack_apply_message(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """Turn a whole call into bytes.

    Raises:
        SerializationError: naming the function.
    """
    try:
        return dumps((func, tuple(args), dict(kwargs)))
    except Exception as error:
        name = getattr(func, "__name__", repr(func))
        raise SerializationError(name, f"{type(error).__name__}: {error}") from error


def unpack_apply_message(
    payload: bytes | bytearray | memoryview,
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Turn bytes from `pack_apply_message` into the function, its arguments and keyword arguments."""
    func, args, kwargs = deserialize(payload)
    return func, args, kwargs
