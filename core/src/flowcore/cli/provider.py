"""`flowcore provider show`: the job scripts that a configuration would submit, without submitting them."""

from __future__ import annotations

import argparse
import runpy
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowcore.config import Config
from flowcore.errors import FlowcoreError
from flowcore.executors.base import Executor
from flowcore.executors.block import BlockExecutor

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # argparse has no public name for it

COMMAND: Final = ": '{label} starts its workers here, with a command that is made when the run starts'"
"""Stands in a script for the command of an executor that can tell it only within a run."""


class _Unusable(Exception):
    """The file holds no configuration."""


def add_parser(commands: Commands) -> None:
    """Add the subcommand to the command line."""
    summary = "show what a configuration would submit"
    parser = commands.add_parser("provider", help=summary, description=summary)

    def explain(_: argparse.Namespace) -> int:
        parser.print_help()
        return 0

    parser.set_defaults(run=explain)
    show = parser.add_subparsers(title="commands", metavar="COMMAND").add_parser(
        "show",
        help="print each executor's job script, and submit nothing",
        description="Print the job scripts of all executors; submit nothing. Exit code 1 if one cannot be made.",
    )
    show.add_argument("config", metavar="CONFIG", type=Path, help="a Python file that defines `config`, or a TOML file")
    show.add_argument("--executor", metavar="LABEL", help="this executor only")
    show.set_defaults(run=_show)


def _show(options: argparse.Namespace) -> int:
    try:
        found = _executors(options.config)
        executors = [one for one in found if options.executor in {None, one.label}]
        if not executors:
            labels = ", ".join(repr(one.label) for one in found)
            raise _Unusable(f"no executor is labelled {options.executor!r}; there are: {labels}")
        for executor in executors:
            print("\n".join(_told(executor)))
    except (_Unusable, FlowcoreError) as error:
        fault = str(error).removeprefix(f"{options.config}: ")
        print(f"{options.config}: {fault}", file=sys.stderr)
        return 1
    return 0


def _told(executor: Executor) -> Iterator[str]:
    if not isinstance(executor, BlockExecutor):
        yield f"# executor {executor.label}: it has no blocks\n"
        return
    provider = executor.provider
    yield f"# executor {executor.label}: {provider!r}"
    yield provider.script(COMMAND.format(label=executor.label), 1, f"flowcore.{executor.label}.block-0")


def _executors(path: Path) -> tuple[Executor, ...]:
    """Return the executors of the configuration that a file defines."""
    config = Config.from_toml(path) if path.suffix == ".toml" else _defined(path)
    if config.executors is None:
        raise _Unusable("it names no executors; the default ones run on this machine, without job scripts")
    return config.executors


def _defined(path: Path) -> Config:
    try:
        config = _named(path)
        if callable(config):
            config = config()
    except (FlowcoreError, _Unusable):
        raise
    except Exception as error:  # the user's own code
        raise _Unusable("".join(traceback.format_exception_only(error)).strip()) from error
    if not isinstance(config, Config):
        raise _Unusable(f"its `config` is no flowcore.Config but {config!r}")
    return config


def _named(path: Path) -> Any:
    try:
        names = runpy.run_path(str(path))
    except FileNotFoundError as error:
        raise _Unusable(f"{error.strerror}") from error
    if "config" not in names:
        raise _Unusable("it defines no `config`; write config = Config(executors=[...])")
    return names["config"]
