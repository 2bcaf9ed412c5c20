"""Job scripts: the files of a job, what stands before the user's command, and templates with their fields."""

from __future__ import annotations

import contextlib
import re
import shlex
import uuid
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from flowcore.providers.errors import SchedulerMissingArgs, ScriptPathError, SubmitException

if TYPE_CHECKING:
    from flowcore.providers.base import Provider

PREFIXES: Final = ("FLOWCORE_", "PARSL_")
"""Each variable is set under both names; scripts that people already have read the second."""

VARIABLES: Final[Mapping[str, str]] = {"CORES": "cores_per_node", "MEMORY_GB": "mem_per_node"}
"""What a job learns from its environment about the size of its nodes: variable, attribute of the provider."""

_FIELD: Final = re.compile(r"@\{(\w+)\}")


class Verbatim(str):
    """A field's value that goes into the script as it stands: shell text, not a word."""

    __slots__ = ()


@attrs.frozen
class JobScript:
    """The files of one job: `path` is the script, the others are what the job writes.

    Attributes:
        exit: holds the exit code of the script once it has come to its end.
        withdrawn: where this file exists, a job that starts late does nothing.
    """

    path: Path
    out: Path
    err: Path
    exit: Path
    withdrawn: Path

    @classmethod
    def named(cls, folder: Path, stem: str) -> JobScript:
        """Name the files, and make none."""
        return cls(*(folder / f"{stem}.{suffix}" for suffix in ("sh", "out", "err", "exit", "withdrawn")))

    @classmethod
    def new(cls, provider: Provider, job_name: str) -> JobScript:
        """Name the files of a new job in the provider's script folder; the names are unique.

        Raises:
            SubmitException: there is no such folder.
        """
        if provider.script_dir is None:
            raise SubmitException(job_name, "there is no folder for its script; set script_dir")
        return cls.named(Path(provider.script_dir).absolute(), f"{job_name}.{uuid.uuid4().hex[:8]}")

    @classmethod
    def sample(cls, provider: Provider, job_name: str) -> JobScript:
        """Name the files of a job that will not be submitted."""
        return cls.named(Path(provider.script_dir or "submit_scripts").absolute(), job_name)

    def write(self, text: str) -> None:
        """Write the script; its folder is made if need be.

        Raises:
            ScriptPathError: it cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(text)
            self.path.chmod(0o755)  # some schedulers run it as it is
        except OSError as error:
            raise ScriptPathError(str(self.path), error.strerror or str(error)) from error

    def exit_code(self) -> int | None:
        """Return the exit code of the script; None where it has not come to its end, or the file cannot be seen."""
        try:
            return int(self.exit.read_text())
        except (OSError, ValueError):
            return None

    def withdraw(self) -> None:
        """See to it that the job does nothing, should it start after all."""
        with contextlib.suppress(OSError):
            self.withdrawn.touch()


def exports(provider: Provider, job_name: str) -> str:
    """Return the shell text that tells a job its name and the size of its nodes."""
    variables = {"JOBNAME": job_name}
    for variable, attribute in VARIABLES.items():
        value = getattr(provider, attribute)
        if value is not None:
            variables |= {f"{prefix}{variable}": str(value) for prefix in PREFIXES}
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


def read_template(name: str) -> str:
    """Return the text of one of the files in `flowcore/providers/templates`."""
    return (files("flowcore.providers") / "templates" / name).read_text(encoding="utf-8")


def fill(text: str, fields: Mapping[str, object], label: str, quote_directive: Callable[[str], str]) -> str:
    r"""Put values in the place of the fields of a template, which are written `@{name}`.

    A line with a field that is None is left out. A value is quoted as the line wants it, unless it is `Verbatim`.

    >>> fill("#X -q @{queue}\n#X -A @{account}\necho @{word}", {"queue": "q", "account": None, "word": "$1"}, "x", repr)
    "#X -q 'q'\necho '$1'"

    Args:
        text: the template.
        fields: the values.
        label: whose script this is, for the error.
        quote_directive: quotes a value in a line that begins with `#`, which the resource manager reads.

    Raises:
        SchedulerMissingArgs: the template has fields that nobody gave.
    """
    missing = sorted({name for name in _FIELD.findall(text) if name not in fields})
    if missing:
        raise SchedulerMissingArgs(", ".join(missing), label)
    lines = []
    for line in text.splitlines():
        if all(fields[name] is not None for name in _FIELD.findall(line)):
            quote = quote_directive if line.startswith("#") else shlex.quote
            pieces = _FIELD.split(line)  # text and names of fields by turns
            pieces[1::2] = [_shown(fields[name], quote) for name in pieces[1::2]]
            lines.append("".join(pieces))
    return "\n".join(lines)


def _shown(value: object, quote: Callable[[str], str]) -> str:
    return str(value) if isinstance(value, Verbatim) else quote(str(value))
