"""Functions pickled once: an entry per function object, with a number that stands for it on the wire."""

from __future__ import annotations

import itertools
import operator
import weakref
from collections.abc import Callable
from types import BuiltinFunctionType, CodeType, FunctionType
from typing import Any, Final

from flowcore.serialize.pickling import dumps, importable

_ABSENT: Final = object()


class FunctionEntry:
    """One pickled function. It lives as long as the function itself, or a task that needs it."""

    __slots__ = ("__weakref__", "_names", "_released", "_witness", "blob", "name", "number")

    def __init__(self, number: int, func: Callable[..., Any], blob: bytes, released: Callable[[int], None]) -> None:
        self.number = number
        self.name = function_name(func)
        self.blob = blob
        self._released = released
        self._names: tuple[str, ...] = ()
        self._witness: tuple[Any, ...] | None = None
        if type(func) is FunctionType and (not importable(func.__module__) or "<" in func.__qualname__):
            self._names = global_names(func.__code__)
            self._witness = witness(func, self._names)

    def __del__(self) -> None:
        self._released(self.number)

    def is_current(self, func: Any) -> bool:
        """Whether what the function captures by name is still what it was when it was pickled."""
        known = self._witness
        if known is None:
            return True
        if known[0] is not func.__code__:
            return False
        found = witness(func, self._names)
        return len(found) == len(known) and all(map(operator.is_, known, found))


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
        if type(func) not in _CACHED and not isinstance(func, type):
            return None
        found = self._entries.get(func)
        if found is None or not found.is_current(func):
            found = self._entries[func] = FunctionEntry(next(self._numbers), func, dumps(func), self._released)
        return found


_CACHED: Final = frozenset({FunctionType, BuiltinFunctionType, type})


def function_name(func: Callable[..., Any]) -> str:
    """Return a name for error messages."""
    return str(getattr(func, "__name__", None) or type(func).__name__)


def witness(func: FunctionType, names: tuple[str, ...]) -> tuple[Any, ...]:
    """Collect the objects that decide what pickling the function by value would give.

    Args:
        func: the function.
        names: the global names that its code uses.
    """
    get = func.__globals__.get
    cells = func.__closure__
    return (
        func.__code__,
        func.__defaults__,
        func.__kwdefaults__,
        *([_content(cell) for cell in cells] if cells else ()),
        *([get(name, _ABSENT) for name in names] if names else ()),
    )


def global_names(code: CodeType) -> tuple[str, ...]:
    """Return the names that the code, and the code of functions within it, looks up outside."""
    nested = [global_names(const) for const in code.co_consts if isinstance(const, CodeType)]
    return (*code.co_names, *itertools.chain.from_iterable(nested))


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return _ABSENT
