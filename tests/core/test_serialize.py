"""Calls, results and exceptions as bytes: what comes back, by value or by reference, and what cannot."""

from __future__ import annotations

import functools
import gc
import pickle
import subprocess
import sys
import threading
import traceback
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import FlowcoreError
from flowcore.serialize import (
    DeserializationError,
    FunctionCache,
    RemoteExceptionError,
    SerializationError,
    deserialize,
    dumps,
    loads,
    pack_apply_message,
    pack_exception,
    serialize,
    unpack_apply_message,
    unpack_exception,
)
from flowcore.serialize.pickling import OUT_OF_BAND, importable, pieces_of_call

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


class Local:
    """A class that only this process can import."""

    def __init__(self, value):
        self.value = value


@given(plain)
def test_plain_values_come_back(value):
    assert deserialize(serialize(value)) == value


@given(st.lists(plain), st.dictionaries(st.text(), plain))
def test_arguments_come_back(args, kwargs):
    assert loads(b"".join(pieces_of_call(tuple(args), kwargs))) == (tuple(args), kwargs)


def test_a_whole_call_comes_back():
    func, args, kwargs = unpack_apply_message(pack_apply_message(pow, [2, 3], {"mod": 5}))
    assert func(*args, **kwargs) == 3


def test_importable_modules_are_told_from_others():
    assert importable("json")
    assert importable("flowcore.serialize.pickling")
    assert importable("numpy")
    assert not importable("__main__")
    assert not importable(None)
    made = types.ModuleType("made_on_the_fly")
    sys.modules["made_on_the_fly"] = made
    try:
        assert not importable("made_on_the_fly")
    finally:
        del sys.modules["made_on_the_fly"]


def test_functions_of_importable_modules_travel_by_reference():
    assert len(dumps(subprocess.run)) < 100


def run_elsewhere(blob, tmp_path):
    """Load a function in a process that cannot import this module, and return what it returns."""
    (tmp_path / "blob").write_bytes(blob)
    code = "import pickle; f = pickle.load(open('blob', 'rb')); print(f())"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    return found.stdout.strip()


def test_a_class_of_a_script_travels_by_value(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from flowcore.serialize import dumps\n"
        "class Thing:\n    value = 7\n"
        "def use(): return Thing.value\n"
        "open('blob', 'wb').write(dumps(use))\n"
    )
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=True)
    assert run_elsewhere((tmp_path / "blob").read_bytes(), tmp_path) == "7"


def test_a_lambda_travels_by_value(tmp_path):
    offset = 4
    assert run_elsewhere(dumps(lambda: 3 + offset), tmp_path) == "7"


def test_tracebacks_of_what_travels_by_value_show_the_lines_of_its_file(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("def outer():\n    def inner():\n        raise LookupError('here')\n    inner()\n")
    names = {"__name__": "__main__"}
    exec(compile(script.read_text(), str(script), "exec"), names)
    copy = loads(dumps(names["outer"]))
    assert copy is not names["outer"]
    with pytest.raises(LookupError) as caught:
        copy()
    *_, outer, inner = traceback.extract_tb(caught.value.__traceback__)
    assert [(frame.filename, frame.lineno) for frame in (outer, inner)] == [(str(script), 4), (str(script), 3)]
    assert inner.line == "raise LookupError('here')"


def test_large_buffers_travel_beside_the_pickle_and_small_ones_inside():
    large, small = np.zeros(OUT_OF_BAND, dtype=np.uint8), np.zeros(10, dtype=np.uint8)
    buffers = []
    blob = dumps([large, small], buffers)
    assert [memoryview(buffer).nbytes for buffer in buffers] == [OUT_OF_BAND]
    assert len(blob) < 1000
    back = loads(blob, buffers)
    assert np.array_equal(back[0], large)
    assert np.array_equal(back[1], small)


def test_large_buffers_of_things_that_travel_by_value_are_kept_too():
    buffers = []
    big = np.zeros(OUT_OF_BAND, dtype=np.uint8)
    blob = dumps((lambda: 1, big), buffers)
    assert len(buffers) == 1
    func, back = loads(blob, buffers)
    assert func() == 1
    assert np.array_equal(back, big)


def test_what_does_not_pickle_says_so():
    with pytest.raises(SerializationError, match="lock"):
        serialize(threading.Lock())
    with pytest.raises(SerializationError, match="pow"):
        pack_apply_message(pow, [threading.Lock()], {})
    assert issubclass(SerializationError, FlowcoreError)


@given(st.binary(max_size=50))
def test_garbage_is_an_error_of_its_own(data):
    try:
        deserialize(data)
    except DeserializationError:
        pass


def test_errors_pickle():
    for error in (
        SerializationError("f", "r"),
        DeserializationError("w", "r"),
        RemoteExceptionError("T", "m", "t", "r"),
    ):
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back)) == (type(error), str(error))


# Functions, pickled once.


def make_cache():
    released = []
    return FunctionCache(released.append), released


def test_a_function_is_pickled_once():
    cache, _ = make_cache()

    def func():
        return 1

    first = cache.entry(func)
    assert cache.entry(func) is first
    assert loads(first.blob)() == 1
    assert cache.entry(subprocess.run) is cache.entry(subprocess.run)
    assert cache.entry(len).name == "len"


