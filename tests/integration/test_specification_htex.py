"""The examples of the specification page on htex, targeting, resources, lifecycle and errors, as they stand."""

from __future__ import annotations

import os
from typing import Any

import pytest

import flowcore
from flowcore import python_app
from flowcore.config import Config
from flowcore.errors import InvalidResourceSpecification, NoDataFlowKernelError, ShutdownError
from flowcore.executors import HighThroughputExecutor, ThreadPoolExecutor
from flowcore.executors.errors import ExecutorError, ScalingError
from flowcore.jobs.states import JobState
from flowcore.launchers import SrunLauncher
from flowcore.providers import LocalProvider, SlurmProvider
from flowcore.providers.errors import SubmitException
from flowcore.testing.leftovers import Leftovers
from nodes import ClusterProvider
from waiting import PATIENCE


@pytest.fixture(autouse=True)
def nothing_left():
    leftovers = Leftovers()
    yield
    leftovers.watch()
    flowcore.clear(wait=False)
    assert leftovers.after(PATIENCE) == []


# -- HighThroughputExecutor: Usage Example


def test_local_high_throughput_execution():
    # Local high-throughput execution
    htex = HighThroughputExecutor(
        label="local_htex",
        cores_per_worker=2,
        max_workers=8,
        provider=LocalProvider(
            init_blocks=1,
            max_blocks=2,
        ),
    )

    flowcore.load(Config(executors=[htex]))

    @python_app(executors=["local_htex"])
    def workers() -> str:
        return os.environ["PARSL_WORKER_COUNT"]

    assert workers().result(PATIENCE) == str(min(8, max(1, len(os.sched_getaffinity(0)) // 2)))


def test_hpc_cluster_execution_is_configured_without_contacting_the_cluster(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    # HPC cluster execution
    htex_hpc = HighThroughputExecutor(
        label="cluster_htex",
        cores_per_worker=4,
        mem_per_worker=4000,  # 4GB per worker
        max_workers=100,
        provider=SlurmProvider(
            partition="compute",
            nodes_per_block=2,
            init_blocks=1,
            max_blocks=10,
            walltime="02:00:00",
        ),
    )
    assert htex_hpc.options.mem_per_worker == 4000
    assert isinstance(htex_hpc.provider.launcher, SrunLauncher)  # both nodes of a block are used
    assert htex_hpc.slots() == 10 * 2 * htex_hpc.workers_per_node


def test_a_cluster_that_is_not_there_is_an_executor_error_with_its_command(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin-without-slurm")
    htex_hpc = HighThroughputExecutor(label="cluster_htex", provider=SlurmProvider(partition="compute"))
    with pytest.raises(ExecutorError, match="sbatch"):
        flowcore.load(Config(executors=[htex_hpc]))


# -- Executor Selection and Task Targeting


@python_app(executors=["local_threads"])
def light_task() -> str:
    return "completed on threads"


@python_app(executors=["cluster_htex"])
def heavy_task() -> str:
    import time

    time.sleep(0.01)  # Heavy computation
    return "completed on cluster"


@python_app(executors=["cluster_htex"])
def where() -> int:
    import os

    return os.getpid()


def both() -> tuple[HighThroughputExecutor, ThreadPoolExecutor]:
    return (
        HighThroughputExecutor(label="cluster_htex", max_workers=2),
        ThreadPoolExecutor(max_threads=4, label="local_threads"),
    )


def test_tasks_go_where_their_labels_say():
    flowcore.load(Config(executors=both()))
    light, heavy = light_task(), heavy_task()
    assert (light.result(PATIENCE), heavy.result(PATIENCE)) == ("completed on threads", "completed on cluster")
    assert (light.task_record.executor, heavy.task_record.executor) == ("local_threads", "cluster_htex")
    assert where().result(PATIENCE) != os.getpid()


def test_a_label_that_there_is_not_is_refused_with_those_there_are():
    flowcore.load(Config(executors=[HighThroughputExecutor(label="cluster_htex", max_workers=1)]))
    with pytest.raises(ValueError, match=r"'local_threads'(.|\n)*'cluster_htex'"):
        light_task()


# -- Resource Specification

ASKED = {
    "cores": 8,
    "memory": "16GB",
    "disk": "100GB",
    "walltime": "02:00:00",
}

LARGE_DISK = """
import os
class Room:
    f_bavail, f_frsize = 200_000, 1_000_000
os.statvfs = lambda path: Room
"""


@python_app
def resource_intensive_task(data: Any, parsl_resource_specification: Any = {}) -> Any:  # noqa: B006 - the page's
    """Task with specific resource needs."""
    # Process data requiring specific resources
    processed_data = sum(data)
    return processed_data  # noqa: RET504 - the page's


large_dataset = [1, 2, 3]


def test_a_task_with_specific_needs_runs_on_a_node_that_has_it_all(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(LARGE_DISK)
    provider = ClusterProvider(cores_per_node=8, mem_per_node=16, worker_init=f"export PYTHONPATH={tmp_path}")
    flowcore.load(Config(executors=[HighThroughputExecutor(provider=provider)]))

    # Execute with resource requirements
    future = resource_intensive_task(
        large_dataset,
        parsl_resource_specification={
            "cores": 8,
            "memory": "16GB",
            "disk": "100GB",
            "walltime": "02:00:00",
        },
    )
    assert future.result(PATIENCE) == 6


@pytest.mark.parametrize("cores", [4, 8])
@pytest.mark.parametrize("memory", [8, 16])
def test_a_task_with_specific_needs_is_refused_by_name_where_no_node_has_them(tmp_path, cores, memory):
    (tmp_path / "sitecustomize.py").write_text(LARGE_DISK.replace("200_000", "50_000"))
    init = f"export PYTHONPATH={tmp_path}"
    provider = ClusterProvider(cores_per_node=cores, mem_per_node=memory, worker_init=init)
    flowcore.load(Config(executors=[HighThroughputExecutor(provider=provider)]))
    with pytest.raises(InvalidResourceSpecification) as caught:
        resource_intensive_task(large_dataset, parsl_resource_specification=ASKED).result(PATIENCE)
    missing = {key for key, lacks in [("cores", cores < 8), ("memory", memory < 16), ("disk", True)] if lacks}
    assert set(caught.value.invalid_keys) == missing


def test_a_task_goes_to_the_executor_that_honours_its_keys():
    flowcore.load(Config(executors=both()))
    for _ in range(5):
        future = resource_intensive_task(large_dataset, parsl_resource_specification={"walltime": "02:00:00"})
        assert future.result(PATIENCE) == 6
        assert future.task_record.executor == "cluster_htex"


# -- Executor Lifecycle Management


def test_executors_live_as_long_as_the_kernel():
    htex, threads_exec = both()
    # Executors start when configuration is loaded
    config = Config(executors=[htex, threads_exec])
    flowcore.load(config)

    # Submit tasks to different executors
    futures = []
    for i in range(100):
        if i % 2 == 0:
            futures.append(light_task())  # -> threads_exec
        else:
            futures.append(heavy_task())  # -> htex

    # Wait for completion
    results = [f.result() for f in futures]
    assert results == ["completed on threads", "completed on cluster"] * 50

    # Executors shutdown when DFK is cleared
    flowcore.clear()
    for executor in (htex, threads_exec):
        with pytest.raises(ShutdownError):
            executor.submit(pow, {}, 1, 2)
    assert all(status.terminal for status in htex.status().values())


# -- Executor Error Handling


def load_as_on_the_page(config: Config) -> None:
    try:
        flowcore.load(config)
    except ExecutorError as e:
        print(f"Executor initialization failed: {e}")
    except ScalingError as e:
        print(f"Resource scaling error: {e}")


def test_an_interchange_that_cannot_start_is_an_executor_error(capsys, tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o755)
    load_as_on_the_page(Config(executors=[HighThroughputExecutor(label="cluster_htex", cert_dir=folder)]))
    said = capsys.readouterr().out
    assert said.startswith("Executor initialization failed: Executor cluster_htex failed due to: ")
    assert f"chmod 700 {folder}" in said


def test_a_provider_that_refuses_the_first_block_is_a_scaling_error(capsys):
    class Full(LocalProvider):
        def submit(self, command: str, tasks_per_node: int, job_name: str = "flowcore") -> str:
            raise SubmitException(job_name, "no node is free")

    config = Config(executors=[HighThroughputExecutor(label="cluster_htex", provider=Full())])
    load_as_on_the_page(config)
    assert "no node is free" in capsys.readouterr().out
    with pytest.raises(ScalingError, match="no node is free"):
        flowcore.load(Config(executors=[HighThroughputExecutor(label="cluster_htex", provider=Full())]))


def test_no_kernel_is_left_loaded_when_an_executor_cannot_start(capsys, tmp_path):
    bad = HighThroughputExecutor(label="bad", launch_cmd=None, cert_dir=tmp_path / "file")
    (tmp_path / "file").write_text("no folder")
    load_as_on_the_page(Config(executors=[*both(), bad]))
    assert capsys.readouterr().out.startswith("Executor initialization failed: Executor bad")
    with pytest.raises(NoDataFlowKernelError):
        flowcore.dfk()


def test_every_executor_has_a_status():
    load_as_on_the_page(Config(executors=both()))
    assert heavy_task().result(PATIENCE) == "completed on cluster"
    # Monitor executor status
    dfk = flowcore.dfk()
    told = [f"Executor {executor.label}: {executor.status()}" for executor in dfk.executors.values()]
    assert told[1] == "Executor local_threads: {}"
    assert told[0].startswith("Executor cluster_htex: {'0': ")
    assert dfk.executors["cluster_htex"].status()["0"].state is JobState.RUNNING
