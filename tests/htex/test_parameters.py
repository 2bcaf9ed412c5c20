"""Every parameter has an effect."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
import time
from pathlib import Path

import pytest
from flowcore_htex.executor import HighThroughputExecutor
from flowcore_htex.matching import BlockIdManagerSelector, RandomManagerSelector

from flowcore.errors import ConfigurationError
from flowcore.executors.errors import ExecutorError
from flowcore.providers import LocalProvider

PATIENCE = 60.0


def environment(*names):
    return [os.environ.get(name) for name in names]


def settings(rig):
    return json.loads((Path(rig.executor.logdir) / "manager.json").read_text())


def over_tcp(**options):
    """Make managers come over TCP: the name of this host, as the manager knows it, is another."""
    return {
        "launch_cmd": "{python} -m flowcore_htex.manager --config {config} --block-id {block_id} --socket_host no",
        **options,
    }


def listening_ports(pid):
    """Return the TCP ports at which a process listens."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = str(descriptor.readlink()) if descriptor.is_symlink() else ""
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                ports.add((address, int(port, 16)))
    return ports


def test_positions_and_defaults_are_those_of_the_specification():
    import inspect

    parameters = list(inspect.signature(HighThroughputExecutor).parameters.values())
    positional = [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == [
        ("label", "HighThroughputExecutor"),
        ("provider", None),
        ("launch_cmd", None),
        ("address", None),
        ("worker_ports", None),
        ("worker_port_range", (54000, 55000)),
        ("interchange_port_range", (55000, 56000)),
        ("storage_access", None),
        ("working_dir", None),
        ("worker_debug", False),
        ("cores_per_worker", 1),
        ("mem_per_worker", None),
        ("max_workers", float("inf")),
        ("prefetch_capacity", 0),
        ("heartbeat_threshold", 120),
        ("heartbeat_period", 30),
        ("poll_period", 10),
        ("address_probe_timeout", 30),
        ("worker_logdir_root", None),
        ("container_image", None),
        ("encrypted", None),
        ("cert_dir", None),
    ]


def test_label_names_the_folder_and_the_thread(start):
    rig = start(label="my label")
    assert rig.executor.label == "my label"
    assert Path(rig.executor.logdir).name == "my label"
    assert "flowcore-htex-client-my label" in {thread.name for thread in threading.enumerate()}
    assert rig.run(pow, 2, 2) == 4


def test_provider_is_this_machine_by_default_and_can_be_given(start):
    assert HighThroughputExecutor().provider.label == "local"
    provider = LocalProvider(init_blocks=2, max_blocks=2, nodes_per_block=1)
    rig = start(provider=provider, max_workers=1)
    naps = [rig.submit(time.sleep, 0.3) for _ in range(2)]
    for nap in naps:
        nap.result(PATIENCE)
    assert sorted(rig.executor.connected_blocks()) == ["0", "1"]


def test_launch_cmd_is_a_template_and_settings_can_be_overridden(start):
    rig = start(
        launch_cmd="env SEEN={label} {python} -m flowcore_htex.manager --config {config} --block-id {block_id} --max-workers 1"
    )
    assert rig.run(environment, "SEEN", "FLOWCORE_WORKER_COUNT") == ["HighThroughputExecutor", "1"]


def test_address_is_where_managers_connect_and_the_only_one_listened_on(start):
    rig = start(**over_tcp(address="127.0.0.1"))
    assert rig.run(pow, 2, 2) == 4
    assert settings(rig)["addresses"] == ["127.0.0.1"]
    assert {address for address, _ in listening_ports(os.getpid())} <= {"0100007F"}
    assert "connected to tcp://127.0.0.1:" in rig.logs()


def test_address_may_be_a_name(start):
    assert HighThroughputExecutor(address="localhost").options.address in ("127.0.0.1", "::1")


def test_without_an_address_any_of_this_host_will_do(start):
    rig = start(**over_tcp())
    assert rig.run(pow, 2, 2) == 4
    assert len(settings(rig)["addresses"]) >= 1


def free_ports(count):
    import socket

    socks = [socket.socket() for _ in range(count)]
    for sock in socks:
        sock.bind(("127.0.0.1", 0))
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


def test_both_worker_ports_are_listened_on(start):
    pair = tuple(free_ports(2))
    rig = start(**over_tcp(worker_ports=pair, address="127.0.0.1"))
    assert settings(rig)["ports"] == list(pair)
    assert {port for _, port in listening_ports(rig.interchange())} >= set(pair)
    assert rig.run(pow, 2, 2) == 4


def test_worker_port_is_the_only_one(start):
    (port,) = free_ports(1)
    rig = start(**over_tcp(worker_port=port, address="127.0.0.1"))
    assert settings(rig)["ports"] == [port]
    assert rig.run(pow, 2, 2) == 4


def test_a_taken_worker_port_is_an_error_of_start(start):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ExecutorError, match=f"port {port} cannot be listened on"):
            start(worker_port=port, address="127.0.0.1")


