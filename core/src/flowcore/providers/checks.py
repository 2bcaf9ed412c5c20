"""What the options of batch providers are held against, as attrs validators."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import attrs

from flowcore import resources
from flowcore.launchers.base import Launcher
from flowcore.parameters import refusal
from flowcore.providers.errors import BadLauncher

if TYPE_CHECKING:
    from flowcore.providers.batch import BatchProvider

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
"""What would break out of a line of a job script."""


def one_line(provider: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Accept None and a line of text."""
    if value is None:
        return
    if not isinstance(value, str):
        raise refusal(provider, attribute, value, "a str is needed")
    if not value.strip() or CONTROL.search(value):
        raise refusal(provider, attribute, value, "one line of text is needed; leave it out for none")


def duration(provider: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Accept what `flowcore.resources.parse_duration` does, but no time at all."""
    try:
        seconds = resources.parse_duration(value)
    except ValueError as error:
        raise refusal(provider, attribute, value, str(error)) from error
    if seconds <= 0:
        raise refusal(provider, attribute, value, "it is no time at all")


def script_lines(provider: BatchProvider, attribute: attrs.Attribute[Any], value: object) -> None:
    """Accept lines of a job script; not options, which the shell would take for commands, and no other walltime."""
    if not isinstance(value, str):
        raise refusal(provider, attribute, value, "a str is needed")
    for line in value.splitlines():
        if line.startswith("-"):
            raise refusal(provider, attribute, line, f"a line of the job script is '{provider.directive} {line}'")
        if provider.walltime_line and re.search(provider.walltime_line, line):
            reason = "workers would not know of it, and end their work at another time; give walltime='HH:MM:SS'"
            raise refusal(provider, attribute, line, reason)


def job_id_pattern(provider: object, attribute: attrs.Attribute[Any], value: str) -> None:
    """Accept a regular expression with a group `id`."""
    try:
        groups = re.compile(value).groupindex
    except (re.error, TypeError) as error:
        raise refusal(provider, attribute, value, str(error)) from error
    if "id" not in groups:
        raise refusal(provider, attribute, value, "it lacks a group (?P<id>...)")


def fits(provider: BatchProvider, _attribute: attrs.Attribute[Any], value: object) -> None:
    """Accept launchers that can work with the provider."""
    if not isinstance(value, Launcher):
        raise BadLauncher(value)
    if value.schedulers is not None and provider.label not in value.schedulers:
        where = " or ".join(sorted(value.schedulers))
        raise BadLauncher(value, f"it works in jobs of {where} only, not of {provider.label}; leave launcher out")
    if value.one_node and provider.nodes_per_block > 1:
        idle = f"it would leave all but one of nodes_per_block={provider.nodes_per_block} idle"
        raise BadLauncher(value, f"{idle}; leave launcher out")
