"""`@join_app`: the function itself calls apps, and its result is theirs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from flowcore.app.base import App

if TYPE_CHECKING:
    from flowcore.dataflow.kernel import DataFlowKernel

P = ParamSpec("P")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)


class JoinApp(App[P, R]):
    """A function that runs in the script's own process, calls apps, and stands for the results of their futures."""

    join = True


@overload
def join_app(function: Callable[P, Future[R] | Coroutine[Any, Any, Future[R]]]) -> JoinApp[P, R]: ...
@overload
def join_app(
    function: Callable[P, _ListOf[Future[R]] | Coroutine[Any, Any, _ListOf[Future[R]]]],
) -> JoinApp[P, list[R]]: ...
@overload
def join_app(
    function: None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    ignore_for_cache: Sequence[str] | None = None,
) -> _JoinDecorator: ...
def join_app(
    function: Callable[..., Any] | None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    ignore_for_cache: Sequence[str] | None = None,
) -> Any:
    """Turn a function that returns a future, or a list of futures, into an app whose result is theirs.

        @join_app
        def fan_out(count: int) -> list[AppFuture[int]]:
            return [square(number) for number in range(count)]

    The function runs in a thread of the script's process once what it depends on is done, so that it can decide what
    to call; nothing waits while the futures that it returned are on their way. One that fails gives a `JoinError`.
    It may wait for futures itself (`result()`, `await`, `concurrent.futures.wait`), and keeps no other one from running
    by that; a wait of another kind keeps one of the threads of `Config(internal_tasks_max_threads=)`.
    A `walltime` is that of the function alone.

    Args:
        function: the function, where there are no parentheses.
        data_flow_kernel: the run that calls belong to; None for the loaded one.
        cache: whether the result of an equal earlier call will do.
        ignore_for_cache: names of parameters that do not count for being equal.

    Raises:
        TypeError: at decoration, for an option of the wrong type.
        ValueError: at decoration, for a name of no parameter in `ignore_for_cache`.
    """
    return JoinApp.decorate(function, data_flow_kernel=data_flow_kernel, cache=cache, ignore_for_cache=ignore_for_cache)


if TYPE_CHECKING:
    from typing import Protocol

    class _ListOf(Protocol[T_co]):
        """A list, and nothing else that can be iterated over; unlike `list` it may be one of any kind of future."""

        def __iter__(self) -> Iterator[T_co]: ...
        def copy(self) -> list[Any]: ...

    class _JoinDecorator(Protocol):
        """`join_app(...)` with options: decorates either kind of function."""

        @overload
        def __call__(self, function: Callable[P, Future[R] | Coroutine[Any, Any, Future[R]]], /) -> JoinApp[P, R]: ...
        @overload
        def __call__(
            self, function: Callable[P, _ListOf[Future[R]] | Coroutine[Any, Any, _ListOf[Future[R]]]], /
        ) -> JoinApp[P, list[R]]: ...
