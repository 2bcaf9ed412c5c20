"""Each constructor parameter has a test that is named after it; bad values are refused where they are given."""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path

import pytest

from flowcore.errors import ConfigurationError, FlowcoreError
from flowcore_htex.executor import HighThroughputExecutor
from flowcore_htex.matching import RandomManagerSelector

PARAMETERS = inspect.signature(HighThroughputExecutor).parameters

PAGE = {
    "label": "HighThroughputExecutor",
    "provider": None,
    "launch_cmd": None,
    "address": None,
    "worker_ports": None,
    "worker_port_range": (54000, 55000),
    "interchange_port_range": (55000, 56000),
    "storage_access": None,
    "working_dir": None,
    "worker_debug": False,
    "cores_per_worker": 1,
    "mem_per_worker": None,
    "max_workers": math.inf,
    "prefetch_capacity": 0,
    "heartbeat_threshold": 120,
    "heartbeat_period": 30,
    "poll_period": 10,
    "address_probe_timeout": 30,
    "worker_logdir_root": None,
    "container_image": None,
    "encrypted": None,
    "cert_dir": None,
}
"""The specification page's signature."""

BEYOND_THE_PAGE = {
    "interchange_launch_cmd",
    "loopback_address",
    "worker_port",
    "cpu_affinity",
    "available_accelerators",
    "drain_period",
    "manager_selector",
    "block_error_handler",
    "max_workers_per_node",
    "remote_monitoring_radio",
}


def test_every_parameter_has_a_test_that_is_named_after_it():
    named = set()
    for path in Path(__file__).parent.glob("test_parameters_*.py"):
        for test in re.findall(r"^def test_(\w+)\(", path.read_text(), re.MULTILINE):
            named.add(max((name for name in PARAMETERS if test.startswith(f"{name}_")), key=len, default=""))
    assert PARAMETERS.keys() - named == set()


def test_the_order_and_the_defaults_of_the_page_hold():
    positional = [one for one in PARAMETERS.values() if one.kind is one.POSITIONAL_OR_KEYWORD]
    assert [(one.name, one.default) for one in positional] == list(PAGE.items())


def test_what_the_page_lacks_is_given_by_keyword():
    keyword = {one.name for one in PARAMETERS.values() if one.kind is one.KEYWORD_ONLY}
    assert keyword == BEYOND_THE_PAGE


def test_all_of_the_page_can_be_given_by_position():
    values = {**PAGE, "label": "mine", "max_workers": 3, "heartbeat_period": 7}
    executor = HighThroughputExecutor(*values.values())
    assert (executor.label, executor.options.max_workers, executor.options.heartbeat_period) == ("mine", 3, 7)


BAD = {
    "label": ["", "a/b", "..", 3],
    "provider": ["local"],
    "launch_cmd": ["", "start {nonsense}", "start {", ["python", "-m", "flowcore_htex.manager"]],
    "interchange_launch_cmd": ["", [], 5, "start 'unbalanced"],
    "address": ["", "no-such-host.invalid", "256.1.1.1", 5],
    "loopback_address": ["no-such-host.invalid"],
    "worker_ports": [54000, (54000,), (54000, 54000), (54000, 70000), ("54000", "54001")],
    "worker_port": [0, 65536, True, "54000"],
    "worker_port_range": [(55000, 54000), (54000, 54000), (54000,), 54000, (80, 90)],
    "interchange_port_range": [(56000, 55000), (55000, 70000), None],
    "storage_access": ["file", [5]],
    "working_dir": [5],
    "worker_debug": ["yes"],
    "cores_per_worker": [0, -1, math.nan, math.inf, "2"],
    "mem_per_worker": [4, 0, -100, "0GB", "four", math.nan],
    "max_workers": [0, -1, 1.5, math.nan, "2", True],
    "max_workers_per_node": [0],
    "prefetch_capacity": [-1, 1.5, None],
    "heartbeat_threshold": [0, math.nan, math.inf, "120", 30],
    "heartbeat_period": [0, -1, 120],
    "poll_period": [-1, math.inf, "10"],
    "address_probe_timeout": [0, -1, math.inf],
    "worker_logdir_root": ["", 5],
    "container_image": ["", 5],
    "encrypted": ["yes", 2],
    "cert_dir": [5],
    "cpu_affinity": ["blocks", "list:", "list:a-b", "list:3-1", None],
    "available_accelerators": [-1, 1.5, True, "0,1", ["a", "a"]],
    "drain_period": [0, -1],
    "manager_selector": ["random", RandomManagerSelector],
    "block_error_handler": ["simple", None],
    "remote_monitoring_radio": ["udp"],
}

EACH_BAD = [(name, value) for name, values in BAD.items() for value in values]


def test_every_parameter_has_a_value_that_is_refused():
    assert BAD.keys() == PARAMETERS.keys()


@pytest.mark.parametrize(("name", "value"), EACH_BAD, ids=[f"{name}={value!r}" for name, value in EACH_BAD])
def test_a_bad_value_is_refused_by_name(name, value):
    with pytest.raises((ConfigurationError, TypeError, ValueError)) as caught:
        HighThroughputExecutor(**{name: value})
    assert isinstance(caught.value, FlowcoreError)
    assert name in str(caught.value)


CONTRADICTIONS = [
    ({"max_workers": 2, "max_workers_per_node": 3}, ["max_workers", "max_workers_per_node", "give one"]),
    ({"worker_port": 54000, "worker_ports": (54001, 54002)}, ["worker_port", "worker_ports", "give one"]),
    ({"heartbeat_period": 10, "heartbeat_threshold": 5}, ["heartbeat_threshold=5", "heartbeat_period=10"]),
    ({"encrypted": False, "cert_dir": "certificates"}, ["cert_dir", "encrypted=False"]),
]


@pytest.mark.parametrize(
    ("options", "words"), CONTRADICTIONS, ids=[", ".join(options) for options, _ in CONTRADICTIONS]
)
def test_a_contradiction_is_refused_with_both_names(options, words):
    with pytest.raises(ConfigurationError) as caught:
        HighThroughputExecutor(**options)
    for word in words:
        assert word in str(caught.value)


def test_nothing_is_made_by_the_constructor(tmp_path):
    HighThroughputExecutor(cert_dir=tmp_path / "keys", worker_logdir_root=str(tmp_path / "logs"))
    assert list(tmp_path.iterdir()) == []
