"""The executor for Flux: its parameters, and what is missing before it can run a task."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import attrs

from flowcore.errors import OptionalModuleMissing
from flowcore.executors.base import Executor, RunContext
from flowcore.executors.errors import UnsupportedFeatureError
from flowcore.providers.base import Provider


@attrs.define(eq=False)
class FluxExecutor(Executor):
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

    def __attrs_post_init__(self) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        wanted = str(self.flux_path or "flux")
        command = shutil.which(wanted)
        if command is None:
            reason = (
                f"executor {self.label!r} needs Flux, and there is no command {wanted!r}; load the site's module "
                "for it, build it with Spack (`spack install flux-sched`), or give flux_path="
            )
            raise OptionalModuleMissing(["flux-core (the command `flux` and the Python bindings `flux`)"], reason)
        reason = f"found {Path(command)}, but this version of flowcore-flux cannot drive Flux yet"
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
