"""Job scripts: where they are written, and what stands before the user's command in each."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from flowcore.providers.errors import ScriptPathError, SubmitException

if TYPE_CHECKING:
    from flowcore.providers.base import Provider

PREFIXES: Final = ("FLOWCORE_", "PARSL_")
"""Each variable is set under both names; scripts that people already have read the second."""

VARIABLES: Final[Mapping[str, str]] = {"CORES": "cores_per_node", "MEMORY_GB": "mem_per_node"}
"""What a job learns from its environment about the size of its nodes: variable, attribute of the provider."""


@attrs.frozen
class JobScript:
    """The files of one job: the script and what it writes. Their names are unique."""

    path: Path
    out: Path
    err: Path

    @classmethod
    def write(cls, provider: Provider, job_name: str, text: str) -> JobScript:
        """Write `text` to a new file in the provider's script folder, which is made if need be.

        Raises:
            SubmitException: there is no such folder.
            ScriptPathError: the file cannot be written.
        """
        if provider.script_dir is None:
            raise SubmitException(job_name, "there is no folder for its script; set script_dir")
        folder = Path(provider.script_dir).absolute()
        stem = f"{job_name}.{uuid.uuid4().hex[:8]}"
        script = cls(*(folder / f"{stem}.{suffix}" for suffix in ("sh", "out", "err")))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            script.path.write_text(text)
        except OSError as error:
            raise ScriptPathError(str(script.path), error.strerror or str(error)) from error
        return script


def preamble(provider: Provider, job_name: str, worker_init: str) -> str:
    """Return the shell text that prepares a job's environment: the variables, then the user's own commands."""
    variables = {"JOBNAME": job_name}
    for variable, attribute in VARIABLES.items():
        value = getattr(provider, attribute)
        if value is not None:
            variables |= {f"{prefix}{variable}": str(value) for prefix in PREFIXES}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join([*exports, worker_init])
