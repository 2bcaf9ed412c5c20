"""Memoization: which calls are equal, what is remembered, and for how long."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import logging
import subprocess
import sys
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.app.base import CoroutineCall
from flowcore.app.shell import BashCall
from flowcore.app.timing import TimedCall
from flowcore.data_provider.files import File
from flowcore.dataflow.errors import DependencyError, JoinError
from flowcore.dataflow.identity import hash_of_call
from flowcore.dataflow.memoization import BasicMemoizer, id_for_memo
from flowcore.errors import ShutdownError
from flowcore.executors.errors import TaskLost

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), st.text(), st.binary(max_size=50)
)
hashable = st.one_of(scalars, st.tuples(scalars), st.frozensets(scalars, max_size=3))
values = st.recursive(
    st.one_of(scalars, st.sets(hashable, max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner), st.dictionaries(hashable, inner, max_size=3)
    ),
    max_leaves=8,
)


class Pair(NamedTuple):
    a: object
    b: object


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0
    note: object = dataclasses.field(default=None, compare=False)


@attrs.define
class Vector:
    x: float
    note: object = attrs.field(default=None, eq=False)


class Opaque:
    pass


class ListOfMine(list):
    pass


def double(x):
    return 2 * x


class Task:
    """As much of a task's record as a memoizer sees."""

    def __init__(self, func=double, *args, memoize=True, ignore_for_cache=(), **kwargs):
        self.func, self.args, self.kwargs = func, args, kwargs
        self.memoize, self.ignore_for_cache = memoize, ignore_for_cache
        self.id, self.hashsum, self.from_memo = 0, None, None


@pytest.fixture
def memoizer(tmp_path):
    memoizer = BasicMemoizer()
    memoizer.start(tmp_path / "000", tmp_path)
    yield memoizer
    memoizer.close()


def hash_of(func, *args, ignore=(), **kwargs):
    return hash_of_call(func, args, kwargs, ignore)


def remembered(memoizer, task, result):
    assert memoizer.check_memo(task) is None
    memoizer.update_memo_result(task, result)


def rebuilt(value):
    """An equal value that shares nothing, with dicts and sets filled in the opposite order."""
    if type(value) is dict:
        return {rebuilt(key): rebuilt(value[key]) for key in reversed(list(value))}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(
            [rebuilt(item) for item in (reversed(list(value)) if isinstance(value, (set, frozenset)) else value)]
        )
    return value


def told(value):
    """A text that is the same for the same content: sets and dicts sorted, and nan being what it is."""
    if type(value) is dict:
        return f"dict{sorted((told(key), told(item)) for key, item in value.items())}"
    if type(value) in (list, tuple):
        return f"{type(value).__name__}{[told(item) for item in value]}"
    if type(value) in (set, frozenset):
        return f"{type(value).__name__}{sorted(map(told, value))}"
    return repr(value)


@given(values)
def test_equal_values_give_equal_bytes_whatever_the_order_they_were_built_in(value):
    assert id_for_memo(rebuilt(value)) == id_for_memo(value)


@given(values, values)
def test_values_with_equal_bytes_are_equal(one, other):
    if id_for_memo(one) == id_for_memo(other):
        assert told(one) == told(other) or one == other


def test_sets_are_one_value_in_any_order_even_where_nan_is_in_them():
    one, other = {float("nan"), "x", "y"}, {"y", "x", float("nan")}
    assert one != other
    assert told(one) == told(other)
    assert id_for_memo(one) == id_for_memo(other)


def test_things_that_look_alike_are_told_apart():
    alike = [1, 1.0, True, "1", b"1", bytearray(b"1"), 1j, decimal.Decimal(1), None, "None", "", b""]
    alike += [[1], (1,), {1}, frozenset({1}), {1: 1}, [[1]], [1, 1], [], (), {}, set(), range(3)]
    alike += [["ab", "c"], ["a", "bc"], ["abc"], Pair(1, 2), (1, 2), Point(1, 2), Vector(1), Color.RED]
    alike += [OrderedDict(a=1, b=2), OrderedDict(b=2, a=1), {"a": 1, "b": 2}]
    alike += [Path("a"), "a", File("a"), File("/a"), File("http://h/a")]
    alike += [dt.date(2020, 1, 1), dt.datetime(2020, 1, 1), dt.timedelta(1), dt.time(1)]
    alike += [double, len, Point, functools.partial(double, 1), [].append, [1].append]
    ids = [id_for_memo(value) for value in alike]
    assert len(set(ids)) == len(alike)


