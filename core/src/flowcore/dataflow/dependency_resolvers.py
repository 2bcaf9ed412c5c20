"""Find the futures among a call's arguments, and put their results in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

import attrs

_LEAVES: Final = frozenset({int, float, str, bytes, bool, type(None), complex})


@attrs.frozen
class DependencyResolver:
    """How futures inside one argument are found and replaced.

    Attributes:
        traverse_to_gather: returns all futures in an argument.
        traverse_to_unwrap: returns the argument with each future replaced by its result; every future is done by then.
    """

    traverse_to_gather: Callable[[object], Sequence[Future[Any]]]
    traverse_to_unwrap: Callable[[object], object]


def _gather_shallow(argument: object) -> Sequence[Future[Any]]:
    return [argument] if isinstance(argument, Future) else []


def _unwrap_shallow(argument: object) -> object:
    return argument.result() if isinstance(argument, Future) else argument


def _contents(argument: object) -> Iterable[object]:
    """The items of a container that futures are looked for in; a subclass that is no named tuple is left alone."""
    kind = type(argument)
    if kind is dict:
        assert isinstance(argument, dict)
        return (*argument.keys(), *argument.values())
    if kind in (list, tuple, set, frozenset) or (isinstance(argument, tuple) and hasattr(kind, "_make")):
        assert isinstance(argument, Iterable)
        return argument
    return ()


def _gather_deep(argument: object) -> Sequence[Future[Any]]:
    if type(argument) in _LEAVES:
        return ()
    if isinstance(argument, Future):
        return (argument,)
    found: list[Future[Any]] = []
    seen: set[int] = set()
    stack = [_contents(argument)]
    while stack:
        for item in stack.pop():
            if type(item) in _LEAVES:
                continue
            if isinstance(item, Future):
                found.append(item)
            elif id(item) not in seen:
                seen.add(id(item))
                stack.append(_contents(item))
    return found


def _unwrap_deep(argument: object) -> object:
    if type(argument) in _LEAVES:
        return argument
    if isinstance(argument, Future):
        return argument.result()
    if not _gather_deep(argument):
        return argument  # the very object, so that what holds no future is not copied
    if isinstance(argument, dict):
        return {_unwrap_deep(key): _unwrap_deep(value) for key, value in argument.items()}
    assert isinstance(argument, (list, tuple, set, frozenset))
    items = [_unwrap_deep(item) for item in argument]
    make = getattr(type(argument), "_make", type(argument))
    return make(items)


SHALLOW_DEPENDENCY_RESOLVER: Final = DependencyResolver(_gather_shallow, _unwrap_shallow)
"""Futures count only where they are an argument themselves, or an item of `inputs`."""

DEEP_DEPENDENCY_RESOLVER: Final = DependencyResolver(_gather_deep, _unwrap_deep)
"""Futures count at any depth of lists, tuples, sets and dicts; the default."""


def gather(resolver: DependencyResolver, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Future[Any]]:
    """Return the futures that a call depends on, those in its `inputs` included."""
    find = resolver.traverse_to_gather
    found: list[Future[Any]] = []
    for argument in args:
        if type(argument) not in _LEAVES:
            found.extend(find(argument))
    for name, argument in kwargs.items():
        if name == "inputs":
            for item in argument:
                found.extend(find(item))
        elif type(argument) not in _LEAVES:
            found.extend(find(argument))
    return found


def unwrap(
    resolver: DependencyResolver, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the call's arguments with results in the place of futures."""
    put = resolver.traverse_to_unwrap
    unwrapped = {
        name: [put(item) for item in argument] if name == "inputs" else put(argument)
        for name, argument in kwargs.items()
    }
    return tuple(put(argument) for argument in args), unwrapped
