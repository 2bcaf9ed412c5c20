"""The resource schema: units, canonical form, refusals that name the key."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore import resources
from flowcore.errors import InvalidResourceSpecification
from flowcore.resources import parse, parse_duration, parse_memory, unhonoured

MEMORY_UNITS = {"B": 1e-6, "kB": 1e-3, "MB": 1, "GB": 1e3, "TB": 1e6, "KiB": 1024 / 1e6, "MiB": 1024**2 / 1e6}

whole = st.integers(min_value=1, max_value=10**6)
amount = st.one_of(
    st.integers(min_value=0, max_value=10**9),
    st.floats(min_value=0, max_value=1e9),
    st.builds("{} {}".format, st.integers(0, 10**6), st.sampled_from(sorted(MEMORY_UNITS))),
    st.builds("{}.{}GiB".format, st.integers(0, 1000), st.integers(0, 999)),
)
duration = st.one_of(
    st.floats(min_value=0.001, max_value=1e8),
    st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=300)),
    st.builds("{:02}:{:02}:{:02}".format, st.integers(0, 999), st.integers(0, 59), st.integers(1, 59)),
)
VALUES = {
    "cores": st.one_of(whole, st.floats(min_value=0.01, max_value=1e6)),
    "memory": amount,
    "disk": amount,
    "gpus": st.integers(0, 64),
    "walltime": duration,
    "priority": st.one_of(st.integers(-100, 100), st.floats(-1e9, 1e9)),
    "num_nodes": whole,
    "ranks_per_node": whole,
    "num_ranks": whole,
    "num_tasks": whole,
    "cores_per_task": whole,
    "gpus_per_task": st.integers(0, 64),
    "running_time_min": duration,
    "category": st.text(),
    "launcher_options": st.text(),
}
specifications = st.fixed_dictionaries({}, optional=VALUES)


def test_every_key_is_covered_here():
    assert set(VALUES) == resources.KEYS


@given(specifications)
def test_parsing_is_idempotent_and_keeps_the_keys(spec):
    once = parse(spec)
    assert parse(once) == once
    assert list(once) == list(spec)


@given(st.integers(0, 10**9), st.sampled_from(sorted(MEMORY_UNITS)), st.sampled_from(["", " "]))
def test_memory_units_scale_exactly(number, unit, gap):
    assert parse_memory(f"{number}{gap}{unit}") == pytest.approx(number * MEMORY_UNITS[unit], rel=1e-12)
    assert parse_memory(f"{number}{unit.lower()}") == parse_memory(f"{number}{unit.upper()}")


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [
        ("16GB", 16000),
        ("500MiB", 524.288),
        ("1.5 TB", 1_500_000),
        ("2G", 2000),
        ("1Gi", 1073.741824),
        ("250", 250),
        (" .5GB ", 500),
        (0.1, 0.1),
    ],
)
def test_memory_is_read_in_megabytes(text, megabytes):
    assert parse_memory(text) == megabytes


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "GB",
        "-1GB",
        "1 XB",
        "1e3MB",
        "1,5GB",
        "inf",
        "nan",
        True,
        None,
        -1,
        math.nan,
        math.inf,
        1j,
        [],
        "9" * 400 + ".5",
    ],
)
def test_memory_that_is_no_amount_is_a_value_error(bad):
    with pytest.raises(ValueError):
        parse_memory(bad)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("02:00:00", 7200),
        ("30:00", 1800),
        ("90:30", 5430),
        ("1-12:00:00", 129600),
        ("00:00:01.5", 1.5),
        ("45", 45),
        (0.25, 0.25),
        (timedelta(minutes=2), 120),
    ],
)
def test_durations_are_read_in_seconds(value, seconds):
    parsed = parse_duration(value)
    assert parsed == seconds
    assert type(parsed) is float


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "1:60",
        "1:60:00",
        "1-24:00:00",
        "1:2:3:4",
        "-1",
        "an hour",
        True,
        None,
        -1,
        timedelta(-1),
        math.inf,
        "9" * 400,
        10**400,
        1e10,
        "3000000:00:00",
        timedelta.max,
    ],
)
def test_durations_that_are_none_are_a_value_error(bad):
    with pytest.raises(ValueError):
        parse_duration(bad)


@given(
    st.sampled_from(sorted(resources.KEYS)),
    st.one_of(
        st.booleans(), st.none(), st.just(math.nan), st.just(math.inf), st.just(-math.inf), st.lists(st.integers())
    ),
)
def test_values_that_mean_nothing_are_refused_with_key_and_value(key, value):
    with pytest.raises(InvalidResourceSpecification) as caught:
        parse({key: value})
    assert list(caught.value.invalid_keys) == [key]
    assert key in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("cores", 0), ("cores", "2"), ("gpus", 1.5), ("gpus", -1), ("num_nodes", 0), ("walltime", 0), ("category", 3)],
)
def test_values_out_of_range_are_refused(key, value):
    with pytest.raises(InvalidResourceSpecification, match=key):
        parse({key: value})


def test_all_faults_are_told_at_once():
    with pytest.raises(InvalidResourceSpecification) as caught:
        parse({"cores": -1, "memroy": 5, "gpus": 1})
    assert set(caught.value.invalid_keys) == {"cores", "memroy"}


def test_an_unknown_key_is_answered_with_the_nearest_known_one():
    with pytest.raises(InvalidResourceSpecification, match="did you mean 'memory'"):
        parse({"memroy": 5})
    with pytest.raises(InvalidResourceSpecification, match="known are category, cores"):
        parse({"zzz": 5})
    with pytest.raises(InvalidResourceSpecification, match="7 is no resource"):
        parse({7: 5})


def test_what_is_no_mapping_is_refused():
    for bad in (None, [], 3, "cores"):
        with pytest.raises(InvalidResourceSpecification, match="mapping"):
            parse(bad)


def test_an_empty_specification_gives_a_new_dict():
    spec = {}
    assert parse(spec) == {}
    assert parse(spec) is not spec


def test_numpy_scalars_become_plain_numbers():
    numpy = pytest.importorskip("numpy")
    parsed = parse({"cores": numpy.float32(0.5), "gpus": numpy.int64(2), "memory": numpy.int32(5)})
    assert {key: type(value) for key, value in parsed.items()} == {"cores": float, "gpus": int, "memory": int}


def test_the_refusal_names_who_would_honour_the_key():
    offers = {"a": {"disk"}, "b": {"disk", "gpus"}, "c": set()}
    said = unhonoured(["disk"], offers, ["c"])
    assert said == "key 'disk' is honoured by executors: a, b; by none of the chosen ones: c"
    assert "no executor of this run: a, b, c" in unhonoured(["memory"], offers)
    apart = unhonoured(["disk", "gpus"], {"a": {"disk"}, "b": {"gpus"}})
    assert apart == "no executor honours all of 'disk', 'gpus' together: a honours disk; b honours gpus"


@pytest.mark.parametrize(
    ("keys", "message", "told"),
    [
        (["cores"], "cores=0: more than 0 is needed", "resource specification: cores=0: more than 0 is needed"),
        (["b", "a"], "too much", "resource specification: 'a', 'b': too much"),
        (["cores"], "", "resource specification: 'cores': invalid"),
    ],
)
def test_the_error_names_each_key_once(keys: list[str], message: str, told: str) -> None:
    assert str(InvalidResourceSpecification(keys, message)) == told
