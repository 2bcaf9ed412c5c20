"""Blocks that are jobs of PBS Professional or OpenPBS."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import ClassVar

import attrs

from flowcore.errors import ConfigurationError
from flowcore.jobs.states import JobStatus
from flowcore.parameters import whole
from flowcore.providers.pbs import PBSFamilyProvider, attributes_of
from flowcore.providers.scripts import JobScript, Verbatim


def _selection(_provider: PBSProProvider, _attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str) or any(character.isspace() for character in value):
        raise ConfigurationError(f"PBSProProvider(select_options={value!r}): write it as 'ngpus=1:mem=64gb'")


@attrs.define(eq=False)
class PBSProProvider(PBSFamilyProvider):
    """Submits each block to PBS Professional or OpenPBS.

    Each node is one chunk of the selection, and no two chunks of a block are on one node.

    Attributes:
        select_options: what else each node must have, such as 'ngpus=4' or 'ngpus=4:mem=64gb'.
        cpus_per_node: cores on each node, where `cores_per_node` does not tell.
        mem_per_node: memory on each node in GB.
    """

    template: ClassVar[str] = "pbspro.sh"
    timeouts: ClassVar[frozenset[int]] = frozenset({-29})

    select_options: str = attrs.field(default="", validator=_selection, kw_only=True)
    cpus_per_node: int = attrs.field(default=1, validator=whole(1), kw_only=True)

    def fields(self, tasks_per_node: int, script: JobScript) -> Mapping[str, object]:
        """Return the fields of `templates/pbspro.sh`; see `BatchProvider`."""
        del tasks_per_node, script
        own_place = self.nodes_per_block > 1 and "place=" not in self.scheduler_options
        return {
            "select": Verbatim(self._selected()),
            "place": "scatter" if own_place else None,
            "queue": self.queue,
            "account": self.account,
        }

    def ask(self, job_ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """Ask `qstat`; see `BatchProvider`. Its JSON is not always well formed; then its text is read."""
        said = self.answered(self.run(["qstat", "-x", "-f", "-F", "json", *job_ids]))
        try:
            jobs = json.loads(said, strict=False).get("Jobs", {}) if said.strip() else {}
            told = {job_id: _lowered(attributes) for job_id, attributes in jobs.items()}
        except (ValueError, AttributeError):
            told = attributes_of(self.answered(self.run(["qstat", "-x", "-f", *job_ids])))
        return self.matched(job_ids, told)

    def _selected(self) -> str:
        cores = self.cores_per_node
        if cores is not None and self.cpus_per_node not in {1, cores}:
            raise ConfigurationError(
                f"cores_per_node={cores} and cpus_per_node={self.cpus_per_node} disagree; give one of them"
            )
        parts = [f"{self.nodes_per_block}:ncpus={cores or self.cpus_per_node}"]
        if self.mem_per_node is not None:
            parts.append(f"mem={round(self.mem_per_node * 1024)}mb")
        return ":".join([*parts, *filter(None, [self.select_options.strip(":")])])


def _lowered(attributes: Mapping[str, object]) -> dict[str, str]:
    return {name.lower(): str(value) for name, value in attributes.items()}