def test_what_does_not_count_in_comparisons_does_not_count_here():
    assert id_for_memo(Point(1, 2, note=Opaque())) == id_for_memo(Point(1, 2))
    assert id_for_memo(Vector(1, note=Opaque())) == id_for_memo(Vector(1))
    assert id_for_memo(File("file:///a%20b")) == id_for_memo(File("/a b"))


@pytest.mark.parametrize("unknown", [Opaque(), [Opaque()], {"a": {1: Opaque()}}, ListOfMine(), object()])
def test_an_unknown_type_is_a_value_error_that_tells_the_way_out(unknown):
    with pytest.raises(ValueError, match=r"unknown type for memoization(.|\n)*id_for_memo.register"):
        id_for_memo(unknown)


def test_a_container_that_contains_itself_is_a_value_error():
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="unknown type for memoization"):
        id_for_memo(endless)
    assert id_for_memo([[], []])


def test_a_type_can_be_taught_and_is_then_known_inside_containers_too():
    class Molecule:
        def __init__(self, formula):
            self.formula = formula

    told = []

    @id_for_memo.register(Molecule)
    def _(molecule, output_ref=False):
        told.append(output_ref)
        return id_for_memo(molecule.formula)

    assert id_for_memo([Molecule("H2O")]) == id_for_memo([Molecule("H2O")])
    assert id_for_memo([Molecule("H2O")]) != id_for_memo([Molecule("CO2")])
    hash_of(double, outputs=[Molecule("H2O")])
    assert told == [False, False, False, False, True]


def test_numpy_values_count_with_type_shape_and_content():
    numpy = pytest.importorskip("numpy")
    square = numpy.arange(4.0).reshape(2, 2)
    assert id_for_memo(square) == id_for_memo(square.copy(order="F"))
    different = [square, square.T, square.ravel(), square.astype("f4"), square + 1, numpy.float64(1), numpy.int8(1)]
    different += [numpy.array([1, "a"], dtype=object), numpy.array([1, "b"], dtype=object), 1.0]
    different += [numpy.array(["2020-01-01"], dtype="M8[D]"), numpy.zeros(1, dtype=[("a", "i4")])]
    assert len({id_for_memo(value) for value in different}) == len(different)
    with pytest.raises(ValueError, match="unknown type"):
        id_for_memo(numpy.array([Opaque()], dtype=object))


def test_a_function_counts_with_its_name_code_defaults_and_closure():
    def make(text, name="f"):
        namespace = {"__name__": "module"}
        exec(text, namespace)
        return namespace[name]

    base = "def f(x, k=1):\n    return x + k"
    assert id_for_memo(make(base)) == id_for_memo(make("# a comment\n\n" + base))
    edited = [base, base.replace("+", "-"), base.replace("k=1", "k=2"), "def f(x, k=1):\n    return x + k + 1"]
    edited += ["def f(x, k=1):\n    return [y + k for y in x]", "def f(x, k=1):\n    return [y - k for y in x]"]
    edited += [
        "def make(n):\n    def f(): return n\n    return f\nf = make(1)",
        "def make(n):\n    def f(): return n\n    return f\nf = make(2)",
    ]
    assert len({id_for_memo(make(text)) for text in edited}) == len(edited)
    assert id_for_memo(make(base)) != id_for_memo(make(base.replace("def f", "def g"), "g"))


def test_recursive_closures_and_strange_defaults_do_not_hinder():
    def outer():
        def even(n):
            return n == 0 or odd(n - 1)

        def odd(n):
            return n != 0 and even(n - 1)

        return even

    def strange(x, default=Opaque()):  # noqa: B008 - as users do
        return x, default

    assert id_for_memo(outer()) == id_for_memo(outer())
    assert id_for_memo(strange) == id_for_memo(strange)


