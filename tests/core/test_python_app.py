"""`@python_app`: what can be decorated, what calls may look like, and what they refuse."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from tests.core.conftest import Load

import flowcore
from flowcore import File, bash_app, join_app, python_app
from flowcore.app import timing
from flowcore.app.errors import AppTimeout
from flowcore.dataflow.kernel import DataFlowKernel
from flowcore.errors import InvalidResourceSpecification, NoDataFlowKernelError
from flowcore.executors import ThreadPoolExecutor
from flowcore.executors.base import RunContext
from flowcore.futures import TaskFuture


class Honouring(ThreadPoolExecutor):
    """Threads that claim to honour some keys, and remember what they were asked for."""

    resource_keys: ClassVar[frozenset[str]] = frozenset({"cores", "memory", "walltime"})

    def start(self, run: RunContext) -> None:
        self.asked: list[Mapping[str, Any]] = []
        super().start(run)

    def submit(self, func: Any, resource_specification: Mapping[str, Any], /, *args: Any, **kwargs: Any) -> Any:
        self.asked.append(dict(resource_specification))
        return super().submit(func, {}, *args, **kwargs)

    __slots__ = ("asked",)


class TestDecoration:
    def test_bare(self, kernel: DataFlowKernel) -> None:
        @python_app
        def double(x: int) -> int:
            return 2 * x

        assert double(4).result() == 8

    def test_with_parentheses(self, kernel: DataFlowKernel) -> None:
        @python_app()
        def double(x: int) -> int:
            return 2 * x

        assert double(4).result() == 8

    def test_with_every_option(self, load: Load) -> None:
        kernel = load()

        @python_app(data_flow_kernel=kernel, cache=True, executors=["threads"], ignore_for_cache=["noise"])
        def add(x: int, noise: int = 0) -> int:
            return x + noise

        assert add(1, noise=1).result() == 2
        assert add(1, noise=7).result() == 2
        assert (add.executors, add.cache, add.ignore_for_cache) == (("threads",), True, ("noise",))

    def test_the_name_the_doc_the_signature_and_the_function_stay(self) -> None:
        def double(x: int = 3) -> int:
            """Double it."""
            return 2 * x

        app = python_app(double)
        assert (app.__name__, app.__doc__, app.func) == ("double", "Double it.", double)
        assert inspect.signature(app) == inspect.signature(double)

    def test_attributes_of_the_function_do_not_disturb(self, kernel: DataFlowKernel) -> None:
        def plain() -> int:
            return 1

        plain.join = True
        plain.target = None
        plain.seconds = 0
        plain.function = None
        assert python_app(plain)(walltime=600).result() == 1

    @pytest.mark.parametrize(
        "options",
        [
            {"walltime": 1},
            {"unknown": 1},
            {"executors": "threads"},
            {"executors": []},
            {"executors": [1]},
            {"executors": 5},
            {"cache": 1},
            {"ignore_for_cache": "x"},
            {"ignore_for_cache": [1]},
            {"ignore_for_cache": b"x"},
            {"ignore_for_cache": 5},
        ],
    )
    def test_a_wrong_option_is_refused_at_once(self, options: dict[str, Any]) -> None:
        with pytest.raises(TypeError, match=next(iter(options))):
            python_app(**options)(lambda: 1)

    def test_a_name_of_no_parameter_is_refused_at_once(self) -> None:
        with pytest.raises(
            ValueError,
            match=r"^ignore_for_cache=\['vrebose'\]: add has no parameter 'vrebose'\n  it has: x, verbose$",
        ):

            @python_app(cache=True, ignore_for_cache=["vrebose"])
            def add(x: int, verbose: bool = False, *rest: int) -> int:
                return x

    def test_names_may_come_from_any_iterable(self) -> None:
        app = python_app(lambda x, y: x, ignore_for_cache=(name for name in "xy"))
        assert app.ignore_for_cache == ("x", "y")

    @pytest.mark.parametrize("decorate", [python_app, bash_app])
    @pytest.mark.parametrize("app", [python_app(len), bash_app(str), join_app(list)], ids=repr)
    def test_an_app_is_refused_at_once(self, decorate: Any, app: Any) -> None:
        with pytest.raises(TypeError, match=r"^<\w+ \w+> is an app already\n  a function takes one decorator$"):
            decorate(app)

    @pytest.mark.parametrize("name", ["rest", "stdout"])
    def test_what_a_call_cannot_name_is_refused_at_once(self, name: str) -> None:
        with pytest.raises(ValueError, match=rf"<lambda> has no parameter '{name}'\n  it has: none$"):
            python_app(ignore_for_cache=[name])(lambda *rest: rest)

    def test_names_that_a_call_may_have_are_taken(self) -> None:
        def f(placed: int, /, both: int, *, named: int, stdout: Any = None) -> None: ...

        names = ["placed", "both", "named", "stdout", "walltime", "inputs", "outputs"]
        assert python_app(f, ignore_for_cache=names).ignore_for_cache == tuple(names)
        assert bash_app(lambda: "true", ignore_for_cache=["stdout"]).ignore_for_cache == ("stdout",)
        assert python_app(lambda **anything: 1, ignore_for_cache=["free"]).ignore_for_cache == ("free",)
        assert python_app(max, ignore_for_cache=["untold"]).ignore_for_cache == ("untold",)

    def test_what_is_no_function_is_refused_at_once(self) -> None:
        with pytest.raises(TypeError, match=r"^5 is no function\n  give options by name"):
            python_app(5)

    def test_what_is_no_run_is_refused_at_once(self) -> None:
        with pytest.raises(TypeError, match=r"^data_flow_kernel='x': pass what flowcore.load\(\) returns"):
            python_app(data_flow_kernel="x")(len)

    def test_an_unknown_label_is_refused_at_once_where_the_run_is_named(self, load: Load) -> None:
        kernel = load()
        with pytest.raises(
            ValueError, match=r"invalid executor 'gpu'\n  the labels of this run's executors: 'threads'"
        ):
            python_app(data_flow_kernel=kernel, executors=["gpu"])(lambda: 1)

    @pytest.mark.parametrize(
        ("function", "args", "result"),
        [
            (functools.partial(max, 3), (1, 2), 3),
            (max, (1, 2), 2),
            (len, ([1, 2],), 2),
            (str.upper, ("a",), "A"),
            (lambda x: x, (1,), 1),
            (dict, ((("a", 1),),), {"a": 1}),
        ],
    )
    def test_any_callable_will_do(self, kernel: DataFlowKernel, function: Any, args: Any, result: Any) -> None:
        assert python_app(function)(*args).result() == result

    def test_a_method(self, kernel: DataFlowKernel) -> None:
        class Counter:
            start = 10

            @python_app
            def plus(self, x: int) -> int:
                return self.start + x

        assert Counter().plus(5).result() == 15
        assert Counter.plus(Counter(), 6).result() == 16

    def test_decorating_costs_no_run(self) -> None:
        app = python_app(lambda: 1)
        with pytest.raises(NoDataFlowKernelError, match=r"Must first load config\n  call flowcore.load\(\)"):
            app()


class TestCalls:
    def test_every_kind_of_parameter(self, kernel: DataFlowKernel) -> None:
        @python_app
        def spell(a: Any, /, b: Any, *c: Any, d: Any, e: Any = 5, **f: Any) -> Any:
            return a, b, c, d, e, f

        assert spell(1, 2, 3, d=4, g=6).result() == (1, 2, (3,), 4, 5, {"g": 6})

    def test_a_parameter_may_have_any_name(self, kernel: DataFlowKernel) -> None:
        @python_app
        def named(**names: Any) -> Any:
            return sorted(names)

        names = ["args", "cache", "executors", "func", "function", "join", "kernel", "kwargs", "self", "task"]
        assert named(**dict.fromkeys(names)).result() == names

    def test_wrong_arguments_fail_the_task(self, kernel: DataFlowKernel) -> None:
        @python_app
        def one(x: int) -> int:
            return x

        assert isinstance(one().exception(), TypeError)
        assert isinstance(one(1, 2).exception(), TypeError)
        assert isinstance(one(1, y=2).exception(), TypeError)

    def test_a_stream_that_the_function_does_not_take_fails_the_task(self, kernel: DataFlowKernel) -> None:
        @python_app
        def quiet() -> None: ...

        assert "stdout" in str(quiet(stdout="x").exception())

    def test_defaults_that_cannot_be_compared(self, kernel: DataFlowKernel) -> None:
        class Touchy:
            def __eq__(self, other: object) -> bool:
                raise RuntimeError("compared")

            __hash__ = None

            def __bool__(self) -> bool:
                raise RuntimeError("tested")

        touchy = Touchy()

        @python_app
        def default(x: Any = touchy, label: Any = touchy) -> bool:
            return x is touchy and label is touchy

        assert default().result()
        assert default(touchy).result()

    def test_none_for_every_special_keyword(self, kernel: DataFlowKernel) -> None:
        @python_app
        def quiet() -> int:
            return 1

        specials = dict.fromkeys(["inputs", "outputs", "walltime", "resource_specification", "label"])
        assert quiet(**specials).result() == 1

    def test_an_exception_group_of_subclasses_is_not_changed(self, kernel: DataFlowKernel) -> None:
        class OwnError(ValueError):
            pass

        @python_app
        def fail() -> None:
            raise OwnError("a", 1) from KeyError("b")

        error = fail().exception()
        assert type(error) is OwnError
        assert error.args == ("a", 1)
        assert isinstance(error.__cause__, KeyError)

    def test_the_traceback_shows_the_users_line(self, kernel: DataFlowKernel) -> None:
        @python_app
        def fail() -> None:
            raise ValueError

        error = fail().exception()
        assert error is not None
        trace = error.__traceback__
        assert trace is not None
        while trace.tb_next:
            trace = trace.tb_next
        assert trace.tb_frame.f_code.co_name == "fail"


class TestInputs:
    @pytest.mark.parametrize("make", [list, tuple, iter, lambda items: (item for item in items)])
    def test_any_iterable_arrives_as_a_list_of_results(self, kernel: DataFlowKernel, make: Any) -> None:
        @python_app
        def add(inputs: Any = ()) -> Any:
            return type(inputs), sum(inputs)

        two = python_app(lambda: 2)()
        assert add(inputs=make([1, two])).result() == (list, 3)

    def test_none_is_an_empty_list(self, kernel: DataFlowKernel) -> None:
        assert python_app(lambda inputs: inputs)(inputs=None).result() == []

    def test_a_future_is_refused_with_a_remedy(self, kernel: DataFlowKernel) -> None:
        with pytest.raises(TypeError, match=r"inputs takes a list; write inputs=\[...\]"):
            python_app(lambda inputs: 1)(inputs=python_app(lambda: [1])())

    @pytest.mark.parametrize("inputs", ["file.txt", b"x", 5, File("x"), {1: 2}])
    def test_one_thing_is_refused_with_a_remedy(self, kernel: DataFlowKernel, inputs: Any) -> None:
        with pytest.raises(TypeError, match=r"inputs takes a list; write inputs=\[...\]"):
            python_app(lambda inputs: 1)(inputs=inputs)

    def test_the_callers_list_is_not_changed(self, kernel: DataFlowKernel) -> None:
        given = [python_app(lambda: 1)(), File("x")]
        copy = list(given)
        python_app(lambda inputs: inputs.clear())(inputs=given).result()
        assert given == copy

    def test_they_may_come_by_position(self, kernel: DataFlowKernel) -> None:
        @python_app
        def add(x: int, inputs: Any, y: int = 0) -> Any:
            return x, inputs, y

        two = python_app(lambda: 2)()
        assert add(1, (two,), 3).result() == (1, [2], 3)
        assert add(1, (two,)).result() == (1, [2], 0)

    def test_by_position_with_further_arguments(self, kernel: DataFlowKernel) -> None:
        @python_app
        def add(x: int, inputs: Any, *rest: int) -> Any:
            return x, list(inputs), rest

        two = python_app(lambda: 2)()
        assert add(1, [two], 3).result() == (1, [2], (3,))
        assert add(1, [two]).result() == (1, [2], ())

    def test_twice_is_the_functions_own_complaint(self, kernel: DataFlowKernel) -> None:
        error = python_app(lambda inputs: 1)([1], inputs=[2]).exception()
        assert isinstance(error, TypeError)

    def test_a_function_that_does_not_take_them_waits_for_them(self, kernel: DataFlowKernel) -> None:
        event = threading.Event()
        first = python_app(lambda: event.wait(60))()
        second = python_app(lambda: event.is_set())(inputs=[first])
        assert not second.done()
        event.set()
        assert second.result() is True


class TestOutputs:
    def test_paths_become_files_with_futures(self, kernel: DataFlowKernel) -> None:
        @python_app
        def write(outputs: Any = ()) -> str:
            for output in outputs:
                with open(output, "w") as stream:
                    stream.write("x")
            return ",".join(output.filename for output in outputs)

        future = write(outputs=["a.txt", File("b.txt")])
        assert [output.result().filepath for output in future.outputs] == ["a.txt", "b.txt"]
        assert future.result() == "a.txt,b.txt"

    @pytest.mark.parametrize("outputs", ["x", File("x"), 3])
    def test_one_thing_is_refused_with_a_remedy(self, kernel: DataFlowKernel, outputs: Any) -> None:
        with pytest.raises(TypeError, match=r"outputs takes a list; write outputs=\[...\]"):
            python_app(lambda outputs: 1)(outputs=outputs)

    def test_what_is_no_file_is_refused_with_a_remedy(self, kernel: DataFlowKernel) -> None:
        with pytest.raises(TypeError, match=r"outputs holds 5, which is no File; write File\('path'\)"):
            python_app(lambda outputs: 1)(outputs=[5])


class TestResources:
    @pytest.fixture
    def honouring(self, load: Load) -> Honouring:
        executor = Honouring(label="big")
        load(executors=[ThreadPoolExecutor(label="small"), executor])
        return executor

    @pytest.mark.parametrize("spelling", ["resource_specification", "parsl_resource_specification"])
    def test_both_spellings_in_canonical_units(self, honouring: Honouring, spelling: str) -> None:
        app = python_app(lambda: 1)
        assert app(**{spelling: {"cores": 2, "memory": "16GB"}}).result() == 1
        assert honouring.asked == [{"cores": 2, "memory": 16000}]

    def test_the_default_of_the_signature_counts(self, honouring: Honouring) -> None:
        @python_app
        def big(resource_specification: Any = {"cores": 3}) -> Any:  # noqa: B006 - as users write it
            return resource_specification

        assert big().result() == {"cores": 3}
        assert honouring.asked == [{"cores": 3}]

    @pytest.mark.parametrize("spelling", ["resource_specification", "parsl_resource_specification"])
    def test_a_call_stands_against_the_default_in_either_spelling(self, honouring: Honouring, spelling: str) -> None:
        @python_app
        def big(parsl_resource_specification: Any = {"cores": 3}) -> None: ...  # noqa: B006

        big(**{spelling: {"cores": 4}}).result()
        assert honouring.asked == [{"cores": 4}]

    def test_both_spellings_at_once_are_refused(self, honouring: Honouring) -> None:
        with pytest.raises(InvalidResourceSpecification, match="the two keywords mean the same; give one of them"):
            python_app(lambda: 1)(resource_specification={"cores": 1}, parsl_resource_specification={"cores": 1})

    def test_an_unknown_key_is_named_with_a_near_one(self, honouring: Honouring) -> None:
        with pytest.raises(InvalidResourceSpecification, match=r"'core' is no resource; did you mean 'cores'"):
            python_app(lambda: 1)(resource_specification={"core": 1})

    def test_a_key_that_nobody_honours_is_named(self, honouring: Honouring) -> None:
        with pytest.raises(InvalidResourceSpecification) as caught:
            python_app(lambda: 1)(resource_specification={"gpus": 1})
        assert caught.value.invalid_keys == ["gpus"]
        assert "'gpus' is honoured by no executor of this run: small, big" in str(caught.value)
        remedy = str(caught.value).splitlines()[1]
        assert remedy.startswith("  installed executors that honour it: HighThroughputExecutor")

    def test_a_key_that_nothing_installed_honours_says_so(self, honouring: Honouring) -> None:
        with pytest.raises(InvalidResourceSpecification, match=r"installed executors that honour it: none$"):
            python_app(lambda: 1)(resource_specification={"gpus": 1, "category": "a", "launcher_options": "b"})

    def test_a_key_that_another_executor_honours_names_it(self, honouring: Honouring) -> None:
        app = python_app(executors=["small"])(lambda: 1)
        with pytest.raises(InvalidResourceSpecification, match=r"'cores' is honoured by executors: big; .*small"):
            app(resource_specification={"cores": 1})

    @pytest.mark.parametrize("wrong", [5, "cores=2", [("cores", 2)]])
    def test_what_is_no_mapping_is_refused(self, honouring: Honouring, wrong: Any) -> None:
        with pytest.raises(InvalidResourceSpecification, match="takes a dict such as"):
            python_app(lambda: 1)(resource_specification=wrong)

    def test_the_empty_one_asks_for_nothing(self, honouring: Honouring) -> None:
        app = python_app(executors=["small"])(lambda: 1)
        assert app(resource_specification={}, parsl_resource_specification={}).result() == 1

    def test_a_walltime_is_told_to_who_honours_it_with_some_grace(self, honouring: Honouring) -> None:
        python_app(executors=["big"])(lambda: 1)(walltime=60).result()
        assert honouring.asked == [{"walltime": 63.0}]

    def test_the_callers_dict_is_not_changed(self, honouring: Honouring) -> None:
        specification = {"memory": "16GB"}
        python_app(lambda: 1)(resource_specification=specification).result()
        assert specification == {"memory": "16GB"}


class TestCoroutines:
    def test_a_coroutine_function_is_run_to_its_end(self, kernel: DataFlowKernel) -> None:
        @python_app
        async def double(x: int) -> int:
            return 2 * x

        assert double(double(2)).result() == 8

    def test_its_exception_arrives(self, kernel: DataFlowKernel) -> None:
        @python_app
        async def fail() -> None:
            raise KeyError("x")

        assert isinstance(fail().exception(), KeyError)

    def test_with_a_walltime(self, kernel: DataFlowKernel, monkeypatch: pytest.MonkeyPatch) -> None:
        @python_app
        async def quick() -> int:
            return 1

        clocks: list[Any] = []
        start = timing._Clock.start

        @python_app
        async def endless() -> None:
            start(clocks[0])  # here: an event loop that is interrupted while it is made, or closed, is left open
            while True:
                pass

        monkeypatch.setattr(timing, "AGAIN", 600)
        assert quick(walltime=600).result() == 1
        monkeypatch.setattr(timing._Clock, "start", lambda clock: clocks.append(clock))
        assert isinstance(endless(walltime=0.05).exception(), AppTimeout)


class TestTheRunBelow:
    def test_an_app_can_be_bound_to_a_run_that_is_not_loaded(self) -> None:
        with DataFlowKernel(flowcore.Config(executors=[ThreadPoolExecutor()])) as kernel:
            app = python_app(data_flow_kernel=kernel)(lambda: 1)
            assert app().result() == 1

    def test_a_plain_executor_future_has_the_cheap_kind(self, kernel: DataFlowKernel) -> None:
        future = python_app(lambda: 1)()
        assert isinstance(future, TaskFuture)
        assert future.result() == 1
