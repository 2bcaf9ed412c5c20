"""The executor for Work Queue: its parameters, and what is missing before it can run a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from flowcore.errors import ConfigurationError, FlowcoreError, OptionalModuleMissing
from flowcore.executors.announced import AnnouncedExecutor, is_installed
from flowcore.executors.errors import UnsupportedFeatureError

BINDINGS: Final = ("ndcctools.work_queue", "work_queue")
"""The module of Work Queue's Python bindings, as newer and as older versions of CCTools name it."""


def _valid_port(_executor: object, _attribute: object, value: object) -> None:
    if type(value) is not int or not 0 <= value <= 65535:
        message = f"port is a number from 0 (any free port) to 65535, not {value!r}"
        raise ConfigurationError(message)


@attrs.define(eq=False)
class WorkQueueExecutor(AnnouncedExecutor):
    """Names and defaults of an executor that runs tasks on Work Queue. This version cannot run any.

    Args:
        label: names the executor within a run.
        port: on which the manager listens for workers; 0 for any free one.
        project_name: under which workers find the manager at a catalog server.
        env: environment variables for the tasks.
        shared_fs: whether the workers see this machine's files.
        use_cache: whether workers keep input files for the next task.
        init_command: shell text that each task runs first.
        worker_executable: the worker's command; None for `work_queue_worker`.
        container_image: in which the workers run.
        autolabel: whether tasks without a resource specification get one from what earlier ones used.
        autocategory: whether each app is a category of its own.
        should_transfer_worker_stdout: whether the workers' output comes back.
        worker_options: more words for the worker's command line.
        factory_options: for the factory that starts workers.

    Raises:
        ConfigurationError: a port that is none.
        OptionalModuleMissing: there is no Work Queue.
        UnsupportedFeatureError: there is, and this version cannot drive it.
    """

    label: str = "WorkQueue"
    port: int = attrs.field(default=9123, validator=_valid_port)
    project_name: str | None = None
    env: Mapping[str, str] | None = None
    shared_fs: bool = True
    use_cache: bool = True
    init_command: str = ""
    worker_executable: str | None = None
    container_image: str | None = None
    autolabel: bool = True
    autocategory: bool = True
    should_transfer_worker_stdout: bool = False
    worker_options: str | None = None
    factory_options: Mapping[str, Any] | None = None

    def refusal(self) -> FlowcoreError:
        """Return the error that says that there is no Work Queue, or that it cannot be driven yet."""
        found = next(filter(is_installed, BINDINGS), None)
        if found is None:
            reason = (
                f"executor {self.label!r} needs the Python bindings of Work Queue, a part of CCTools; "
                "conda has it (`conda install -c conda-forge ndcctools`), and Debian "
                "(`apt install coop-computing-tools python3-workqueue`)"
            )
            return OptionalModuleMissing(BINDINGS, reason)
        reason = f"found the module {found}, but this version of flowcore-workqueue cannot drive Work Queue yet"
        return UnsupportedFeatureError(self, reason)
