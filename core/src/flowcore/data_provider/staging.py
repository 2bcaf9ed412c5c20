"""The contract of a staging method: how files of one kind get to a task and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from flowcore.data_provider.data_manager import DataManager
    from flowcore.data_provider.files import File


class Staging:
    """Moves files; an executor's `storage_access` lists the methods it has, and the first that can is used.

    There are two ways to move a file, and a method takes either: by a task of its own (`stage_in`, `stage_out` return
    a future), or within the user's task (`replace_task`, `replace_task_stage_out` wrap its function).

    Everything here is called in the user's process while an app is being called, from the calling thread, so it must
    not wait; what it raises comes out of that call. `file` is a copy that belongs to the one task: setting its
    `local_path` tells the task where to open it, and is seen by nobody else. `executor` is the label of the task's
    executor; `dm.executors[executor].working_dir` is the folder for its files.
    """

    def can_stage_in(self, file: File) -> bool:  # noqa: ARG002 - for subclasses
        """Whether this method can bring the file to a task."""
        return False

    def can_stage_out(self, file: File) -> bool:  # noqa: ARG002 - for subclasses
        """Whether this method can take the file from a task to its place."""
        return False

    def stage_in(
        self,
        dm: DataManager,  # noqa: ARG002 - for subclasses
        executor: str,  # noqa: ARG002
        file: File,  # noqa: ARG002
        parent_fut: Future[Any] | None,  # noqa: ARG002
    ) -> Future[Any] | None:
        """Begin to bring the file to where the executor's tasks run.

        Args:
            dm: `dm.submit(executor, function, *args)` runs a staging task.
            executor: the label of the executor.
            file: what to bring.
            parent_fut: where the file is made by another task, the future to wait for before reading it.

        Returns:
            A future that is done when the file is there; None if nothing has to be waited for.
        """
        return None

    def stage_out(
        self,
        dm: DataManager,  # noqa: ARG002 - for subclasses
        executor: str,  # noqa: ARG002
        file: File,  # noqa: ARG002
        app_fu: Future[Any],  # noqa: ARG002
    ) -> Future[Any] | None:
        """Arrange for the file to be taken to its place once the task has made it.

        Args:
            dm: `dm.submit(executor, function, *args)` runs a staging task; with `app_fu` among the arguments it runs
                after the user's task.
            executor: the label of the executor.
            file: what to take.
            app_fu: the future of the task that makes it.

        Returns:
            A future that is done when the file is in its place; None if it is when `app_fu` is done.
        """
        return None

    def replace_task(
        self,
        dm: DataManager,  # noqa: ARG002 - for subclasses
        executor: str,  # noqa: ARG002
        file: File,  # noqa: ARG002
        func: Callable[..., Any],  # noqa: ARG002
    ) -> Callable[..., Any] | None:
        """Return a function that brings the file and then does what `func` does; None to leave `func` as it is."""
        return None

    def replace_task_stage_out(
        self,
        dm: DataManager,  # noqa: ARG002 - for subclasses
        executor: str,  # noqa: ARG002
        file: File,  # noqa: ARG002
        func: Callable[..., Any],  # noqa: ARG002
    ) -> Callable[..., Any] | None:
        """Return a function that does what `func` does and then takes the file to its place; None to leave it."""
        return None
