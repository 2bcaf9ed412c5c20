"""`flowcore plugins`: what is installed, what is wrong with it, and whether every component can be imported."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from flowcore import __version__, registry
from flowcore.discovery import Kind, Plugin, Status
from flowcore.executors.base import Executor
from flowcore.launchers.base import Launcher
from flowcore.plugin import API_VERSION
from flowcore.plugin_errors import ComponentBroken
from flowcore.providers.base import Provider

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # argparse has no public name for it

BASES: Final[Mapping[Kind, type]] = {"executor": Executor, "provider": Provider, "launcher": Launcher}

NARROWEST: Final = 30
"""Columns that the names of components get, however narrow the terminal."""


def add_parser(commands: Commands) -> None:
    """Add the subcommand to the command line."""
    summary = "show the installed plugins, or check them"
    parser = commands.add_parser("plugins", help=summary, description=summary)
    parser.add_argument("--json", action="store_true", help="for programs: everything that is known, as JSON")
    parser.set_defaults(run=_show)
    check = parser.add_subparsers(title="commands", metavar="COMMAND").add_parser(
        "check",
        help="import every component; exit code 1 if anything is wrong",
        description="Import every component of the plugins and check its class; exit code 1 if anything is wrong.",
    )
    check.add_argument("name", nargs="*", metavar="NAME", help="plugins to check; all of them if none is named")
    check.set_defaults(run=_check)


def _show(options: argparse.Namespace) -> int:
    found = registry.current()
    if options.json:
        print(json.dumps(_as_data(found), indent=2))
        return 0
    header = ("PLUGIN", "DISTRIBUTION", "VERSION", "STATUS", "COMPONENTS")
    rows = [(p.name, p.distribution, p.version, p.status.value, _listed(p)) for p in found.plugins]
    notes = [plugin.reason for plugin in found.plugins]
    print("\n".join(_table(header, rows, notes)))
    for clash in found.clashes():
        print(f"\n{clash}")
    absent = sorted(set(registry.FIRST_PARTY.values()) - {plugin.name for plugin in found.plugins})
    if absent:
        print(f"\nNot installed: {', '.join(absent)}.  pip install 'flowcore[{','.join(absent)}]'")
    return 0


def _listed(plugin: Plugin) -> str:
    return ", ".join(component.name for _, component in plugin.components) or "-"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], notes: Sequence[str]) -> Iterator[str]:
    """Lay out left-aligned columns, the last one wrapped; a row's note comes below it, under its second column."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)][:-1]
    last = sum(widths) + 2 * len(widths)
    room = max(shutil.get_terminal_size().columns - last, NARROWEST)
    for row, note in zip([header, *rows], ["", *notes], strict=True):
        first, *others = textwrap.wrap(row[-1], room, break_long_words=False)
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), first])
        yield from (f"{' ' * last}{line}" for line in others)
        yield from (f"{' ' * (widths[0] + 2)}{line}" for line in note.splitlines())


def _as_data(found: registry.Registry) -> dict[str, Any]:
    return {
        "flowcore": __version__,
        "api": API_VERSION,
        "plugins": [_plugin_as_data(plugin) for plugin in found.plugins],
        "clashes": [{"kind": c.kind, "name": c.wanted, "plugins": list(c.plugins)} for c in found.clashes()],
    }


def _plugin_as_data(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "manifest": plugin.manifest,
        "status": plugin.status.value,
        "reason": plugin.reason,
        "components": [
            {
                "kind": kind,
                "name": component.name,
                "target": component.target,
                "summary": component.summary,
                "companions": list(component.companions),
            }
            for kind, component in plugin.components
        ],
    }


def _check(options: argparse.Namespace) -> int:
    found = registry.current()
    plugins = [plugin for plugin in found.plugins if not options.name or plugin.name in options.name]
    faults = list(_unknown(options.name, found.plugins))
    for plugin in plugins:
        skipped = plugin.status is Status.DISABLED and not options.name
        wrong = [] if skipped else list(_faults(found, plugin))
        told = "skipped, it is disabled" if skipped else "wrong" if wrong else f"ok: {_listed(plugin)}"
        print(f"{plugin}: {told}")
        print("".join(f"  {line}\n" for fault in wrong for line in fault.splitlines()), end="")
        faults += wrong
    for clash in () if options.name else found.clashes():
        print(clash)
        faults.append(str(clash))
    return 1 if faults else 0


def _unknown(names: Iterable[str], plugins: Iterable[Plugin]) -> Iterator[str]:
    known = sorted({plugin.name for plugin in plugins})
    for name in names:
        if name not in known:
            fault = f"no plugin named {name!r} is installed; there are: {', '.join(known) or 'none'}"
            print(fault)
            yield fault


def _faults(found: registry.Registry, plugin: Plugin) -> Iterator[str]:
    """Say everything that is wrong with one plugin."""
    if plugin.status is not Status.ACTIVE:
        yield f"{plugin.status.value}: {plugin.reason}"
        return
    for offer in found.offers(plugin):
        try:
            offer.load(BASES[offer.kind])
            for name in offer.component.companions:
                offer.load_companion(name)
        except ComponentBroken as error:
            yield f"{error.kind} {error.wanted}: {error.target}: {error.reason}"
