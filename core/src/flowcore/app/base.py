"""What the three kinds of app share: a function, what was said at its decoration, and how a call becomes a task."""

from __future__ import annotations

import asyncio
import functools
import inspect
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, ParamSpec, TypeAlias, TypeVar, overload

from flowcore.app.timing import TimedCall
from flowcore.dataflow import calls, loader
from flowcore.dataflow.kernel import DataFlowKernel
from flowcore.dataflow.lineup import ALL

if TYPE_CHECKING:
    from datetime import timedelta
    from os import PathLike
    from typing import Literal

    from flowcore.app.bash import BashApp
    from flowcore.data_provider.files import File
    from flowcore.dataflow.futures import AppFuture

P = ParamSpec("P")
R = TypeVar("R")

Deferred: TypeAlias = "Future[Any] | Collection[Future[Any]] | Mapping[Any, Future[Any]]"
"""What may stand in the place of an argument: a future of it, or a container of futures."""

Walltime: TypeAlias = "float | str | timedelta | None"
Resources: TypeAlias = "Mapping[str, Any] | None"
Stream: TypeAlias = "str | PathLike[str] | tuple[str | PathLike[str], str] | File | Literal[-1] | None"
"""What `stdout` and `stderr` take."""

_NAMED_AND_PLACED: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NO_DEFAULT: Final = (inspect.Parameter.empty, None)