def test_callable_objects_count_with_their_attributes():
    class Call:
        def __init__(self, function, flags=frozenset()):
            self.function, self.flags = function, flags

        def __call__(self, *args):
            return self.function(*args)

    assert hash_of(Call(double), 1) == hash_of(Call(double), 1)
    hashes = {
        hash_of(Call(double), 1),
        hash_of(Call(len), 1),
        hash_of(Call(double, frozenset("a")), 1),
        hash_of(double, 1),
    }
    assert len(hashes) == 4
    assert hash_of(functools.partial(Call(double)), 1) == hash_of(functools.partial(Call(double)), 1)


def test_slots_of_callable_objects_are_attributes_too():
    class Scale:
        __slots__ = ("__factor", "offset", "unset")

        def __init__(self, factor):
            self.__factor = factor

        def __call__(self, x):
            return self.__factor * x

    class Shift(Scale):
        def __init__(self, factor, offset):
            super().__init__(factor)
            self.offset = offset
            self.other = 1

    assert hash_of(Scale(1), 1) == hash_of(Scale(1), 1)
    assert hash_of(Scale(1), 1) != hash_of(Scale(2), 1)
    assert hash_of(Shift(1, 1), 1) == hash_of(Shift(1, 1), 1)
    assert len({hash_of(Shift(1, 1), 1), hash_of(Shift(2, 1), 1), hash_of(Shift(1, 2), 1)}) == 3


def test_what_only_describes_a_callable_object_does_not_count_and_what_it_wraps_does():
    class Wrapper:
        def __init__(self, function):
            functools.update_wrapper(self, function)

        def __call__(self, *args):
            return self.__wrapped__(*args)

    def make(summand, annotation=None):
        def add(x: annotation):
            return x + summand

        add.__annotations__["x"] = annotation
        return add

    plain, annotated = Wrapper(make(1)), Wrapper(make(1, list[int]))
    annotated.__doc__ = "Add one."
    assert hash_of(plain, 1) == hash_of(annotated, 1)
    assert hash_of(plain, 1) != hash_of(Wrapper(make(2)), 1)


