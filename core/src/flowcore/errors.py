"""The root of every error that flowcore raises, and the errors that belong to no single kind of component."""

from __future__ import annotations

from collections.abc import Collection

import attrs


class FlowcoreError(Exception):
    """The root: `except FlowcoreError` catches whatever flowcore itself raises."""


class ConfigurationError(FlowcoreError, ValueError):
    """A configuration that cannot work, found before anything was started."""


class NoDataFlowKernelError(FlowcoreError, RuntimeError):
    """An app was called, or the kernel asked for, while no configuration is loaded."""


class ShutdownError(FlowcoreError, RuntimeError):
    """The run ended before this task did."""


class InternalConsistencyError(FlowcoreError):
    """Something that flowcore guarantees to itself did not hold; please report it."""


@attrs.define(eq=False, slots=False)
class OptionalModuleMissing(FlowcoreError, ImportError):
    """A feature needs modules that are not installed."""

    module_names: Collection[str]
    reason: str

    def __str__(self) -> str:
        return f"{self.reason}\n  missing: {', '.join(self.module_names)}"


@attrs.define(eq=False, slots=False)
class InvalidResourceSpecification(FlowcoreError, ValueError):
    """A resource request with a key, a unit or a value that cannot be honoured."""

    invalid_keys: Collection[str]
    message: str = ""

    def __str__(self) -> str:
        unnamed = sorted(repr(key) for key in self.invalid_keys if str(key) not in self.message)
        keys = f"{', '.join(unnamed)}: " if unnamed else ""
        return f"resource specification: {keys}{self.message or 'invalid'}"