def test_worker_port_range_is_kept_to(start):
    rig = start(worker_port_range=(54321, 54330))
    assert 54321 <= settings(rig)["ports"][0] < 54330


def test_interchange_port_range_makes_the_connection_a_tcp_one(start):
    rig = start(interchange_port_range=(56100, 56200))
    assert rig.run(pow, 2, 2) == 4
    assert any(56100 <= port < 56200 for _, port in listening_ports(rig.interchange()))


def test_loopback_address_is_where_the_interchange_is_reached(start):
    rig = start(loopback_address="127.0.0.7")
    assert rig.run(pow, 2, 2) == 4
    assert any(address.endswith("0700007F") for address, _ in listening_ports(rig.interchange()))


def test_interchange_launch_cmd_starts_the_interchange(start):
    rig = start(interchange_launch_cmd=["env", "SPECIAL=1", "{python}", "-m", "flowcore_htex.interchange"])
    assert rig.run(pow, 2, 2) == 4
    assert b"SPECIAL=1" in Path(f"/proc/{rig.interchange()}/environ").read_bytes()
    as_text = start(interchange_launch_cmd=f"{sys.executable} -m flowcore_htex.interchange")
    assert as_text.run(pow, 2, 3) == 8


def test_an_interchange_of_ones_own_is_restarted_too(start, wait_for):
    import signal

    rig = start(loopback_address="127.0.0.7")
    futures = [rig.submit(pow, n, 2) for n in range(100)]
    os.kill(rig.interchange(), signal.SIGKILL)
    assert [future.result(PATIENCE) for future in futures] == [n * n for n in range(100)]


def test_storage_access_and_working_dir_are_kept_for_the_staging(start):
    from flowcore.data_provider.staging import Staging

    methods = [Staging()]
    executor = HighThroughputExecutor(storage_access=methods, working_dir="/work")
    assert executor.storage_access == methods
    assert executor.working_dir == "/work"


def test_worker_debug_logs_tasks(start, wait_for):
    quiet, loud = start(), start(worker_debug=True)
    for rig in (quiet, loud):
        rig.run(pow, 2, 2)
    assert wait_for(lambda: "DEBUG" in loud.logs())
    assert "DEBUG" not in quiet.logs()


def test_cores_per_worker_decides_how_many_workers_there_are(start, monkeypatch):
    monkeypatch.setenv("FLOWCORE_CORES", "6")
    rig = start(cores_per_worker=2, max_workers=100)
    assert rig.executor.workers_per_node == 3
    assert rig.run(environment, "FLOWCORE_WORKER_COUNT") == ["3"]


def test_mem_per_worker_decides_how_many_workers_there_are(start, monkeypatch):
    monkeypatch.setenv("FLOWCORE_MEMORY_GB", "8")
    rig = start(mem_per_worker="3.5GB", max_workers=100)
    assert rig.run(environment, "FLOWCORE_WORKER_COUNT") == ["2"]
    assert HighThroughputExecutor(mem_per_worker=4000).options.mem_per_worker == 4000


