"""What the scaling code reports when blocks keep failing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from flowcore.errors import FlowcoreError
from flowcore.jobs.states import JobStatus

TOLD_IN_FULL: Final = 10
"""Blocks of which the message tells everything; one line each is enough for the others."""


def _copy(blocks: Mapping[str, JobStatus]) -> dict[str, JobStatus]:
    return dict(blocks)


class JobFailure(FlowcoreError):
    """The root of errors about blocks."""


@attrs.define(eq=False, slots=False)
class TooManyJobFailuresError(JobFailure):
    """Blocks failed one after the other; the message has what each of them said.

    Attributes:
        reason: why this is held to be too many.
        blocks: how each block ended, by block id.
        report: what the blocks said, read when the error was made.
    """

    reason: str
    blocks: Mapping[str, JobStatus] = attrs.field(converter=_copy)
    report: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        shown = list(self.blocks.items())
        told = [_in_full(block_id, status) for block_id, status in shown[:TOLD_IN_FULL]]
        told += [f"  block {block_id}: {status.status_name}" for block_id, status in shown[TOLD_IN_FULL:]]
        self.report = "\n".join(told)

    def __str__(self) -> str:
        ran = any(status.script_path is not None for status in self.blocks.values())
        mend = "mend the provider's worker_init, launcher or options, then" if ran else "when that is mended,"
        return f"{self.reason}\n{self.report}\n  {mend} call the executor's reset()"


def _in_full(block_id: str, status: JobStatus) -> str:
    return f"  block {block_id}: " + status.report().replace("\n", "\n    ")
