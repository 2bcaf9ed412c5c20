"""`@python_app`: calls of a Python function run on an executor."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from flowcore.app.base import App

if TYPE_CHECKING:
    from flowcore.dataflow.kernel import DataFlowKernel

P = ParamSpec("P")
R = TypeVar("R")


class PythonApp(App[P, R]):
    """A Python function whose calls run on an executor."""


@overload
def python_app(function: Callable[P, Coroutine[Any, Any, R]]) -> PythonApp[P, R]: ...
@overload
def python_app(function: Callable[P, R]) -> PythonApp[P, R]: ...
@overload
def python_app(
    function: None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    executors: str | Sequence[str] = "all",
    ignore_for_cache: Sequence[str] | None = None,
) -> _PythonDecorator: ...
def python_app(
    function: Callable[..., Any] | None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    executors: str | Sequence[str] = "all",
    ignore_for_cache: Sequence[str] | None = None,
) -> Any:
    """Turn a function, which may be `async def`, into an app; with or without parentheses.

        @python_app
        def square(x: int) -> int:
            return x * x

    Calls take the function's own arguments, futures in their place too, and these keywords whether or not the function
    declares them: `inputs` and `outputs` (files), `walltime` (seconds, raising `AppTimeout`), `resource_specification`.

    A type checker holds a call against the function's signature. It knows of futures among the first four arguments;
    one that comes later, or by keyword, with none among those needs a `typing.cast`. Beside such a future, and beside
    a keyword of those above that the function does not declare, it lets any argument pass. A function that returns its
    bare type variable (`def same(x: T) -> T`) it takes for an `async def` one: annotate the decorated name.

    Args:
        function: the function, where there are no parentheses.
        data_flow_kernel: the run that calls belong to; None for the loaded one.
        cache: whether the result of an equal earlier call will do.
        executors: 'all', or the labels of the executors that may run it.
        ignore_for_cache: names of parameters that do not count for being equal.

    Raises:
        TypeError: at decoration, for an option of the wrong type.
        ValueError: at decoration, for a label that `data_flow_kernel` does not have, or a name of no parameter.
    """
    return PythonApp.decorate(
        function,
        data_flow_kernel=data_flow_kernel,
        cache=cache,
        executors=executors,
        ignore_for_cache=ignore_for_cache,
    )


if TYPE_CHECKING:
    from typing import Protocol

    class _PythonDecorator(Protocol):
        """`python_app(...)` with options: decorates either kind of function."""

        @overload
        def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> PythonApp[P, R]: ...
        @overload
        def __call__(self, function: Callable[P, R], /) -> PythonApp[P, R]: ...
