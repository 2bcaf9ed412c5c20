"""Blocks that are jobs of Torque."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import attrs

from flowcore.jobs.states import JobStatus
from flowcore.providers.pbs import PBSFamilyProvider, attributes_of
from flowcore.providers.scripts import JobScript

LONGEST_NAME: Final = 15
"""Characters that the name of a job may have."""


@attrs.define(eq=False)
class TorqueProvider(PBSFamilyProvider):
    """Submits each block to Torque.

    `cores_per_node` cores are asked for on each node, or one for each copy of the command.

    Attributes:
        mem_per_node: memory on each node in GB.
    """

    template: ClassVar[str] = "torque.sh"
    timeouts: ClassVar[frozenset[int]] = frozenset({-11})

    def fields(self, tasks_per_node: int, script: JobScript) -> Mapping[str, object]:
        """Return the fields of `templates/torque.sh`; see `BatchProvider`."""
        del script
        memory = None if self.mem_per_node is None else round(self.mem_per_node * 1024) * self.nodes_per_block
        return {
            "cores": self.cores_per_node or tasks_per_node,
            "memory": None if memory is None else f"{memory}mb",
            "queue": self.queue,
            "account": self.account,
        }

    def shown_name(self, job_name: str) -> str:
        """Return a name as short as Torque wants it, with its beginning and its end.

        >>> TorqueProvider().shown_name("flowcore.htex.block-12")
        'flowcor.lock-12'
        """
        half = LONGEST_NAME // 2
        return job_name if len(job_name) <= LONGEST_NAME else f"{job_name[:half]}.{job_name[-half:]}"

    def ask(self, job_ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """Ask `qstat`; see `BatchProvider`."""
        return self.matched(job_ids, attributes_of(self.answered(self.run(["qstat", "-f", *job_ids]))))
