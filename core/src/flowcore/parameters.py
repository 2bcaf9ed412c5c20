"""What parameters are held against: attrs validators whose errors name the parameter and say what would do."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from os import PathLike
from typing import Any, TypeAlias

import attrs

from flowcore.errors import ConfigurationError

Validator: TypeAlias = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def refusal(component: object, attribute: attrs.Attribute[Any], value: object, why: str) -> ConfigurationError:
    """Return the error for a value that a parameter cannot have.

    >>> import attrs
    >>> @attrs.define
    ... class Acme:
    ...     slots: int = attrs.field(default=1, validator=whole(1))
    >>> Acme(slots=0)
    Traceback (most recent call last):
    flowcore.errors.ConfigurationError: Acme(slots=0): a whole number, 1 or more, is needed
    """
    return ConfigurationError(f"{type(component).__name__}({attribute.alias}={value!r}): {why}")


def whole(least: int, unit: str = "") -> Validator:
    """Accept whole numbers from `least` on; the unit is for the error."""
    wanted = f"a whole number of {unit}" if unit else "a whole number"
    return _accept(
        lambda value: isinstance(value, numbers.Integral) and _real(value) and int(value) >= least,
        f"{wanted}, {least} or more, is needed",
    )


def number(least: float = 0, most: float = math.inf) -> Validator:
    """Accept numbers from `least` to `most`."""
    wanted = f"{least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
    return _accept(lambda value: _real(value) and least <= value <= most, f"a number, {wanted}, is needed")


def positive(unit: str = "") -> Validator:
    """Accept finite numbers above 0; the unit is for the error."""
    wanted = f"a number of {unit} above 0" if unit else "a number above 0"
    return _accept(lambda value: _real(value) and 0 < value < math.inf, f"{wanted} is needed")


def choice(*choices: object) -> Validator:
    """Accept these values alone."""
    return _accept(lambda value: value in choices, f"one of {', '.join(map(repr, choices))} is needed")


def flag() -> Validator:
    """Accept True and False."""
    return _accept(lambda value: isinstance(value, bool), "True or False is needed")


def text() -> Validator:
    """Accept strings."""
    return _accept(lambda value: isinstance(value, str), "a text is needed")


def label() -> Validator:
    """Accept what can name an executor, and the folder of its files."""
    return _accept(
        lambda value: isinstance(value, str) and value not in {"", ".", ".."} and "/" not in value,
        "a text that can name a folder is needed",
    )


def path() -> Validator:
    """Accept strings and path objects."""
    return _accept(lambda value: isinstance(value, (str, PathLike)), "a path is needed")


def function() -> Validator:
    """Accept what can be called."""
    return _accept(callable, "a function is needed")


def optional(check: Validator) -> Validator:
    """Accept None as well."""

    def validate(component: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is not None:
            check(component, attribute, value)

    return validate


def _accept(good: Callable[[Any], bool], wanted: str) -> Validator:
    def validate(component: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not good(value):
            raise refusal(component, attribute, value, wanted)

    return validate


def _real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