@pytest.mark.parametrize("name", ["max_workers", "max_workers_per_node"])
def test_max_workers_bounds_the_workers_of_a_node(start, name):
    rig = start(**{"max_workers": float("inf"), "cores_per_worker": 0.1, name: 3})
    assert rig.run(environment, "FLOWCORE_WORKER_COUNT") == ["3"]


def test_prefetch_capacity_is_per_worker(start, wait_for):
    for prefetch, expected in ((0, 2), (3, 8)):
        rig = start(prefetch_capacity=prefetch)
        naps = [rig.submit(time.sleep, 600) for _ in range(20)]
        assert wait_for(lambda rig=rig: rig.held() > 0)
        assert wait_for(lambda rig=rig, expected=expected: rig.held() == expected)
        assert all(nap.cancel() for nap in naps)


def test_poll_period_bounds_how_long_outcomes_wait_for_each_other(start):
    for period, bound in ((0, 5.0), (400, 5.0)):
        rig = start(max_workers=1, prefetch_capacity=50, poll_period=period)
        rig.run(time.sleep, 0.05)
        begin = time.monotonic()
        futures = [rig.submit(time.sleep, 0.05) for _ in range(12)]
        futures[0].result(PATIENCE)
        first = time.monotonic() - begin
        assert first < bound
        if period:
            held = first
        else:
            sent = first
    assert held > sent


def test_address_probe_timeout_ends_a_manager_that_reaches_nobody(start, wait_for):
    rig = start(
        **over_tcp(
            address="127.0.0.1", worker_port_range=(54000, 54500), address_probe_timeout=0.5, block_error_handler=False
        )
    )
    assert rig.run(pow, 2, 2) == 4
    lost = start(
        address_probe_timeout=0.5,
        launch_cmd="{python} -m flowcore_htex.manager --config {config} --block-id {block_id}"
        " --socket_host no --addresses '[\"127.0.0.1\"]' --ports '[9]'",
    )
    assert wait_for(lambda: lost.executor.bad_state_is_set)
    assert "no interchange answered at 127.0.0.1" in str(lost.executor.executor_exception)


def test_worker_logdir_root_holds_the_workers_logs(start, tmp_path, wait_for):
    root = tmp_path / "logs"
    rig = start(worker_logdir_root=str(root))
    rig.run(print, "here")
    assert rig.executor.worker_logdir == str(root / "HighThroughputExecutor")
    assert wait_for(lambda: "here" in "".join(path.read_text() for path in root.rglob("worker-*.log")))


def runtime(folder, name):
    """Make a container runtime that runs the command right here, and says so in the environment."""
    folder.mkdir(exist_ok=True)
    script = folder / name
    script.write_text(
        f'#!/bin/sh\necho "$@" > {folder}/arguments\nwhile [ "$1" != /bin/sh ]; do shift; done\n'
        f'IN_CONTAINER={name} PATH={Path(sys.executable).parent}:$PATH exec "$@"\n'
    )
    script.chmod(0o755)


@pytest.mark.parametrize(("image", "name"), [("tool.sif", "singularity"), ("docker://image:1", "docker")])
def test_container_image_is_where_manager_and_workers_run(start, tmp_path, monkeypatch, image, name):
    runtime(tmp_path / "bin", name)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    rig = start(container_image=image)
    assert rig.run(environment, "IN_CONTAINER") == [name]
    assert image.removeprefix("docker://") in (tmp_path / "bin" / "arguments").read_text()


def test_no_container_runtime_is_the_blocks_error_in_words(start, wait_for):
    rig = start(container_image="charliecloud://image")
    assert wait_for(lambda: rig.executor.bad_state_is_set)
    assert "no container runtime for image; looked for: ch-run" in str(rig.executor.executor_exception)


@pytest.mark.parametrize("encrypted", [None, True])
def test_encryption_is_on_unless_switched_off(start, encrypted):
    rig = start(**over_tcp(encrypted=encrypted, address="127.0.0.1"))
    folder = Path(rig.executor.logdir) / "certificates"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert rig.run(pow, 2, 2) == 4


