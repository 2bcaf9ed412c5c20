"""The keywords of a call that are for flowcore rather than for the app's own function."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import Future
from os import PathLike, fspath
from typing import Any, Final

from flowcore import resources
from flowcore.data_provider.files import File
from flowcore.errors import InvalidResourceSpecification

RESOURCE_KEYWORDS: Final = ("resource_specification", "parsl_resource_specification")
"""Two spellings of one keyword: what the task needs."""

SPECIAL_KEYWORDS: Final = frozenset({"inputs", "outputs", "stdout", "stderr", "walltime", "label", *RESOURCE_KEYWORDS})

_NOTHING: Final[Mapping[str, Any]] = {}


def with_defaults(defaults: Mapping[str, Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's keywords, with the app's own defaults for those that it does not give."""
    given = {**defaults, **kwargs}
    if not kwargs.keys().isdisjoint(RESOURCE_KEYWORDS):  # either spelling stands against both defaults
        for name in RESOURCE_KEYWORDS:
            if name not in kwargs:
                given.pop(name, None)
    return given


def take_resources(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the call asks for, in canonical units.

    Raises:
        InvalidResourceSpecification: it asks in both spellings, or for something that is no resource.
    """
    given = [name for name in RESOURCE_KEYWORDS if kwargs.get(name) is not None and kwargs[name] != {}]
    if not given:
        return _NOTHING
    if len(given) > 1:
        raise InvalidResourceSpecification(given, "the two keywords mean the same; give one of them")
    specification = kwargs[given[0]]
    if not isinstance(specification, Mapping):
        message = f"takes a dict such as {{'cores': 2, 'memory': '4GB'}}, not {specification!r}"
        raise InvalidResourceSpecification(given, message)
    return resources.parse(specification)


def take_walltime(kwargs: Mapping[str, Any]) -> float | None:
    """Return the call's `walltime` in seconds; numbers, 'HH:MM:SS' and timedeltas are understood.

    Raises:
        ValueError: it is no duration.
    """
    walltime = kwargs.get("walltime")
    if walltime is None:
        return None
    try:
        seconds = resources.parse_duration(walltime)
    except ValueError as error:
        message = f"walltime={walltime!r}: {error}"
        raise ValueError(message) from error
    if not math.isfinite(seconds) or seconds <= 0:
        message = f"walltime={walltime!r}: a walltime is a positive number of seconds"
        raise ValueError(message)
    return seconds


def normal_inputs(inputs: Any) -> list[Any]:
    """Return `inputs` as a list; None is an empty one.

    Raises:
        TypeError: it is one thing rather than several.
    """
    if inputs is None:
        return []
    if isinstance(inputs, (str, bytes, PathLike, File, Future, Mapping)) or not hasattr(inputs, "__iter__"):
        message = f"inputs={inputs!r}: inputs takes a list; write inputs=[...]"
        raise TypeError(message)
    return list(inputs)


def normal_outputs(outputs: Any) -> list[File]:
    """Return `outputs` as a list of files; paths among them become files.

    Raises:
        TypeError: it is one thing rather than several, or holds what is no file.
    """
    if outputs is None:
        return []
    if isinstance(outputs, (str, bytes, PathLike, File, Future, Mapping)) or not hasattr(outputs, "__iter__"):
        message = f"outputs={outputs!r}: outputs takes a list; write outputs=[...]"
        raise TypeError(message)
    return [_as_file(output) for output in outputs]


def _as_file(output: Any) -> File:
    if isinstance(output, File):
        return output
    if isinstance(output, (str, PathLike)):
        return File(fspath(output))
    message = f"outputs holds {output!r}, which is no File; write File('path')"
    raise TypeError(message)
