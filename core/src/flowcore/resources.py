"""One schema for what a task asks for: units parsed, values checked, unknown keys refused."""

from __future__ import annotations

import difflib
import math
import numbers
import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from fractions import Fraction
from typing import Any, Final

from flowcore.errors import InvalidResourceSpecification

BYTES: Final[Mapping[str, int]] = {
    "": 10**6,
    "b": 1,
    **{
        prefix.lower() + unit: base**power
        for power, prefix in enumerate("KMGTP", start=1)
        for base, unit in ((1000, ""), (1000, "b"), (1024, "i"), (1024, "ib"))
    },
}
"""Bytes in each unit of memory, in lower case; a bare number is in MB."""

_MEMORY: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)", re.IGNORECASE | re.ASCII)
_CLOCK: Final = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+(?:\.\d+)?)", re.ASCII)
_SECONDS: Final = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)

_LONGEST: Final = 1e9
"""Seconds. The timers of Linux take nine times that, and raise in their thread at more."""


def parse(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the specification in canonical units: memory in MB, durations in seconds. Idempotent.

    >>> parse({"memory": "16GB", "walltime": "02:00:00", "cores": 2})
    {'memory': 16000, 'walltime': 7200.0, 'cores': 2}

    Raises:
        InvalidResourceSpecification: naming every key that is unknown or has a value that is not accepted.
    """
    if type(spec) is dict and not spec:
        return {}
    parsed: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for key, value in _items(spec):
        parser = _PARSERS.get(key)
        if parser is None:
            faults[str(key)] = _unknown(key)
            continue
        try:
            parsed[key] = parser(value)
        except ValueError as error:
            faults[key] = f"{key}={value!r}: {error}"
    if faults:
        raise InvalidResourceSpecification(list(faults), "; ".join(faults.values()))
    return parsed


def parse_memory(value: object) -> int | float:
    """Return an amount of memory or disk in MB (10**6 bytes).

    >>> parse_memory("16GB"), parse_memory("500 MiB"), parse_memory(250)
    (16000, 524.288, 250)

    Args:
        value: a number of MB, or a string with a decimal (kB, MB, GB, TB) or binary (KiB, MiB, GiB, TiB) unit.

    Raises:
        ValueError: anything else, negative amounts included.
    """
    if not isinstance(value, str):
        return _number(value, "a number of MB or a string such as '16GB' or '500MiB'")
    match = _MEMORY.fullmatch(value.strip())
    unit = None if match is None else BYTES.get(match[2].lower())
    if match is None or unit is None:
        raise ValueError("an amount of memory is written '16GB', '500MiB', '1.5 TB', or as a number of MB")
    return _plain(Fraction(match[1].rstrip(".")) * unit / BYTES[""])


def parse_duration(value: object) -> float:
    """Return a duration in seconds.

    >>> parse_duration("02:00:00"), parse_duration("1:30"), parse_duration(90)
    (7200.0, 90.0, 90.0)

    Args:
        value: seconds, 'HH:MM:SS', 'MM:SS', 'D-HH:MM:SS', or a `datetime.timedelta`.

    Raises:
        ValueError: anything else, durations that are negative or longer than a timer takes included.
    """
    accepted = "a duration is written '02:00:00', '30:00', as a number of seconds, or as a timedelta"
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if not isinstance(value, str):
        return _as_seconds(_number(value, accepted))
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return _as_seconds(_number(float(text), accepted))
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise ValueError(accepted)
    days, hours, minutes, seconds = (Fraction(part or 0) for part in match.groups())
    if seconds >= 60 or (match[2] and minutes >= 60) or (match[1] and hours >= 24):
        raise ValueError(f"a field of the clock time is too large; {accepted}")
    return _as_seconds(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def unhonoured(
    keys: Collection[str], offers: Mapping[str, Collection[str]], chosen: Collection[str] | None = None
) -> str:
    """Say why none of the chosen executors can take a task that asks for these keys, and who would.

    Args:
        keys: the keys of the task's specification.
        offers: for every executor of the run, by label, the keys that it honours.
        chosen: the labels that the task may go to; None stands for all.
    """
    labels = list(offers) if chosen is None else list(chosen)
    missing = [key for key in keys if not any(key in offers[label] for label in labels)]
    if missing:
        return "; ".join(_who_honours(key, offers, labels) for key in missing)
    each = "; ".join(f"{label} honours {_listed(key for key in keys if key in offers[label])}" for label in labels)
    return f"no executor honours all of {_listed(map(repr, keys))} together: {each}"


def _items(spec: object) -> Iterable[tuple[str, Any]]:
    if not isinstance(spec, Mapping):
        message = f"a mapping such as {{'cores': 2, 'memory': '4GB'}} is needed, not {spec!r}"
        raise InvalidResourceSpecification(["resource_specification"], message)
    return spec.items()


def _who_honours(key: str, offers: Mapping[str, Collection[str]], labels: Collection[str]) -> str:
    able = [label for label, honoured in offers.items() if key in honoured]
    if not able:
        return f"key {key!r} is honoured by no executor of this run: {_listed(offers)}"
    return f"key {key!r} is honoured by executors: {_listed(able)}; by none of the chosen ones: {_listed(labels)}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"


def _unknown(key: object) -> str:
    near = difflib.get_close_matches(str(key).lower(), KEYS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(KEYS))}"
    return f"{key!r} is no resource; {hint}"


def _plain(value: Fraction) -> int | float:
    """Return an int where the value is whole, else the nearest float."""
    return value.numerator if value.denominator == 1 else _float(value)


def _float(value: float | Fraction) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError("the number is too large") from error


def _as_seconds(value: float | Fraction) -> float:
    seconds = _float(value)
    if seconds > _LONGEST:
        raise ValueError("no duration is longer than 31 years")
    return seconds


def _number(value: object, accepted: str, *, least: float | None = 0) -> int | float:
    """Return a finite int or float as a plain one."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{accepted} is accepted, not {type(value).__name__}")  # noqa: TRY004 - callers catch one type
    number = operator.index(value) if isinstance(value, numbers.Integral) else float(value)
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError(f"{accepted} is accepted, and finite")
    if least is not None and number < least:
        raise ValueError(f"{accepted} is accepted, not below {least:g}")
    return number


def _whole(least: int) -> Callable[[object], int]:
    accepted = f"a whole number of {least} or more"

    def parser(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
            raise ValueError(f"{accepted} is accepted")
        return operator.index(value)

    return parser


def _positive(parser: Callable[[object], int | float]) -> Callable[[object], int | float]:
    def positive(value: object) -> int | float:
        number = parser(value)
        if number <= 0:
            raise ValueError("more than 0 is needed")
        return number

    return positive


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a string is accepted")  # noqa: TRY004 - `parse` catches one type
    return value


_PARSERS: Final[Mapping[str, Callable[[object], Any]]] = {
    "cores": _positive(lambda value: _number(value, "a number of cores")),
    "memory": parse_memory,
    "disk": parse_memory,
    "gpus": _whole(0),
    "walltime": _positive(parse_duration),
    "priority": lambda value: _number(value, "a number", least=None),
    "num_nodes": _whole(1),
    "ranks_per_node": _whole(1),
    "num_ranks": _whole(1),
    "num_tasks": _whole(1),
    "cores_per_task": _whole(1),
    "gpus_per_task": _whole(0),
    "running_time_min": parse_duration,
    "category": _text,
    "launcher_options": _text,
}

KEYS: Final = frozenset(_PARSERS)
"""Every key that some executor may honour."""
