"""Nodes, addresses, keys and command lines: what is found, computed and quoted."""

from __future__ import annotations

import ipaddress
import os
import shlex
import stat
import subprocess

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from flowcore_htex import launch
from flowcore_htex.addresses import check_port_range, listen, listen_on_ports, local_addresses, resolve
from flowcore_htex.affinity import check_affinity, worker_cores
from flowcore_htex.curve import prepare_folder, public_key, read_keys, write_keys, z85_decode, z85_encode
from flowcore_htex.log import Log
from flowcore_htex.node import Node, inspect_node, slots_needed, worker_count
from flowcore_htex.version import RELEASE


def test_the_release_is_that_of_the_distribution():
    from importlib.metadata import version

    assert version("flowcore-htex") == version("flowcore") == RELEASE


def test_a_node_is_what_the_environment_allows(tmp_path):
    found = inspect_node({}, str(tmp_path))
    assert found.cores == len(os.sched_getaffinity(0))
    assert found.memory > 0
    assert found.disk > 0
    for prefix in ("FLOWCORE", "PARSL"):
        limited = inspect_node({f"{prefix}_CORES": "3", f"{prefix}_MEMORY_GB": "1.5"}, str(tmp_path))
        assert (limited.cores, limited.memory) == (3, 1500)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 8),
        ({"cores_per_worker": 3}, 2),
        ({"cores_per_worker": 0.5}, 16),
        ({"cores_per_worker": 100}, 1),
        ({"max_workers": 5}, 5),
        ({"mem_per_worker": 1500}, 2),
        ({"accelerators": ["a", "b", "c"]}, 3),
        ({"cores_per_worker": 0.1}, 80),
    ],
)
def test_the_tightest_bound_decides_how_many_workers_there_are(options, expected):
    node = Node(8, 4000, 1000, ())
    defaults = {"max_workers": float("inf"), "cores_per_worker": 1, "mem_per_worker": None, "accelerators": []}
    assert worker_count(node, **{**defaults, **options}) == expected


def test_what_fractions_of_gigabytes_lose_costs_no_worker(tmp_path):
    node = inspect_node({"FLOWCORE_CORES": "8", "FLOWCORE_MEMORY_GB": "2.01"}, str(tmp_path))
    options = {"max_workers": 8, "cores_per_worker": 1, "mem_per_worker": 670, "accelerators": []}
    assert worker_count(node, **options) == 3


@pytest.mark.parametrize(
    ("need", "expected"),
    [
        ({}, 1),
        ({"cores": 2}, 1),
        ({"cores": 3}, 2),
        ({"memory": 900}, 1),
        ({"memory": 1100}, 2),
        ({"gpus": 3}, 3),
        ({"walltime": 9}, 1),
    ],
)
def test_a_request_takes_as_many_slots_as_its_largest_part(need, expected):
    assert slots_needed(need, 2, 1000, accelerators_bound=True) == expected


@given(st.sampled_from(["block", "block-reverse", "alternating"]), st.integers(1, 16), st.integers(1, 64))
def test_workers_share_the_cores_without_overlap_where_there_are_enough(strategy, workers, count):
    shares = [worker_cores(strategy, rank, workers, range(count)) for rank in range(workers)]
    assert all(shares)
    assert all(core < count for share in shares for core in share)
    if count >= workers:
        flat = [core for share in shares for core in share]
        assert len(flat) == len(set(flat))


def test_listed_cores_are_used_as_they_stand():
    assert worker_cores("list:0-2:5,7-8", 0, 2, range(9)) == [0, 1, 2]
    assert worker_cores("list:0-2:5,7-8", 1, 2, range(9)) == [5, 7, 8]
    assert worker_cores("none", 0, 2, range(9)) == []
    for text in ("list:", "list:1-", "list:a", "List:1", ""):
        with pytest.raises(ValueError, match="cpu_affinity"):
            check_affinity(text)


def test_local_addresses_are_literals_and_loopback_comes_last():
    found = [ipaddress.ip_address(address) for address in local_addresses()]
    assert found
    loopback = [address.is_loopback for address in found]
    assert loopback == sorted(loopback)
    assert ipaddress.ip_address("127.0.0.1") in found


def test_addresses_are_resolved_or_refused():
    assert resolve("::1") == "::1"
    assert resolve("127.0.0.1") == "127.0.0.1"
    assert ipaddress.ip_address(resolve("localhost")).is_loopback
    for bad in ("no.such.host.invalid", "999.1.1.1", ""):
        with pytest.raises(ValueError, match="no IP address"):
            resolve(bad)


def test_a_range_gives_one_port_and_a_full_one_says_so():
    (one,) = listen_on_ports("127.0.0.1", [], (40000, 41000))
    port = one.getsockname()[1]
    assert 40000 <= port < 41000
    with pytest.raises(OSError, match="no port from"):
        listen_on_ports("127.0.0.1", [], (port, port + 1))
    one.close()


def test_all_interfaces_are_listened_on_where_no_address_is_given():
    sock = listen(None, 0)
    port = sock.getsockname()[1]
    import socket

    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    sock.close()


def test_port_ranges_are_checked():
    assert check_port_range("p", [2000, 3000]) == (2000, 3000)
    for bad in ((3000, 2000), (80, 100), (2000, 70000), (1,), None, "ab"):
        with pytest.raises(ValueError, match="p"):
            check_port_range("p", bad)


def test_public_keys_are_those_of_zeromq():
    for _ in range(5):
        secret = os.urandom(32)
        assert z85_encode(public_key(secret)) == zmq.curve_public(z85_encode(secret))


@given(st.binary(max_size=64).map(lambda data: data[: len(data) // 4 * 4]))
def test_z85_comes_back(data):
    assert z85_decode(z85_encode(data)) == data


def test_keys_are_private_and_can_be_read_back(tmp_path):
    folder = prepare_folder(tmp_path / "keys")
    keys = write_keys(folder)
    assert read_keys(str(folder)) == keys
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    (folder / "client_secret").write_bytes(b"short")
    with pytest.raises(ValueError, match="damaged"):
        read_keys(str(folder))


@pytest.mark.parametrize("value", ["a b", "it's", '$HOME `id` \\ "x"', "", "\u00e9\n"])
def test_values_survive_the_shell(value):
    command = launch.manager_command("printf %s {label} {block_id}", {"label": value}, "7")
    assert subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout == value + "7"


def test_templates_are_checked():
    assert launch.check_template("t", "{a} {{b}}", {"a": 1}) == "{a} {{b}}"
    for bad in ("{b}", "{", "", "{a.b}", "{}"):
        with pytest.raises(ValueError, match="t="):
            launch.check_template("t", bad, {"a": 1})


def test_a_container_runtime_is_looked_for_in_order_or_named():
    text = launch.containerized("image", "true 'x y'", ["/run dir"], ["A"])
    places = [text.index(f"command -v {name}") for name in launch.RUNTIMES]
    assert places == sorted(places)
    assert shlex.quote("/run dir:/run dir") in text
    named = launch.containerized("podman://image:2", "true", [], ["A"])
    assert "command -v podman" in named
    assert "command -v docker" not in named
    kept = launch.containerized("library://image", "true", [], [])
    assert "library://image" in kept


def test_a_log_that_cannot_be_written_is_silent(tmp_path):
    Log(str(tmp_path / "file" / "log"), 20).info("made")
    assert "INFO made" in (tmp_path / "file" / "log").read_text()
    (tmp_path / "taken").write_text("")
    Log(str(tmp_path / "taken" / "log"), 20).error("nowhere")
    Log("/dev/full", 20).error("no space")
    Log(None, None).error("switched off")
