"""The contract of a provider: submit, poll and cancel blocks on one kind of resource."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from flowcore.errors import ConfigurationError
from flowcore.launchers.base import Launcher
from flowcore.parameters import number, optional, positive, whole
from flowcore.providers.errors import BadLauncher

if TYPE_CHECKING:
    from flowcore.jobs.states import JobStatus


def _is_launcher(_provider: Provider, _attribute: attrs.Attribute[Launcher], value: object) -> None:
    if not isinstance(value, Launcher):
        raise BadLauncher(value)


def _has_room(provider: Provider, _attribute: attrs.Attribute[int], value: int) -> None:
    for name in ("init_blocks", "min_blocks"):
        wanted = getattr(provider, name)
        if wanted > value:
            raise ConfigurationError(f"{name}={wanted} is more than max_blocks={value}; give max_blocks={wanted} too")


@attrs.define(eq=False, kw_only=True)
class Provider(ABC):
    """Obtains blocks of resources, each block one job of `nodes_per_block` nodes.

    One provider belongs to one executor. The executor calls `submit` when it starts and when it scales out, the
    poller calls `status` every `status_polling_interval` seconds from its own thread, `cancel` comes from either;
    calls never overlap. Parameters are checked at construction, and nothing is contacted before the first `submit`.

    Attributes:
        nodes_per_block: nodes in each block.
        init_blocks: blocks started with the executor.
        min_blocks: blocks that stay however little there is to do.
        max_blocks: blocks there may be at any time.
        parallelism: how much of the waiting work should have a slot at once, 0 (one block does) to 1.
        launcher: what starts the command on the nodes of a block.
        script_dir: folder for job scripts and their output; the executor sets it before the first `submit`
            where the user left it None.
        cores_per_node: cores asked for on each node, or None for what the resource gives.
        mem_per_node: memory asked for on each node in GB, or None for what the resource gives.
        cmd_timeout: seconds that one command of the resource manager may take.
    """

    nodes_per_block: int = attrs.field(default=1, validator=whole(1))
    init_blocks: int = attrs.field(default=1, validator=whole(0))
    min_blocks: int = attrs.field(default=0, validator=whole(0))
    max_blocks: int = attrs.field(default=1, validator=[whole(0), _has_room])
    parallelism: float = attrs.field(default=1, validator=number(0, 1))
    launcher: Launcher = attrs.field(validator=_is_launcher)
    script_dir: str | None = None
    cores_per_node: int | None = attrs.field(default=None, validator=optional(whole(1)))
    mem_per_node: float | None = attrs.field(default=None, validator=optional(positive("GB")))
    cmd_timeout: float = attrs.field(default=30, validator=positive("seconds"))

    @property
    def label(self) -> str:
        """A word for the kind of resource, such as 'local' or 'slurm'; it names files and log lines."""
        return type(self).__name__.removesuffix("Provider").lower()

    @property
    def status_polling_interval(self) -> float:
        """Seconds between two calls of `status`."""
        return 60

    @property
    def block_walltime(self) -> float | None:
        """Seconds after which the resource manager ends a block, None where it does not.

        A job's environment tells when that will be: FLOWCORE_BLOCK_END, in seconds since the epoch.
        """
        return None

    def script(self, command: str, tasks_per_node: int = 1, job_name: str = "flowcore") -> str:
        """Return the script that `submit` would hand to the resource manager, and submit nothing.

        Where there is no script, it is the text that the launcher makes of the command.
        """
        del job_name
        return self.launcher(command, tasks_per_node, self.nodes_per_block)

    @abstractmethod
    def submit(self, command: str, tasks_per_node: int, job_name: str = "flowcore") -> str:
        """Start one block that runs `command` through the launcher, and return the job's id.

        Args:
            command: shell text for /bin/bash.
            tasks_per_node: copies of the command on each node.
            job_name: what the resource manager shows; letters, digits, `.`, `-` and `_`.

        Raises:
            SubmitException: the resource manager refused, with its command, exit code and words. One that could not be
                reached has `unanswered` set: then the executor submits another block later, and does not count this
                one as failed. A job that it took all the same must do nothing.
        """

    @abstractmethod
    def status(self, job_ids: Sequence[str]) -> list[JobStatus]:
        """Report on the jobs, one status each, in the order asked.

        A terminal state is final. A resource manager that does not answer raises; the caller goes on with
        what it knew and asks again.
        """

    @abstractmethod
    def cancel(self, job_ids: Sequence[str]) -> list[bool]:
        """End the jobs; True where the job is ending or has ended, in the order asked."""

    def watch(self, changed: Callable[[], None]) -> None:  # noqa: B027 - most providers can only be polled
        """Ask for a call of `changed` whenever a job has ended.

        A provider that can tell without being polled calls it, from any thread and with no lock held; the executor
        then asks for the status at once. Others need not override this.

        Args:
            changed: returns quickly and never raises.
        """
