"""Where a task's standard output and error go: paths that were given, and paths that flowcore chooses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowcore.app.shell import check_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowcore.dataflow.tasks import TaskRecord

AUTO_LOGNAME: Final = -1
"""Given as `stdout` or `stderr`: flowcore chooses the file."""

STREAMS: Final = ("stdout", "stderr")
_TASKS_PER_FOLDER: Final = 10_000


def default_std_autopath(run_dir: Path, task: TaskRecord, stream: str, label: str | None) -> str:
    """Choose `<run_dir>/task_logs/0000/task_0000_name_label.stdout` and the like; the number is the task's id."""
    folder = run_dir / "task_logs" / f"{task.id // _TASKS_PER_FOLDER:04}"
    name = f"task_{task.id:04}_{task.func_name}" + (f"_{label}" if label else "")
    return str(folder / f"{name}.{stream}")


def resolve(
    task: TaskRecord, kwargs: dict[str, Any], autopath: Callable[[TaskRecord, str], Any]
) -> Mapping[str, Any] | None:
    """Put a path in the place of each `AUTO_LOGNAME` and return the streams, None where there are none.

    Raises:
        BadStdStreamFile: a stream is given that is no file.
    """
    streams = {}
    for name in STREAMS:
        stream = kwargs.get(name)
        if stream is None:
            continue
        if type(stream) is int and stream == AUTO_LOGNAME:
            stream = kwargs[name] = autopath(task, name)
            if name not in task.ignore_for_cache:
                task.ignore_for_cache = (*task.ignore_for_cache, name)
        check_stream(stream, name)
        streams[name] = stream
    return streams or None
