"""Files on a file system that tasks see as the script does: nothing has to be moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowcore.data_provider.staging import Staging

if TYPE_CHECKING:
    from flowcore.data_provider.files import File


class NoOpFileStaging(Staging):
    """Leaves paths and `file:` URLs where they are."""

    def can_stage_in(self, file: File) -> bool:
        """Whether the file is named by a path."""
        return file.scheme == "file"

    def can_stage_out(self, file: File) -> bool:
        """Whether the file is named by a path."""
        return file.scheme == "file"

    def __repr__(self) -> str:
        return "NoOpFileStaging()"
