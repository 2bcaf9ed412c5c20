"""Run ordinary Python functions and shell commands in parallel, from a laptop to a supercomputer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "AUTO_LOGNAME",
    "Config",
    "DataFlowKernel",
    "File",
    "bash_app",
    "clear",
    "dfk",
    "join_app",
    "load",
    "python_app",
    "set_file_logger",
    "set_stream_logger",
    "wait_for_current_tasks",
]

if TYPE_CHECKING:
    from flowcore.app.bash import bash_app
    from flowcore.app.join import join_app
    from flowcore.app.python import python_app
    from flowcore.config import Config
    from flowcore.data_provider.files import File
    from flowcore.dataflow.kernel import DataFlowKernel
    from flowcore.dataflow.loader import clear, dfk, load, wait_for_current_tasks
    from flowcore.dataflow.streams import AUTO_LOGNAME
    from flowcore.executors import HighThroughputExecutor as HighThroughputExecutor
    from flowcore.executors import ThreadPoolExecutor as ThreadPoolExecutor
    from flowcore.executors import WorkQueueExecutor as WorkQueueExecutor
    from flowcore.logs import set_file_logger, set_stream_logger

_HOMES = {
    "AUTO_LOGNAME": "flowcore.dataflow.streams",
    "Config": "flowcore.config",
    "DataFlowKernel": "flowcore.dataflow.kernel",
    "File": "flowcore.data_provider.files",
    "bash_app": "flowcore.app.bash",
    "clear": "flowcore.dataflow.loader",
    "dfk": "flowcore.dataflow.loader",
    "join_app": "flowcore.app.join",
    "load": "flowcore.dataflow.loader",
    "python_app": "flowcore.app.python",
    "set_file_logger": "flowcore.logs",
    "set_stream_logger": "flowcore.logs",
    "wait_for_current_tasks": "flowcore.dataflow.loader",
    "HighThroughputExecutor": "flowcore.executors",
    "ThreadPoolExecutor": "flowcore.executors",
    "WorkQueueExecutor": "flowcore.executors",
}
"""Where each name lives: it is imported when somebody asks for it, so that `import flowcore` costs next to nothing."""


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
