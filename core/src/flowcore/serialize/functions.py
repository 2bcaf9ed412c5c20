"""Functions pickled once: an entry per function object, with a number that stands for it on the wire."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from types import BuiltinFunctionType, CodeType, FunctionType
from typing import Any, Final

from flowcore.serialize.pickling import dumps, importable

_ABSENT: Final = object()


class FunctionEntry:
    """One pickled function. It lives as long as the function itself, or a task that needs it."""

    __slots__ = ("__weakref__", "_released", "_witness", "blob", "name", "number")

    def __init__(
        self, number: int, name: str, blob: bytes, witness: tuple[Any, ...], released: Callable[[int], None]
    ) -> None:
        self.number = number
        self.name = name
        self.blob = blob
        self._witness = witness
        self._released = released

    def __del__(self) -> None:
        self._released(self.number)

    def is_current(self, func: FunctionType) -> bool:
        """Whether what the function captures by name is still what it was when it was pickled."""
        return self._witness == () or same(self._witness, witness(func))


class FunctionCache:
    """Gives each function object one entry, and a new one when what it captures was rebound.

    A function of an importable module travels by reference. Any other is pickled with its code, defaults, closure
    and the globals it names, when it is first used and again when one of these names is bound to another object.
    A captured object that is changed in place is not noticed, and neither is a name that only a called function uses.

    Args:
        released: called with an entry's number when nothing needs the entry any more, from any thread, even in the
            middle of a garbage collection; it must not take a lock.
    """

    def __init__(self, released: Callable[[int], None]) -> None:
        self._released = released
        self._numbers = itertools.count(1)
        self._entries: weakref.WeakKeyDictionary[Any, FunctionEntry] = weakref.WeakKeyDictionary()

    def entry(self, func: Callable[..., Any]) -> FunctionEntry | None:
        """Return the function's entry; None where the callable has to be pickled with each call.

        That is so for bound methods, partials and other objects, whose state is data.
        Raises what the pickler raises.
        """
        found = self._entries.get(func) if type(func) in CACHED else None
        if found is not None and (type(func) is not FunctionType or found.is_current(func)):
            return found
        if type(func) not in CACHED and not isinstance(func, type):
            return None
        return self._new(func)

    def _new(self, func: Callable[..., Any]) -> FunctionEntry:
        by_value = type(func) is FunctionType and (not importable(func.__module__) or "<" in func.__qualname__)
        seen = witness(func) if by_value and isinstance(func, FunctionType) else ()
        entry = FunctionEntry(next(self._numbers), function_name(func), dumps(func), seen, self._released)
        self._entries[func] = entry
        return entry


CACHED: Final = frozenset({FunctionType, BuiltinFunctionType, type})


def function_name(func: Callable[..., Any]) -> str:
    """Return a name for error messages."""
    return str(getattr(func, "__name__", None) or type(func).__name__)


def witness(func: FunctionType) -> tuple[Any, ...]:
    """Collect the objects that decide what pickling the function by value would give."""
    namespace = func.__globals__
    return (
        func.__code__,
        func.__defaults__,
        func.__kwdefaults__,
        *(_content(cell) for cell in func.__closure__ or ()),
        *(namespace.get(name, _ABSENT) for name in _names(func.__code__)),
    )


def same(old: tuple[Any, ...], new: tuple[Any, ...]) -> bool:
    """Whether both hold the very same objects."""
    return len(old) == len(new) and all(map(_is, old, new))


def _is(one: Any, other: Any) -> bool:
    return one is other


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return _ABSENT


def _names(code: CodeType) -> tuple[str, ...]:
    """Return the global names of the code; those of nested functions are rare enough to be looked up each time."""
    nested = [const for const in code.co_consts if isinstance(const, CodeType)]
    return code.co_names if not nested else (*code.co_names, *itertools.chain.from_iterable(map(_names, nested)))
