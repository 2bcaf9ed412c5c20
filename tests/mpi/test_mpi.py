"""MPIExecutor has the parameters it will have, and says that this version cannot run MPI applications."""

from __future__ import annotations

import inspect

import pytest

from flowcore.errors import ConfigurationError
from flowcore.executors import MPIExecutor
from flowcore.executors.errors import UnsupportedFeatureError

PARAMETERS = {
    "label": "MPIExecutor",
    "provider": None,
    "launch_cmd": None,
    "interchange_launch_cmd": None,
    "address": None,
    "loopback_address": "127.0.0.1",
    "worker_ports": None,
    "worker_port_range": (54000, 55000),
    "interchange_port_range": (55000, 56000),
    "storage_access": None,
    "working_dir": None,
    "worker_debug": False,
    "max_workers_per_block": 1,
    "prefetch_capacity": 0,
    "heartbeat_threshold": 120,
    "heartbeat_period": 30,
    "drain_period": None,
    "poll_period": 10,
    "address_probe_timeout": None,
    "worker_logdir_root": None,
    "mpi_launcher": "mpiexec",
    "block_error_handler": True,
    "encrypted": None,  # on, as in htex: the one default in which flowcore departs from the specification
}


def test_names_order_and_defaults_are_those_of_the_specification():
    parameters = inspect.signature(MPIExecutor).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == PARAMETERS
    assert list(parameters) == list(PARAMETERS)


def test_it_names_the_launcher_that_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedFeatureError) as caught:
        MPIExecutor(label="cluster_mpi", mpi_launcher="srun")
    fault, remedy = str(caught.value).splitlines()
    assert fault.startswith("Executor cluster_mpi failed due to: there is no command 'srun' on this machine")
    assert "this version of flowcore-mpi cannot run MPI applications yet" in fault
    assert "HighThroughputExecutor" in remedy


def test_with_a_launcher_it_says_that_this_version_cannot_use_it(monkeypatch, tmp_path):
    command = tmp_path / "mpiexec"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedFeatureError, match=r"found .*/mpiexec; .*cannot run MPI applications yet"):
        MPIExecutor()


def test_an_unknown_launcher_is_refused_with_those_there_are():
    with pytest.raises(
        ConfigurationError, match=r"mpi_launcher='jsrun'\): one of 'mpiexec', 'srun', 'aprun' is needed"
    ):
        MPIExecutor(mpi_launcher="jsrun")


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
def test_less_than_one_worker_is_refused(number):
    with pytest.raises(ConfigurationError, match=r"max_workers_per_block=.*\): a whole number, 1 or more, is needed"):
        MPIExecutor(max_workers_per_block=number)
