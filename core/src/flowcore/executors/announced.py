"""An executor that is announced and cannot run tasks yet: it refuses at construction, and says what is missing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from importlib.util import find_spec
from typing import Any

from flowcore.errors import FlowcoreError
from flowcore.executors.base import Executor, RunContext


class AnnouncedExecutor(Executor):
    """The names and defaults of an executor that is to come; an attrs class derives from it.

    Its parameters are checked before it refuses, so that a configuration can be written, and mended, in advance.
    """

    @abstractmethod
    def refusal(self) -> FlowcoreError:
        """Return the error that says what is missing, and what to do meanwhile."""

    def __attrs_post_init__(self) -> None:
        raise self.refusal()

    def start(self, run: RunContext) -> None:  # noqa: ARG002 - the contract's signature
        """Refuse, as the constructor does."""
        raise self.refusal()

    def submit(
        self,
        func: Callable[..., Any],  # noqa: ARG002 - the contract's signature
        resource_specification: Mapping[str, Any],  # noqa: ARG002
        /,
        *args: Any,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> Future[Any]:
        """Refuse, as the constructor does."""
        raise self.refusal()

    def shutdown(self) -> None:
        """Do nothing: nothing can have started."""

    def outstanding(self) -> int:
        """Count no tasks: none can have been accepted."""
        return 0


def is_installed(module: str) -> bool:
    """Tell whether a module could be imported, without importing it; its parent packages are imported."""
    try:
        return find_spec(module) is not None
    except ImportError:  # a parent package is not there
        return False
