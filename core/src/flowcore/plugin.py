"""What the author of a plugin imports: the hook marker, the record that announces a component, the API number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs
import pluggy

API_VERSION: Final = 1
"""The generation of the hook specifications; a manifest states the one it was written for as `FLOWCORE_API`."""

PROJECT: Final = "flowcore"
"""The name of the entry-point group and of pluggy's project."""

hookimpl = pluggy.HookimplMarker(PROJECT)


def _valid_target(_record: object, _attribute: object, value: str) -> None:
    module, _, attribute = value.partition(":")
    if not (attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        msg = f"a component's target is written 'package.module:Class', not {value!r}"
        raise ValueError(msg)


def _valid_name(_record: object, _attribute: object, value: str) -> None:
    if not value.isidentifier():
        msg = f"a component's name is the name users import, not {value!r}"
        raise ValueError(msg)


def _names(value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        msg = f"a component's companions are a tuple of names; write ({value!r},)"
        raise TypeError(msg)
    return tuple(value)


def _valid_names(_record: object, _attribute: object, value: tuple[str, ...]) -> None:
    for name in value:
        if not isinstance(name, str) or not name.isidentifier():
            msg = f"a companion is a name in the component's module, not {name!r}"
            raise ValueError(msg)


@attrs.frozen
class Component:
    """One class that a plugin offers, named without importing it.

    Attributes:
        name: what users import: `from flowcore.executors import NAME`.
        target: where the class is, as 'package.module:Class'.
        summary: one sentence for `flowcore plugins`.
        companions: other names of the same module that users need with the class, such as an options record.

    >>> Component("AcmeExecutor", "flowcore_acme.executor:AcmeExecutor", "Runs tasks on Acme.").module
    'flowcore_acme.executor'
    """

    name: str = attrs.field(validator=[attrs.validators.instance_of(str), _valid_name])
    target: str = attrs.field(validator=[attrs.validators.instance_of(str), _valid_target])
    summary: str = attrs.field(default="", validator=attrs.validators.instance_of(str))
    companions: tuple[str, ...] = attrs.field(default=(), converter=_names, validator=_valid_names)

    @property
    def module(self) -> str:
        """The module that defines the class."""
        return self.target.partition(":")[0]

    @property
    def attribute(self) -> str:
        """The class's name in that module."""
        return self.target.partition(":")[2]