def test_hashes_are_the_same_in_another_process():
    program = (
        "from flowcore.dataflow.identity import hash_of_call\n"
        "def f(x): return x in {'a', 'b', 'c'}\n"
        "print(hash_of_call(f, ({'a', 'b', 'c'}, {'x': 1, 'y': b'2'}), {'k': frozenset('abc')}, ()))\n"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True, timeout=60
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


def test_order_of_keywords_does_not_count_and_their_names_do():
    assert hash_of(double, a=1, b=2) == hash_of(double, b=2, a=1)
    assert hash_of(double, a=1) != hash_of(double, b=1)
    assert hash_of(double, 1, 2) != hash_of(double, 2, 1)


def test_ignored_parameters_do_not_count_wherever_they_are_passed():
    def app(x, verbose=False, stdout=None):
        return x

    assert hash_of(app, 1, stdout="a", ignore=["stdout"]) == hash_of(app, 1, stdout="b", ignore=["stdout"])
    assert hash_of(app, 1, stdout="a", ignore=["stdout"]) == hash_of(app, 1, ignore=["stdout"])
    assert hash_of(app, 1, True, ignore=["verbose"]) == hash_of(app, 1, False, ignore=["verbose"])
    assert hash_of(app, 1, True, ignore=["verbose"]) != hash_of(app, 2, True, ignore=["verbose"])
    assert hash_of(app, 1, Opaque(), stdout=Opaque(), ignore=["verbose", "stdout"])


def app(x, verbose=False):
    return x


@functools.wraps(app)
def wrapped(*args, **kwargs):
    return app(*args, **kwargs)


class Callable:
    def __call__(self, x, verbose=False):
        return x


@pytest.mark.parametrize(
    "func",
    [app, wrapped, Callable(), functools.partial(app), TimedCall(wrapped, 60), CoroutineCall(app)],
    ids=lambda func: type(func).__name__,
)
def test_ignored_parameters_do_not_count_whatever_kind_of_callable_has_them(func):
    assert hash_of(func, 1, True, ignore=["verbose"]) == hash_of(func, 1, False, ignore=["verbose"])
    assert hash_of(func, 1, True, ignore=["verbose"]) != hash_of(func, 2, True, ignore=["verbose"])


def test_a_walltime_counts_unless_it_is_ignored():
    bash = functools.partial(BashCall, app, frozenset())
    assert hash_of(app, 1) != hash_of(TimedCall(app, 60), 1) != hash_of(TimedCall(app, 30), 1)
    assert hash_of(bash(), 1) != hash_of(bash(60), 1) != hash_of(bash(30), 1)
    assert hash_of(app, 1, ignore=["walltime"]) == hash_of(TimedCall(app, 60), 1, ignore=["walltime"])
    assert hash_of(bash(), 1, ignore=["walltime"]) == hash_of(bash(60), 1, ignore=["walltime"])


def test_an_equal_call_finds_the_result(memoizer):
    remembered(memoizer, Task(double, 3), 6)
    task = Task(double, 3)
    assert memoizer.check_memo(task).result(0) == 6
    assert task.from_memo is True
    assert memoizer.check_memo(Task(double, 4)) is None


def test_a_failure_is_remembered_as_the_identical_exception(memoizer):
    task, error = Task(double, 3), ValueError("no")
    assert memoizer.check_memo(task) is None
    memoizer.update_memo_exception(task, error)
    assert memoizer.check_memo(Task(double, 3)).exception(0) is error


@pytest.mark.parametrize(
    "error",
    [
        TaskLost(),
        ShutdownError(),
        JoinError([(TaskLost(), "task 1")], 0),
        JoinError([(DependencyError([(TaskLost(), "task 2")], 1), "task 1")], 0),
    ],
)
def test_a_failure_of_the_machine_is_not_remembered(memoizer, error):
    task = Task(double, 3)
    assert memoizer.check_memo(task) is None
    memoizer.update_memo_exception(task, error)
    assert memoizer.check_memo(Task(double, 3)) is None


def test_a_join_that_failed_by_the_code_of_its_parts_is_remembered(memoizer):
    task, error = Task(double, 3), JoinError([(ValueError("no"), "task 1")], 0)
    assert memoizer.check_memo(task) is None
    memoizer.update_memo_exception(task, error)
    assert memoizer.check_memo(Task(double, 3)).exception(0) is error


def test_a_later_success_takes_the_place_of_a_failure_and_not_the_reverse(memoizer):
    first, second, third = Task(double, 3), Task(double, 3), Task(double, 3)
    assert [memoizer.check_memo(task) for task in (first, second, third)] == [None, None, None]
    memoizer.update_memo_exception(first, ValueError("no"))
    memoizer.update_memo_result(second, 6)
    memoizer.update_memo_exception(third, ValueError("no"))
    assert memoizer.check_memo(Task(double, 3)).result(0) == 6


def test_an_argument_of_unknown_type_is_an_error_of_that_lookup_only(memoizer):
    task = Task(double, Opaque())
    with pytest.raises(ValueError, match="unknown type for memoization"):
        memoizer.check_memo(task)
    assert task.hashsum is None
    memoizer.update_memo_exception(task, ValueError())
    remembered(memoizer, Task(double, 3), 6)


@pytest.mark.parametrize(("everywhere", "here"), [(False, True), (True, False)])
def test_without_memoization_nothing_is_looked_up_and_nothing_hashed(tmp_path, everywhere, here):
    memoizer = BasicMemoizer(memoize=everywhere)
    memoizer.start(tmp_path / "000", tmp_path)
    for _ in range(2):
        task = Task(double, Opaque(), memoize=here)
        assert memoizer.check_memo(task) is None
        assert task.hashsum is None
        memoizer.update_memo_result(task, 6)
    memoizer.close()


def test_many_threads_may_ask_and_tell_at_once(memoizer):
    barrier = threading.Barrier(8)

    def work(worker):
        barrier.wait(30)
        for n in range(100):
            task = Task(double, n)
            outcome = memoizer.check_memo(task)
            if outcome is None:
                memoizer.update_memo_result(task, 2 * n)
            else:
                assert outcome.result(0) == 2 * n

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [None] * 8
    assert [memoizer.check_memo(Task(double, n)).result(0) for n in range(100)] == [2 * n for n in range(100)]


def test_close_is_idempotent_and_needs_no_start(caplog):
    memoizer = BasicMemoizer()
    memoizer.close()
    memoizer.close()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
