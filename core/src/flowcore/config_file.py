"""Reads the options of a run from a TOML file: components by their names, their parameters as keys."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime, time
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final

import attrs

from flowcore import registry
from flowcore.discovery import Kind
from flowcore.errors import ConfigurationError, FlowcoreError
from flowcore.executors.base import Executor
from flowcore.launchers.base import Launcher
from flowcore.plugin_errors import PluginError
from flowcore.providers.base import Provider

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CLASS: Final = "class"
"""The key that names a component: no parameter can have that name."""

_KINDS: Final[Mapping[str, tuple[Kind, type]]] = {
    "provider": ("provider", Provider),
    "launcher": ("launcher", Launcher),
}
"""What a key of an executor or a provider stands for; any other table with a class is a companion of an executor."""

_EXECUTOR: Final[tuple[Kind, type]] = ("executor", Executor)
_CLOCK: Final = (datetime, date, time)


def read(path: str | PathLike[str], options: Collection[str]) -> dict[str, Any]:
    """Return what a file says, with its components made.

    Args:
        path: the file.
        options: the keys that may stand at its top.

    Raises:
        ConfigurationError: naming the file, the table and the key.
    """
    top = _Table(fspath(path), "", _parsed(path))
    top.refuse_unknown(options, "Config has no such option")
    return {key: _executors(top) if key == "executors" else top.value(key) for key in top.content}


def _parsed(path: str | PathLike[str]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{fspath(path)}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # of TOML's grammar, or no UTF-8
        raise ConfigurationError(f"{fspath(path)}: it is no TOML: {error}") from error
    return found


def _executors(top: _Table) -> list[Any]:
    found = top.content["executors"]
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise top.fault("executors", "each executor is a table of its own; write [[executors]] above its keys")
    tables = [_Table(top.path, f"[[executors]] number {n}", one) for n, one in enumerate(found, start=1)]
    return [table.component(*_EXECUTOR) for table in tables]


@attrs.frozen
class _Table:
    """One table of the file.

    Attributes:
        path: of the file.
        place: names the table in errors; '' is the top of the file.
        content: its keys and values.
    """

    path: str
    place: str
    content: Mapping[str, Any]

    def component(self, kind: Kind, base: type) -> Any:
        """Make the component that the table describes."""
        name = self.content.get(CLASS)
        if not isinstance(name, str):
            there_are = ", ".join(registry.current().names(kind)) or "none"
            raise self.fault(CLASS, f"which {kind} is it? write class = 'NAME'\n  there are: {there_are}")
        try:
            made = registry.current().load(kind, name, base)
        except PluginError as error:
            raise self.fault(CLASS, str(error)) from error
        parameters = {key: self.value(key) for key in self.content if key != CLASS}
        self._check(name, made, parameters)
        try:
            return made(**parameters)
        except (FlowcoreError, TypeError, ValueError) as error:
            told = error if isinstance(error, FlowcoreError) or not error.args else error.args[0]
            raise self.fault("", f"{name}: {told}") from error

    def value(self, key: str) -> Any:
        """Return the value of a key, in which tables with a class have become components."""
        return self._converted(key, self.content[key])

    def _converted(self, key: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._converted(key, one) for one in value]
        if isinstance(value, dict):
            if not self.place and CLASS in value:
                raise self.fault(key, f"a file cannot make it; give it by keyword: Config.from_toml(..., {key}=...)")
            table = _Table(self.path, f"{key} of {self.place or 'the file'}", value)
            if key in _KINDS or CLASS in value:
                return table.component(*_KINDS.get(key, (_EXECUTOR[0], object)))
            return {name: table.value(name) for name in value}
        if isinstance(value, _CLOCK):
            raise self.fault(key, f"write it in quotes: {key} = '{value.isoformat()}'")
        return value

    def _check(self, name: str, made: Callable[..., Any], given: Mapping[str, Any]) -> None:
        """Refuse parameters that the class does not have, and tell those that it lacks."""
        parameters = inspect.signature(made).parameters.values()
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            self.refuse_unknown([CLASS, *(one.name for one in parameters)], f"{name} has no such parameter")
        named = [one for one in parameters if one.kind not in {one.VAR_KEYWORD, one.VAR_POSITIONAL}]
        missing = [one.name for one in named if one.default is one.empty and one.name not in given]
        if missing:
            raise self.fault(missing[0], f"it is missing, and {name} has no default for it")

    def refuse_unknown(self, known: Collection[str], fault: str) -> None:
        """Refuse the first key that is not known, with the one that may have been meant."""
        for key in self.content:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                raise self.fault(key, f"{fault}; " + (f"did you mean {near[0]!r}?" if near else _listed(known)))

    def fault(self, key: str, message: str) -> ConfigurationError:
        """Return the error that says where in the file something is wrong."""
        return ConfigurationError(": ".join(word for word in (self.path, self.place, key, message) if word))


def _listed(names: Collection[str]) -> str:
    return f"there are: {', '.join(sorted(name for name in names if name != CLASS))}"