def test_callables_with_a_state_are_not_cached():
    cache, _ = make_cache()
    for one in (functools.partial(pow, 2), "text".upper, Local(1).__init__):
        assert cache.entry(one) is None or one == "text".upper


def test_a_function_that_nobody_needs_is_released():
    cache, released = make_cache()

    def func():
        return 1

    number = cache.entry(func).number
    del func
    gc.collect()
    assert released == [number]


def test_a_function_that_a_task_needs_is_kept():
    cache, released = make_cache()
    entry = cache.entry(eval("lambda: 1"))
    gc.collect()
    assert released == []
    del entry
    gc.collect()
    assert len(released) == 1


@pytest.mark.parametrize("change", ["global", "nested", "default", "closure", "code"])
def test_what_a_function_captures_is_looked_at_again(change):
    cache, _ = make_cache()
    space = {"x": 1}
    exec(
        "def make(y):\n def func(z=3):\n  return (x, y, z, (lambda: w)() if z < 0 else 0)\n"
        " return func, lambda v: None",
        space,
    )
    func = space["make"](2)[0]
    first = cache.entry(func)
    if change == "global":
        space["x"] = 10
    elif change == "nested":
        space["w"] = 10
    elif change == "default":
        func.__defaults__ = (30,)
    elif change == "closure":
        func.__closure__[0].cell_contents = 20
    else:
        func.__code__ = func.__code__.replace(co_name="renamed")
    second = cache.entry(func)
    assert second is not first
    assert second.number != first.number
    assert loads(second.blob)()[:3] == func()[:3]
    assert cache.entry(func) is second


# Exceptions.


class Odd(Exception):
    def __init__(self, one, *, two):
        super().__init__(f"{one}{two}")
        self.one = one


class Broken(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    def __reduce__(self):
        raise RuntimeError("no pickle")


def raised(error, cause=None):
    try:
        if cause is not None:
            raise error from cause
        raise error
    except BaseException as caught:
        return caught


def test_an_exception_comes_back_with_its_chain():
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer", 2) from inner
    except ValueError as error:
        packed = pack_exception(error)
    back = unpack_exception(packed)
    assert type(back) is ValueError
    assert back.args == ("outer", 2)
    assert type(back.__cause__) is KeyError
    assert back.__suppress_context__
    text = "".join(traceback.format_exception(type(back), back, back.__traceback__))
    assert "The above exception was the direct cause" in text
    assert 'raise KeyError("inner")' in text


def test_a_context_is_kept_apart_from_a_cause():
    try:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer")  # noqa: B904
    except ValueError as error:
        back = unpack_exception(pack_exception(error))
    assert back.__cause__ is None
    assert type(back.__context__) is KeyError


def test_a_cycle_of_causes_comes_back_as_a_cycle():
    one, other = raised(ValueError(1)), raised(ValueError(2))
    one.__cause__, other.__cause__ = other, one
    back = unpack_exception(pack_exception(one))
    assert back.__cause__.__cause__ is back


def test_a_very_long_chain_is_cut():
    error = raised(ValueError(0))
    for n in range(1, 200):
        error = raised(ValueError(n), error)
    back = unpack_exception(pack_exception(error))
    assert back.args == (199,)


def test_a_deep_recursion_is_cut_in_its_middle():
    def deeper(n):
        if n == 0:
            raise ValueError("bottom")
        deeper(n - 1)

    error = raised(ValueError())
    try:
        deeper(400)
    except ValueError as caught:
        error = caught
    back = unpack_exception(pack_exception(error))
    assert 10 < len(traceback.extract_tb(back.__traceback__)) < 100


def test_an_exception_whose_constructor_takes_something_else_comes_back():
    back = unpack_exception(pack_exception(raised(Odd(1, two=2))))
    assert type(back) is Odd
    assert back.args == ("12",)
    assert back.one == 1


def test_an_exception_that_nothing_can_be_done_with_is_described():
    error = raised(Broken())
    error.held = threading.Lock()
    back = unpack_exception(pack_exception(error))
    assert type(back) is RemoteExceptionError
    assert back.type_name.endswith("Broken")
    assert back.message == "<its __str__ raises>"
    assert "no pickle" in back.reason


def test_an_exception_that_would_end_a_process_is_described():
    back = unpack_exception(pack_exception(raised(SystemExit(3))))
    assert type(back) is RemoteExceptionError
    assert "SystemExit: 3" in str(back)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with 3.11")
def test_notes_are_kept():
    error = ValueError("x")
    error.add_note("more")
    assert unpack_exception(pack_exception(raised(error))).__notes__ == ["more"]


def test_the_packer_leaves_out_its_own_frames():
    def outer():
        inner()

    def inner():
        raise ValueError("x")

    try:
        outer()
    except ValueError as error:
        back = unpack_exception(pack_exception(error, skip=1))
    assert [frame.name for frame in traceback.extract_tb(back.__traceback__)] == ["outer", "inner"]


def test_importing_flowcore_and_its_serializer_is_light():
    code = (
        "import sys, flowcore, flowcore.serialize, flowcore.serialize.pickling, flowcore.serialize.exceptions\n"
        "heavy = ('cloudpickle', 'zmq', 'attr', 'attrs', 'pluggy', 'logging', 'asyncio')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
