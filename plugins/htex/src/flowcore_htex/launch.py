"""Command lines: how the interchange and the managers are started, in a container where that is wanted."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from string import Formatter
from typing import Any, Final

from flowcore_htex.search import BARE

INTERCHANGE: Final = ("{python}", "-c", BARE, "flowcore_htex.interchange")
"""The default of `interchange_launch_cmd`; `{python} -m flowcore_htex.interchange` does nearly as well."""

MANAGER: Final = "{python} -c {bare} flowcore_htex.manager --config {config} --block-id {block_id} {debug}"
"""The default of `launch_cmd`; `{python} -m flowcore_htex.manager` does nearly as well, see `search.BARE`."""

TEMPLATE_KEYS: Final = ("python", "bare", "config", "block_id", "label", "logdir", "debug", "nodes_per_block")
"""What `launch_cmd` may use, beside the settings."""

SETTINGS: Final = (
    "run_id",
    "label",
    "logdir",
    "worker_logs",
    "log_level",
    "socket",
    "socket_host",
    "socket_view",
    "socket_outlives_interchange",
    "addresses",
    "ports",
    "cert_dir",
    "address_probe_timeout",
    "heartbeat_period",
    "heartbeat_threshold",
    "poll_period",
    "drain_period",
    "max_workers",
    "cores_per_worker",
    "mem_per_worker",
    "accelerators",
    "cpu_affinity",
    "sys_path",
)
"""The names in a manager's settings file; each is a key of `launch_cmd` and an option of the manager's command."""

RUNTIMES: Final = {
    "apptainer": "apptainer exec {binds} {image}",
    "singularity": "singularity exec {binds} {image}",
    "podman": "podman run --rm --network=host --ipc=host --pid=host {env} {binds} {image}",
    "docker": "docker run --rm --network=host --ipc=host --pid=host {env} {binds} {image}",
    "ch-run": "ch-run {binds} {image} --",
}
"""How each container runtime runs a command, in the order in which they are looked for."""

_BIND: Final = {"apptainer": "--bind", "singularity": "--bind", "podman": "-v", "docker": "-v", "ch-run": "-b"}
_ALIASES: Final = {"charliecloud": "ch-run"}


def check_template(name: str, template: str, keys: Collection[str]) -> str:
    """Return a command template, or raise a `ValueError` that lists the keys there are."""
    if not isinstance(template, str):
        raise ValueError(f"{name}={template!r}: it has to be a text")  # noqa: TRY004 - one kind of error for bad values
    try:
        fields = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ValueError(f"{name}={template!r} is no format template: {error}") from error
    unknown = sorted(field for field in fields if field not in keys)
    if unknown or not template.strip():
        raise ValueError(
            f"{name}={template!r}: {'unknown keys ' + ', '.join(unknown) if unknown else 'it is empty'}\n"
            f"  the keys are: {', '.join(sorted(keys))}"
        )
    return template


def manager_command(template: str, values: Mapping[str, Any], block_id: str) -> str:
    """Return the shell text that starts a manager, every value quoted."""
    quoted = {key: shlex.quote(_text(value)) for key, value in {**values, "block_id": block_id}.items()}
    return template.format(**{**quoted, "debug": values.get("debug", "")})  # no word at all where it is empty


def interchange_command(template: str | Sequence[str] | None) -> list[str]:
    """Return the words of the command that starts the interchange, or raise a `ValueError`."""
    try:
        words = (
            shlex.split(template) if isinstance(template, str) else list(INTERCHANGE if template is None else template)
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"interchange_launch_cmd={template!r}: give a command, or a list of its words: {error}"
        ) from error
    if not words or not all(isinstance(word, str) for word in words):
        raise ValueError(f"interchange_launch_cmd={template!r}: give a command, or a list of its words")
    return [word.replace("{python}", sys.executable) for word in words]


def containerized(image: str, command: str, binds: Sequence[str], variables: Sequence[str]) -> str:
    """Return shell text that runs `command` in a container.

    The runtime is the first that the node has; `docker://image` and its like name it. Where there is none, the
    block ends with exit code 127, and says so on its standard error.

    Args:
        image: an image as the runtime knows it, or `RUNTIME://image`.
        command: shell text.
        binds: folders of the host that the container is to see under the same names.
        variables: names of environment variables that the container is to have.
    """
    scheme, separator, rest = image.partition("://")
    named = _ALIASES.get(scheme, scheme)
    if separator and named in RUNTIMES:
        candidates, image = [named], rest
    else:
        candidates = list(RUNTIMES)
    lines = []
    for number, runtime in enumerate(candidates):
        run = RUNTIMES[runtime].format(
            binds=" ".join(f"{_BIND[runtime]} {shlex.quote(bind)}" for bind in _pairs(binds)),
            env=" ".join(f"-e {name}" for name in variables),
            image=shlex.quote(image),
        )
        word = "if" if number == 0 else "elif"
        lines.append(f"{word} command -v {runtime} >/dev/null 2>&1; then {run} /bin/sh -c {shlex.quote(command)}")
    missing = f"flowcore: this node has no container runtime for {image}; looked for: {', '.join(candidates)}"
    return "\n".join([*lines, f"else echo {shlex.quote(missing)} >&2; exit 127", "fi"])


def _pairs(binds: Sequence[str]) -> list[str]:
    return [f"{bind}:{bind}" for bind in binds]


def _text(value: Any) -> str:
    """Return a value as the manager's options take it: texts and paths as they are, all else as json."""
    return str(value) if isinstance(value, (str, os.PathLike)) else json.dumps(value)
