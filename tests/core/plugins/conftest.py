"""Throwaway plugins, installed as real distributions into a temporary folder of `sys.path`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from flowcore import registry

MANIFEST = """
    from flowcore.plugin import Component, hookimpl
    FLOWCORE_API = 1
    @hookimpl
    def flowcore_executors():
        yield Component("{component}", "{module}_executor:{component}", "For a test.")
"""

EXECUTOR = """
    from concurrent.futures import Future
    from flowcore.executors.base import Executor

    class {component}(Executor):
        label = "acme"
        def start(self, run): ...
        def submit(self, func, resource_specification, /, *args, **kwargs): return Future()
        def shutdown(self): ...
        def outstanding(self): return 0

    class Options: ...
"""


class Site:
    """A folder that looks to Python as `site-packages` does after `pip install`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, module: str, source: str) -> None:
        (self.path / f"{module}.py").write_text(dedent(source))
        importlib.invalidate_caches()

    def install(self, name: str, manifest: str, *, distribution: str | None = None, module: str | None = None) -> str:
        """Install a distribution whose plugin `name` has this source for a manifest; return the manifest's module."""
        module = module or f"{name}_manifest"
        self.write(module, manifest)
        self.announce(f"[flowcore]\n{name} = {module}\n", distribution or f"flowcore-{name}")
        return module

    def announce(self, entry_points: str, distribution: str) -> None:
        folder = self.path / f"{distribution.replace('-', '_')}-1.5.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
        (folder / "entry_points.txt").write_text(entry_points)
        importlib.invalidate_caches()

    def install_executor(self, name: str, component: str, *, distribution: str | None = None) -> None:
        """Install a plugin in good health, with one executor."""
        module = (distribution or name).replace("-", "_")
        self.write(f"{module}_executor", EXECUTOR.format(component=component))
        manifest = MANIFEST.format(component=component, module=module)
        self.install(name, manifest, distribution=distribution, module=f"{module}_manifest")

    def discover(self) -> registry.Registry:
        return registry.rediscover()

    def plugin(self, name: str) -> registry.Plugin:
        """Discover again, and return what came of one plugin."""
        [plugin] = [plugin for plugin in self.discover().plugins if plugin.name == name]
        return plugin


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty folder for plugins; what was discovered and imported is as before when the test ends."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_current", None)
    monkeypatch.delenv("FLOWCORE_DISABLE_PLUGINS", raising=False)
    before = set(sys.modules)
    aliases = {package: set(vars(importlib.import_module(package))) for package in ("flowcore.executors",)}
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    for package, names in aliases.items():
        for name in set(vars(sys.modules[package])) - names:
            delattr(sys.modules[package], name)
