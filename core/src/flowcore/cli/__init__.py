"""The command `flowcore`: one module for each of its subcommands."""

from __future__ import annotations

import argparse
import platform

from flowcore import __version__
from flowcore.cli import plugins, provider


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the words after the command's name; None takes the process's own.

    Raises:
        SystemExit: after `--help` and `--version`, and with code 2 for a line that makes no sense.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    if options.run is None:
        parser.print_help()
        return 0
    return int(options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowcore", description="Run Python functions and shell commands in parallel, from a laptop to a cluster."
    )
    version = f"flowcore {__version__} (Python {platform.python_version()})"
    parser.add_argument("--version", action="version", version=version)
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    plugins.add_parser(commands)
    provider.add_parser(commands)
    return parser