def test_encryption_can_be_switched_off(start):
    rig = start(**over_tcp(encrypted=False, address="127.0.0.1"))
    assert settings(rig)["cert_dir"] is None
    assert not (Path(rig.executor.logdir) / "certificates").exists()
    assert rig.run(pow, 2, 2) == 4


def test_cert_dir_holds_the_keys(start, tmp_path):
    rig = start(**over_tcp(cert_dir=tmp_path / "keys", address="127.0.0.1"))
    assert len(list((tmp_path / "keys").iterdir())) == 4
    assert rig.run(pow, 2, 2) == 4


def test_a_cert_dir_that_others_can_read_is_refused(start, tmp_path):
    (tmp_path / "keys").mkdir(mode=0o755)
    with pytest.raises(ExecutorError, match="can be read by others"):
        start(cert_dir=tmp_path / "keys")


@pytest.mark.parametrize("strategy", ["block", "block-reverse", "alternating", "list:0:1"])
def test_cpu_affinity_keeps_workers_to_their_cores(start, strategy):
    from flowcore_htex.affinity import worker_cores

    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("needs two cores")
    rig = start(cpu_affinity=strategy)

    def where(seconds):
        time.sleep(seconds)
        return environment_of(), sorted(os.sched_getaffinity(0))

    environment_of = lambda: (
        int(os.environ["FLOWCORE_WORKER_RANK"]),
        os.environ["OMP_NUM_THREADS"],
        os.environ["GOMP_CPU_AFFINITY"],
        os.environ["KMP_AFFINITY"],
    )  # noqa: E731, E501
    for (rank, threads, gomp, kmp), kept in [f.result(PATIENCE) for f in [rig.submit(where, 0.2) for _ in range(2)]]:
        expected = worker_cores(strategy, rank, 2, cores)
        assert kept == expected
        assert threads == str(len(expected))
        assert gomp == " ".join(map(str, expected))
        assert kmp == f"explicit,proclist=[{','.join(map(str, expected))}]"


def test_available_accelerators_are_one_for_each_worker(start):
    names = (
        "CUDA_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
        "ZE_AFFINITY_MASK",
        "ZE_ENABLE_PCI_ID_DEVICE_ORDER",
        "FLOWCORE_WORKER_COUNT",
    )

    def seen(seconds):
        time.sleep(seconds)
        return environment(*names)

    rig = start(available_accelerators=["a", "b"], max_workers=10)
    found = [future.result(PATIENCE) for future in [rig.submit(seen, 0.2) for _ in range(2)]]
    assert sorted(found) == [["a", "a", "a", "1", "2"], ["b", "b", "b", "1", "2"]]
    assert HighThroughputExecutor(available_accelerators=3).options.available_accelerators == ["0", "1", "2"]


def test_drain_period_ends_a_manager_after_its_tasks(start, wait_for):
    rig = start(drain_period=0.3, max_workers=1)
    long = rig.submit(time.sleep, 1.5)
    assert wait_for(lambda: any(manager["draining"] for manager in rig.executor.connected_managers()))
    assert long.result(PATIENCE) is None
    assert rig.run(pow, 2, 2) == 4  # another block takes over
    assert len(rig.executor.connected_blocks()) >= 2


class Picky(BlockIdManagerSelector):
    """Says which managers it was asked about; defined where workers and interchange cannot import it."""

    def __init__(self, path):
        self.path = path

    def sort_managers(self, ready, names):
        with open(self.path, "a") as stream:
            stream.write(f"{sorted(ready[name]['block_id'] for name in names)}\n")
        return super().sort_managers(ready, names)


def test_manager_selector_decides_who_gets_tasks_first(start, tmp_path, wait_for):
    selector = Picky(str(tmp_path / "asked"))
    rig = start(manager_selector=selector, provider=LocalProvider(init_blocks=2, max_blocks=2), max_workers=2)
    assert wait_for(lambda: len(rig.executor.connected_managers()) == 2)
    for _ in range(10):
        assert rig.run(environment, "FLOWCORE_WORKER_BLOCK_ID") == ["0"]
    assert "['0', '1']" in (tmp_path / "asked").read_text()
    assert type(HighThroughputExecutor().options.selector) is RandomManagerSelector


