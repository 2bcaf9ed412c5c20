"""Find the futures among a call's arguments, and put their results in place."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

import attrs

_LEAVES: Final = frozenset({int, float, str, bytes, bool, type(None), complex})
_MAPPINGS: Final = frozenset({dict, OrderedDict, defaultdict})
_SEQUENCES: Final = frozenset({list, tuple, set, frozenset})


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
    """The items of a container that futures are looked for in; nothing for all else."""
    kind = type(argument)
    if kind in _MAPPINGS:
        assert isinstance(argument, dict)
        return (*argument.keys(), *argument.values())
    if kind in _SEQUENCES or (isinstance(argument, tuple) and hasattr(kind, "_make")):
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
    return _Rebuilding(argument).root


class _Rebuilding:
    """Builds a container anew with results in the place of futures, whatever its depth and its cycles.

    Only what holds a future somewhere below is built; all else stays the very object. Lists and dicts are made empty
    and filled at the end, which is why they may contain themselves; the others are made when their items are.
    """

    def __init__(self, argument: object) -> None:
        self._olds: dict[int, Any] = {}
        self._news: dict[int, Any] = {}
        concerned = self._concerned(argument)
        for key in concerned:
            old = self._olds[key]
            if isinstance(old, (list, dict)):
                self._news[key] = old.copy()
                self._news[key].clear()
        shells = list(self._news)
        for key in concerned:
            self._make(key, concerned)
        for key in shells:
            self._fill(self._news[key], self._olds[key])
        self.root = self._new(argument)

    def _concerned(self, argument: object) -> set[int]:
        """Return the ids of the containers that hold a future, at any depth."""
        holders: dict[int, list[int]] = {}
        todo: list[object] = [argument]
        reached: list[int] = []
        self._olds[id(argument)] = argument
        while todo:
            holder = todo.pop()
            for item in _contents(holder):
                if type(item) in _LEAVES:
                    continue
                if isinstance(item, Future):
                    reached.append(id(holder))
                    continue
                holders.setdefault(id(item), []).append(id(holder))
                if id(item) not in self._olds:
                    self._olds[id(item)] = item
                    todo.append(item)
        concerned: set[int] = set()
        while reached:
            key = reached.pop()
            if key not in concerned:
                concerned.add(key)
                reached += holders.get(key, ())
        return concerned

    def _make(self, key: int, concerned: set[int]) -> None:
        """Build a tuple or a set, after those among its items."""
        stack = [key]
        while stack:
            key = stack[-1]
            if key in self._news:
                stack.pop()
                continue
            old = self._olds[key]
            first = [id(item) for item in old if id(item) in concerned and id(item) not in self._news]
            if first:
                stack += first
            else:
                make = getattr(type(old), "_make", type(old))
                self._news[key] = make([self._new(item) for item in old])

    def _fill(self, new: Any, old: Any) -> None:
        if isinstance(old, dict):
            new.update((self._new(name), self._new(value)) for name, value in old.items())
        else:
            new.extend(self._new(item) for item in old)

    def _new(self, item: object) -> object:
        return item.result() if isinstance(item, Future) else self._news.get(id(item), item)


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
