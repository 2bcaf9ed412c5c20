"""Calls out, results and exceptions back: what crosses the border between processes, as bytes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowcore.serialize.errors import (
        DeserializationError,
        DeserializerPluginError,
        RemoteExceptionError,
        SerializationError,
    )
    from flowcore.serialize.exceptions import pack_exception, unpack_exception
    from flowcore.serialize.facade import deserialize, pack_apply_message, serialize, unpack_apply_message
    from flowcore.serialize.functions import FunctionCache, FunctionEntry
    from flowcore.serialize.pickling import dumps, loads

__all__ = [
    "DeserializationError",
    "DeserializerPluginError",
    "FunctionCache",
    "FunctionEntry",
    "RemoteExceptionError",
    "SerializationError",
    "deserialize",
    "dumps",
    "loads",
    "pack_apply_message",
    "pack_exception",
    "serialize",
    "unpack_apply_message",
    "unpack_exception",
]

_HOMES = {
    "DeserializationError": "errors",
    "DeserializerPluginError": "errors",
    "FunctionCache": "functions",
    "FunctionEntry": "functions",
    "RemoteExceptionError": "errors",
    "SerializationError": "errors",
    "deserialize": "facade",
    "dumps": "pickling",
    "loads": "pickling",
    "pack_apply_message": "facade",
    "pack_exception": "exceptions",
    "serialize": "facade",
    "unpack_apply_message": "facade",
    "unpack_exception": "exceptions",
}


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
