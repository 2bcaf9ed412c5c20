"""`@bash_app`: the function returns a command line, which runs on an executor."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, overload

from flowcore.app.base import App
from flowcore.app.shell import BashCall
from flowcore.dataflow import calls

if TYPE_CHECKING:
    from flowcore.dataflow.kernel import DataFlowKernel

P = ParamSpec("P")


class BashApp(App[P, int]):
    """A function whose calls run the command line that it returns; results are the exit code 0."""

    meaningless = frozenset()

    def target(self) -> Callable[..., Any]:
        """Return what makes and runs the command line."""
        handled = BashCall.OPTIONS - self.accepted
        self._drops -= handled
        self._function = super().target()
        return BashCall(self._function, self.accepted)

    def _target_of(self, keywords: dict[str, Any]) -> Callable[..., Any]:
        walltime = calls.take_walltime(keywords)
        return self._target if walltime is None else BashCall(self._function, self.accepted, walltime)


@overload
def bash_app(function: Callable[P, str | Coroutine[Any, Any, str]]) -> BashApp[P]: ...
@overload
def bash_app(
    function: None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    executors: str | Sequence[str] = "all",
    ignore_for_cache: Sequence[str] | None = None,
) -> Callable[[Callable[P, str | Coroutine[Any, Any, str]]], BashApp[P]]: ...
def bash_app(
    function: Callable[..., Any] | None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    executors: str | Sequence[str] = "all",
    ignore_for_cache: Sequence[str] | None = None,
) -> Any:
    """Turn a function that returns a command line into an app; with or without parentheses.

        @bash_app
        def compress(path: str, stdout: str | None = None) -> str:
            return f"gzip -c {path}"

    The function runs on the executor, and so does its command, with /bin/bash in a process group that ends with it.
    A call's future gives 0, or raises `BashExitFailure`, `MissingOutputs` (a file of `outputs` is not there) or
    `AppTimeout`. Besides the keywords of `python_app` calls take `stdout` and `stderr`: a path (appended to), a
    (path, mode) pair, a `File`, or `AUTO_LOGNAME`.

    Args:
        function: the function, where there are no parentheses.
        data_flow_kernel: the run that calls belong to; None for the loaded one.
        cache: whether an equal earlier call that went well will do.
        executors: 'all', or the labels of the executors that may run it.
        ignore_for_cache: names of parameters that do not count for being equal.

    Raises:
        TypeError: at decoration, for an option of the wrong type.
        ValueError: at decoration, for a label that `data_flow_kernel` does not have, or a name of no parameter.
    """
    return BashApp.decorate(
        function,
        data_flow_kernel=data_flow_kernel,
        cache=cache,
        executors=executors,
        ignore_for_cache=ignore_for_cache,
    )
