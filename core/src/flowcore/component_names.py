"""Serves the names that plugins add to `flowcore.executors`, `.providers` and `.launchers`, when they are asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flowcore.plugin_errors import PluginError, PluginNotFound

if TYPE_CHECKING:
    from flowcore.discovery import Kind


class ComponentNames(MetaPathFinder):
    """The lazy part of one package's namespace.

    `from flowcore.executors import X` asks `attribute` first; where that raises `AttributeError`, the import system
    looks for a submodule X and comes to `find_spec`, which knows the plugins' public modules and else explains.

    Args:
        package: the package's name.
        kind: of the components in it.
        base: the class they all derive from.
    """

    def __init__(self, package: str, kind: Kind, base: type) -> None:
        self._package = package
        self._kind = kind
        self._base = base

    def install(self) -> None:
        """Let the import system ask here after it has found no file; in place of an earlier one for the package."""
        sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "_package", None) != self._package]
        sys.meta_path.append(self)

    def attribute(self, name: str) -> Any:
        """Return a component's class; what the package's `__getattr__` does.

        Raises:
            AttributeError: nobody has heard of the name.
            PluginError: somebody has, and it cannot be had; also an `ImportError`, which passes through `from` imports.
        """
        from flowcore import registry

        if name == "__all__":
            return [self._base.__name__, *registry.current().names(self._kind)]
        if name.startswith("_"):
            raise self._no_attribute(name)

        try:
            return registry.current().load(self._kind, name, self._base)
        except PluginNotFound as error:
            if error.extra is not None:
                raise
            raise self._no_attribute(name, f": {error}") from error

    def listing(self, namespace: Mapping[str, object]) -> list[str]:
        """Return the names worth completing: the components', the base class's, the modules'; for `__dir__`."""
        from flowcore import registry

        own = [name for name, value in namespace.items() if name.startswith("__") or isinstance(value, ModuleType)]
        return sorted({*own, self._base.__name__, *registry.current().names(self._kind)})

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - the import system's signature
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Find the public module of a plugin; the import system calls it when there is no file of this name.

        Raises:
            PluginError: the name lies in the package, and no usable plugin has it.
        """
        package, _, name = fullname.rpartition(".")
        if package != self._package or name.startswith("_"):
            return None
        from flowcore import registry

        module = registry.current().public_module(self._kind, name)
        return ModuleSpec(fullname, _Alias(module), origin=module)

    def _no_attribute(self, name: str, why: str = "") -> AttributeError:
        return AttributeError(f"module {self._package!r} has no attribute {name!r}{why}", name=name)


class _Alias(Loader):
    """Gives an existing module a second name."""

    def __init__(self, module: str) -> None:
        self._module = module

    def exec_module(self, module: ModuleType) -> None:
        try:
            real = importlib.import_module(self._module)
        except Exception as error:  # foreign code: the one who asked for the name is told
            message = f"{module.__name__} stands for {self._module}, which cannot be imported: {error!r}"
            raise PluginError(message) from error
        sys.modules[module.__name__] = real  # the import system takes what it finds there