def test_block_error_handler_is_called_with_the_statuses(start, wait_for):
    seen = []

    def handler(executor, status):
        seen.append((executor.label, {block: one.state.name for block, one in status.items()}))
        executor.set_bad_state_and_fail_all(RuntimeError("enough"))

    rig = start(launch_cmd="false # {config}", block_error_handler=handler)
    assert wait_for(lambda: rig.executor.bad_state_is_set)
    assert seen[0][0] == "HighThroughputExecutor"
    assert "MISSING" in seen[0][1].values()


def test_heartbeat_parameters_reach_the_managers(start):
    rig = start(heartbeat_period=3, heartbeat_threshold=9)
    assert (settings(rig)["heartbeat_period"], settings(rig)["heartbeat_threshold"]) == (3, 9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label": ""}, "label"),
        ({"label": "a/b"}, "folder"),
        ({"address": "not an address"}, "address"),
        ({"worker_ports": (1,)}, "pair of ports"),
        ({"worker_ports": (5000, 5000)}, "the same"),
        ({"worker_ports": (5000, 70000)}, "1 to 65535"),
        ({"worker_ports": (5000, 5001), "worker_port": 5002}, "worker_port and worker_ports"),
        ({"worker_port": 0}, "1 to 65535"),
        ({"worker_port_range": (55000, 54000)}, "worker_port_range"),
        ({"worker_port_range": "abc"}, "worker_port_range"),
        ({"interchange_port_range": (1, 2)}, "interchange_port_range"),
        ({"loopback_address": "nowhere.invalid"}, "loopback_address"),
        ({"cores_per_worker": 0}, "cores_per_worker"),
        ({"mem_per_worker": 4}, "4 means 4 MB; write '4GB'"),
        ({"mem_per_worker": "4XB"}, "mem_per_worker"),
        ({"max_workers": 0}, "max_workers"),
        ({"max_workers": 1.5}, "max_workers"),
        ({"max_workers": 2, "max_workers_per_node": 3}, "the same thing"),
        ({"prefetch_capacity": -1}, "prefetch_capacity"),
        ({"heartbeat_threshold": 0}, "heartbeat_threshold"),
        ({"heartbeat_threshold": 10, "heartbeat_period": 20}, "heartbeat_period"),
        ({"poll_period": -1}, "poll_period"),
        ({"address_probe_timeout": 0}, "address_probe_timeout"),
        ({"drain_period": -5}, "drain_period"),
        ({"cpu_affinity": "sideways"}, "cpu_affinity"),
        ({"cpu_affinity": "list:a"}, "cpu_affinity"),
        ({"available_accelerators": "0,1"}, "available_accelerators"),
        ({"available_accelerators": ["a", "a"]}, "twice"),
        ({"manager_selector": object()}, "sort_managers"),
        ({"encrypted": "yes"}, "encrypted"),
        ({"encrypted": False, "cert_dir": "/tmp/keys"}, "no keys"),
        ({"launch_cmd": "manager {unknown}"}, "unknown keys unknown"),
        ({"launch_cmd": "manager {"}, "no format template"),
        ({"remote_monitoring_radio": object()}, "remote_monitoring_radio"),
        ({"provider": "local"}, "provider"),
        ({"block_error_handler": 3}, "block_error_handler"),
    ],
)
def test_a_bad_value_is_an_error_of_construction_that_names_it(options, words):
    with pytest.raises(ConfigurationError) as caught:
        HighThroughputExecutor(**options)
    assert words in str(caught.value)


def test_an_executor_serves_one_run(start):
    from flowcore.executors.base import RunContext

    rig = start()
    with pytest.raises(ExecutorError, match="started before"):
        rig.executor.start(RunContext(run_id="x", run_dir=Path.cwd()))


def test_submit_before_start_is_an_error():
    with pytest.raises(ExecutorError, match="not been started"):
        HighThroughputExecutor().submit(pow, {}, 2, 2)