class App(Generic[P, R]):
    """A function whose calls are tasks: calling it gives an `AppFuture` at once.

    Attributes:
        func: the function that was decorated.
        executors: 'all', or the labels of the executors that may run it.
        cache: whether the result of an equal earlier call will do.
        ignore_for_cache: names of parameters that do not count for being equal.
    """

    join = False
    meaningless: ClassVar[frozenset[str]] = frozenset({"stdout", "stderr"})
    """Keywords without an effect of their own: a function that does not take them refuses them."""

    def __init__(
        self,
        function: Callable[P, Any],
        *,
        data_flow_kernel: DataFlowKernel | None = None,
        executors: str | Sequence[str] = ALL,
        cache: bool = False,
        ignore_for_cache: Sequence[str] | None = None,
    ) -> None:
        _check_function(function)
        if isinstance(function, App) and not self.join:
            message = f"{function!r} is an app already\n  a function takes one decorator"
            raise TypeError(message)
        functools.update_wrapper(self, function, updated=())  # its attributes would hide ours
        self.func = function
        self.executors = _checked_labels(executors)
        self.cache = _checked_flag(cache)
        self.ignore_for_cache = _checked_names(ignore_for_cache)
        self.data_flow_kernel = data_flow_kernel
        if data_flow_kernel is not None:
            _checked_kernel(data_flow_kernel).check_labels(self.executors)
        parameters = _parameters(function)
        self._names = [parameter.name for parameter in parameters if parameter.kind in _NAMED_AND_PLACED]
        places = [number for number, name in enumerate(self._names) if name in calls.SPECIAL_KEYWORDS]
        self._first_special = min(places, default=len(parameters))
        self._defaults = {
            parameter.name: parameter.default
            for parameter in parameters
            if parameter.name in calls.SPECIAL_KEYWORDS
            and not any(parameter.default is nothing for nothing in _NO_DEFAULT)
        }
        self.accepted = frozenset(parameter.name for parameter in parameters) & calls.SPECIAL_KEYWORDS
        """The keywords for flowcore that the function also takes itself."""
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        if not takes_any:
            self._check_ignored(parameters)
        dropped = frozenset(calls.RESOURCE_KEYWORDS) if takes_any else calls.SPECIAL_KEYWORDS - self.meaningless
        self._drops = dropped - self.accepted
        self._target = self.target()

    @classmethod
    def decorate(cls, function: Callable[..., Any] | None, **options: Any) -> Any:
        """Return the app of a function, or, where the decorator has parentheses, what makes it of one."""
        return functools.partial(cls, **options) if function is None else cls(function, **options)

    def _check_ignored(self, parameters: Sequence[inspect.Parameter]) -> None:
        """Refuse names under which nothing can be passed."""
        named = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_POSITIONAL]
        known = {*named, *(calls.SPECIAL_KEYWORDS - self.meaningless)}
        unknown = [name for name in self.ignore_for_cache if name not in known]
        if unknown:
            name = getattr(self, "__name__", self.func)
            fault = f"ignore_for_cache={[*self.ignore_for_cache]!r}: {name} has no parameter {unknown[0]!r}"
            message = f"{fault}\n  it has: {', '.join(named) or 'none'}"
            raise ValueError(message)

    def target(self) -> Callable[..., Any]:
        """Return what an executor runs in the function's place."""
        return CoroutineCall(self.func) if inspect.iscoroutinefunction(self.func) else self.func

    # What a type checker makes of them is said at `python_app`; more cannot be said of a `ParamSpec`.
    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> AppFuture[R]: ...
    @overload
    def __call__(self, first: Deferred, /, *args: Any, **kwargs: Any) -> AppFuture[R]: ...
    @overload
    def __call__(self, first: Any, second: Deferred, /, *args: Any, **kwargs: Any) -> AppFuture[R]: ...
    @overload
    def __call__(self, first: Any, second: Any, third: Deferred, /, *args: Any, **kwargs: Any) -> AppFuture[R]: ...
    @overload
    def __call__(
        self, first: Any, second: Any, third: Any, fourth: Deferred, /, *args: Any, **kwargs: Any
    ) -> AppFuture[R]: ...
    @overload
    def __call__(self, /, *args: Any, walltime: Walltime, **kwargs: Any) -> AppFuture[R]: ...
    @overload
    def __call__(self, /, *args: Any, resource_specification: Resources, **kwargs: Any) -> AppFuture[R]: ...
    @overload
    def __call__(self, /, *args: Any, parsl_resource_specification: Resources, **kwargs: Any) -> AppFuture[R]: ...
    @overload
    def __call__(self, /, *args: Any, inputs: Iterable[Any] | None, **kwargs: Any) -> AppFuture[R]: ...
    @overload
    def __call__(self, /, *args: Any, outputs: Iterable[Any] | None, **kwargs: Any) -> AppFuture[R]: ...
    @overload
    def __call__(  # type: ignore[misc]  # other apps refuse it
        self: BashApp[P], /, *args: Any, stdout: Stream, **kwargs: Any
    ) -> AppFuture[int]: ...
    @overload
    def __call__(  # type: ignore[misc]  # other apps refuse it
        self: BashApp[P], /, *args: Any, stderr: Stream, **kwargs: Any
    ) -> AppFuture[int]: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> AppFuture[Any]:
        """Submit a call; raises what `DataFlowKernel.submit` raises."""
        kernel = self.data_flow_kernel or loader.dfk()
        keywords: dict[str, Any] = kwargs
        positional: Sequence[Any] = args
        if len(args) > self._first_special:
            positional, keywords = self._name_specials(args, kwargs)
        if self._defaults:
            keywords = calls.with_defaults(self._defaults, keywords)
        return kernel.submit(
            self._target_of(keywords) if keywords else self._target,
            positional,
            self.executors,
            self.cache,
            self.ignore_for_cache,
            keywords,
            self.join,
            self._drops,
        )

    def _target_of(self, keywords: dict[str, Any]) -> Callable[..., Any]:
        """Return what an executor runs for a call with these keywords."""
        walltime = calls.take_walltime(keywords)
        return self._target if walltime is None else TimedCall(self._target, walltime)

    def _name_specials(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        """Pass by keyword what was passed by position from the first parameter for flowcore on."""
        first = self._first_special
        named = dict(zip(self._names[first:], args[first:], strict=False))
        if len(args) > len(self._names) or not named.keys().isdisjoint(kwargs):
            return args, kwargs  # `*args` takes the rest, or the function itself will complain, in the task
        return args[:first], {**named, **kwargs}

    def __get__(self, instance: object, _owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {getattr(self, '__name__', self.func)}>"


class CoroutineCall:
    """Runs a coroutine function to its end, in an event loop of its own.

    Args:
        function: an `async def` function.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__: str = getattr(function, "__name__", "coroutine")

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return the coroutine's result."""
        return asyncio.run(self.function(*args, **kwargs))


def _parameters(function: Callable[..., Any]) -> Sequence[inspect.Parameter]:
    """Return the parameters; those of a function that does not tell are taken to be `*args, **kwargs`."""
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:
        return list(inspect.signature(lambda *_args, **_kwargs: None).parameters.values())


def _check_function(function: Any) -> None:
    if not callable(function):
        message = f"{function!r} is no function\n  give options by name, as in executors=['label'], cache=True"
        raise TypeError(message)


def _checked_labels(executors: Any) -> str | tuple[str, ...]:
    if executors == ALL:
        return ALL
    if isinstance(executors, str):
        message = f"executors={executors!r}: pass a list of labels, [{executors!r}], or 'all'"
        raise TypeError(message)
    labels = tuple(executors) if isinstance(executors, (list, tuple, set, frozenset)) else None
    if not labels or not all(isinstance(label, str) for label in labels):
        message = f"executors={executors!r}: pass 'all' or a list with at least one label"
        raise TypeError(message)
    return labels


def _checked_kernel(kernel: Any) -> DataFlowKernel:
    if not isinstance(kernel, DataFlowKernel):
        message = f"data_flow_kernel={kernel!r}: pass what flowcore.load() returns, or None for the loaded run"
        raise TypeError(message)
    return kernel


def _checked_flag(cache: Any) -> bool:
    if not isinstance(cache, bool):
        message = f"cache={cache!r}: pass True or False"
        raise TypeError(message)
    return cache


def _checked_names(names: Any) -> tuple[str, ...]:
    if names is None:
        return ()
    found = tuple(names) if isinstance(names, Iterable) and not isinstance(names, str) else (None,)
    if not all(isinstance(name, str) for name in found):
        message = f"ignore_for_cache={names!r}: pass a list of parameter names"
        raise TypeError(message)
    return found
