"""The executor for Flux: its parameters, and what is missing before it can run a task."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from flowcore.errors import FlowcoreError, OptionalModuleMissing
from flowcore.executors.announced import AnnouncedExecutor
from flowcore.executors.errors import UnsupportedFeatureError
from flowcore.providers.base import Provider


@attrs.define(eq=False)
class FluxExecutor(AnnouncedExecutor):
    """Names and defaults of an executor that runs each task as a Flux job. This version cannot run any.

    Args:
        provider: starts the job in which the Flux instance runs; None for this machine.
        working_dir: folder for the files of tasks; None makes one.
        label: names the executor within a run.
        flux_executor_kwargs: for `flux.job.FluxExecutor`.
        flux_path: the command `flux`; None searches PATH.
        launch_cmd: command that starts the Flux instance; None for the usual one.

    Raises:
        OptionalModuleMissing: there is no Flux.
        UnsupportedFeatureError: there is, and this version cannot drive it.
    """

    provider: Provider | None = None
    working_dir: str | None = None
    label: str = "FluxExecutor"
    flux_executor_kwargs: Mapping[str, Any] = MappingProxyType({})
    flux_path: str | None = None
    launch_cmd: str | None = None

    def refusal(self) -> FlowcoreError:
        """Return the error that says that there is no Flux, or that it cannot be driven yet."""
        wanted = str(self.flux_path or "flux")
        command = shutil.which(wanted)
        if command is None:
            reason = (
                f"executor {self.label!r} needs Flux, and there is no command {wanted!r}; load the site's module "
                "for it, build it with Spack (`spack install flux-sched`), or give flux_path="
            )
            return OptionalModuleMissing(["flux-core (the command `flux` and the Python bindings `flux`)"], reason)
        reason = f"found {Path(command)}, but this version of flowcore-flux cannot drive Flux yet"
        return UnsupportedFeatureError(self, reason)
