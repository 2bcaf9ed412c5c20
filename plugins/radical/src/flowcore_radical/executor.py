"""The executor for RADICAL-Pilot: its parameters, and what is missing before it can run a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from importlib.util import find_spec
from typing import Any, NoReturn

import attrs

from flowcore.errors import ConfigurationError, OptionalModuleMissing
from flowcore.executors.base import Executor, RunContext
from flowcore.executors.errors import UnsupportedFeatureError
from flowcore_radical.resource_config import ResourceConfig

__all__ = ["RadicalPilotExecutor", "ResourceConfig"]


def _valid_resource_config(_executor: object, _attribute: object, value: Any) -> None:
    if value is not None and not isinstance(value, ResourceConfig):
        message = f"resource_config takes a ResourceConfig(resource=..., walltime=..., ...), not {value!r}"
        raise ConfigurationError(message)


@attrs.define(eq=False)
class RadicalPilotExecutor(Executor):
    """Names and defaults of an executor that runs tasks on RADICAL-Pilot. This version cannot run any.

    Args:
        label: names the executor within a run.
        resource_config: the pilot's resources; None for `ResourceConfig()`, a pilot on this machine.
        bulk_mode: whether tasks are handed over many at once.
        launch_cmd: command that starts a task; None for the usual one.

    Raises:
        ConfigurationError: a `resource_config` that is none.
        OptionalModuleMissing: there is no RADICAL-Pilot.
        UnsupportedFeatureError: there is, and this version cannot drive it.
    """

    label: str = "RadicalPilot"
    resource_config: ResourceConfig | None = attrs.field(default=None, validator=_valid_resource_config)
    bulk_mode: bool = True
    launch_cmd: str | None = None

    def __attrs_post_init__(self) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        if not _installed("radical.pilot"):
            reason = f"executor {self.label!r} needs RADICAL-Pilot; `pip install radical.pilot` brings it"
            raise OptionalModuleMissing(["radical.pilot"], reason)
        reason = "found the module radical.pilot, but this version of flowcore-radical cannot drive it yet"
        raise UnsupportedFeatureError(self, reason)

    def start(self, run: RunContext) -> None:  # noqa: ARG002 - the contract's signature
        """Refuse, as the constructor does."""
        self._refuse()

    def submit(
        self,
        func: Callable[..., Any],  # noqa: ARG002 - the contract's signature
        resource_specification: Mapping[str, Any],  # noqa: ARG002
        /,
        *args: Any,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> Future[Any]:
        """Refuse, as the constructor does."""
        self._refuse()

    def shutdown(self) -> None:
        """Do nothing: nothing can have started."""

    def outstanding(self) -> int:
        """Count no tasks: none can have been accepted."""
        return 0


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # its parent package is not there
        return False
