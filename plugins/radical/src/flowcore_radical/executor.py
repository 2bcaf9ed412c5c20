"""The executor for RADICAL-Pilot: its parameters, and what is missing before it can run a task."""

from __future__ import annotations

from typing import Any

import attrs

from flowcore.errors import ConfigurationError, FlowcoreError, OptionalModuleMissing
from flowcore.executors.announced import AnnouncedExecutor, is_installed
from flowcore.executors.errors import UnsupportedFeatureError
from flowcore_radical.resource_config import ResourceConfig

__all__ = ["RadicalPilotExecutor", "ResourceConfig"]


def _valid_resource_config(_executor: object, _attribute: object, value: Any) -> None:
    if value is not None and not isinstance(value, ResourceConfig):
        message = f"resource_config takes a ResourceConfig(resource=..., walltime=..., ...), not {value!r}"
        raise ConfigurationError(message)


@attrs.define(eq=False)
class RadicalPilotExecutor(AnnouncedExecutor):
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

    def refusal(self) -> FlowcoreError:
        """Return the error that says that there is no RADICAL-Pilot, or that it cannot be driven yet."""
        if not is_installed("radical.pilot"):
            reason = f"executor {self.label!r} needs RADICAL-Pilot; `pip install radical.pilot` brings it"
            return OptionalModuleMissing(["radical.pilot"], reason)
        reason = "found the module radical.pilot, but this version of flowcore-radical cannot drive it yet"
        return UnsupportedFeatureError(self, reason)
