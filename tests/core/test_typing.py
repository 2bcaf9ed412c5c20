"""What mypy --strict sees in a user's script: real classes, kept signatures, futures of the right thing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
from __future__ import annotations

from concurrent.futures import Future
from typing import cast

from flowcore import AUTO_LOGNAME, bash_app, join_app, python_app
from flowcore.dataflow.futures import AppFuture, DataFuture
from flowcore.executors import HighThroughputExecutor, MPIExecutor, ResourceConfig, ThreadPoolExecutor
from flowcore.executors.htex import ManagerLost, WorkerLost
from flowcore.executors.radical import RadicalPilotExecutor
from flowcore.launchers import SimpleLauncher
from flowcore.providers import LocalProvider

reveal_type(HighThroughputExecutor().label)  # R: str
reveal_type(HighThroughputExecutor)  # R: def (.*) -> flowcore_htex.executor.HighThroughputExecutor
reveal_type(WorkerLost)  # R: def (.*) -> flowcore_htex.errors.WorkerLost
reveal_type(ManagerLost)  # R: def (.*) -> flowcore_htex.errors.ManagerLost
reveal_type(ThreadPoolExecutor)  # R: def (.*) -> flowcore_threads.executor.ThreadPoolExecutor
reveal_type(MPIExecutor)  # R: def (.*) -> flowcore_mpi.executor.MPIExecutor
reveal_type(RadicalPilotExecutor)  # R: def (.*) -> flowcore_radical.executor.RadicalPilotExecutor
reveal_type(ResourceConfig(cpus=2))  # R: flowcore_radical.resource_config.ResourceConfig
reveal_type(LocalProvider)  # R: def (.*) -> flowcore.providers.local.LocalProvider
reveal_type(SimpleLauncher())  # R: flowcore.launchers.simple.SimpleLauncher
MPIExecutor(no_such_option=1)  # E: call-arg


@python_app
def bare(x: int) -> str:
    return str(x)


@python_app(executors=["threads"], cache=True)
def called(x: int, *, scale: float = 1.0) -> list[float]:
    return [x * scale]


@python_app
async def coroutine(x: int) -> bytes:
    return bytes(x)


@python_app(cache=True)
async def coroutine_called(x: int) -> bytes:
    return bytes(x)


@bash_app
def bash(path: str) -> str:
    return f"ls {path}"


@bash_app
async def bash_coroutine(path: str) -> str:
    return f"ls {path}"


@bash_app(cache=True)
def bash_called(path: str) -> str:
    return f"ls {path}"


@join_app
def joined(x: int) -> AppFuture[str]:
    return bare(x)


@join_app
def joined_plain(x: int) -> Future[bytes]:
    return coroutine(x)


@join_app
def joined_list(n: int) -> list[AppFuture[str]]:
    return [bare(i) for i in range(n)]


@join_app(cache=True)
def joined_called(x: int) -> AppFuture[str]:
    return bare(x)


@join_app
async def joined_coroutine(x: int) -> AppFuture[str]:
    return bare(x)


@join_app(cache=True)
async def joined_list_coroutine(x: int) -> list[AppFuture[str]]:
    return [bare(x)]


@join_app
def joined_files(future: AppFuture[str]) -> list[DataFuture]:
    return list(future.outputs)


@join_app  # E: arg-type
def joined_tuple(x: int) -> tuple[AppFuture[str], ...]:
    return (bare(x),)


@join_app(cache=True)  # E: arg-type
async def joined_nothing(x: int) -> int:
    return x


reveal_type(bare(1))  # R: AppFuture[str]
reveal_type(bare(1).result())  # R: str
reveal_type(called(1, scale=2.0))  # R: AppFuture[list[float]]
reveal_type(coroutine(1))  # R: AppFuture[bytes]
reveal_type(coroutine_called(1))  # R: AppFuture[bytes]
reveal_type(bash("/"))  # R: AppFuture[int]
reveal_type(bash_coroutine("/"))  # R: AppFuture[int]
reveal_type(bash_called("/"))  # R: AppFuture[int]
reveal_type(joined(1))  # R: AppFuture[str]
reveal_type(joined_plain(1))  # R: AppFuture[bytes]
reveal_type(joined_list(2))  # R: AppFuture[list[str]]
reveal_type(joined_called(1))  # R: AppFuture[str]
reveal_type(joined_coroutine(1))  # R: AppFuture[str]
reveal_type(joined_list_coroutine(1))  # R: AppFuture[list[str]]
reveal_type(joined_files(bare(1)))  # R: AppFuture[list[flowcore.data_provider.files.File]]

@python_app
def total(first: int, numbers: list[float], *, scale: float = 1.0) -> float:
    return scale * (first + sum(numbers))


plain: Future[int] = Future()
reveal_type(bare(plain))  # R: AppFuture[str]
reveal_type(bash(bare(1)))  # R: AppFuture[int]
reveal_type(total(1, [coroutine(1), plain], scale=2.0))  # R: AppFuture[float]
reveal_type(total(plain, called(plain)))  # R: AppFuture[float]
reveal_type(joined(plain))  # R: AppFuture[str]

reveal_type(bare(1, walltime=60))  # R: AppFuture[str]
reveal_type(bare(1, walltime="01:00:00", resource_specification={"cores": 2}))  # R: AppFuture[str]
reveal_type(bare(1, parsl_resource_specification={"cores": 2}))  # R: AppFuture[str]
reveal_type(bare(1, inputs=[plain], outputs=["file"]))  # R: AppFuture[str]
reveal_type(bare(1, outputs=["file"]))  # R: AppFuture[str]
reveal_type(bash("/", stdout=AUTO_LOGNAME))  # R: AppFuture[int]
reveal_type(bash("/", stderr=("errors", "w")))  # R: AppFuture[int]
reveal_type(bash(bare(1), stdout="out", stderr="err", walltime=60))  # R: AppFuture[int]
reveal_type(joined(1, walltime=60))  # R: AppFuture[str]
reveal_type(bare(cast(int, plain)))  # R: AppFuture[str]
reveal_type(bare(x=cast(int, plain)))  # R: AppFuture[str]

bare(x=plain)  # E: call-overload
bare(1, walltime=[60])  # E: call-overload
bare(1, resource_specification=2)  # E: call-overload
bare(1, stdout="file")  # E: call-overload
bash("/", stdout=3)  # E: arg-type
bare(x="one")  # E: call-overload
bare("one")  # E: arg-type
bare()  # E: call-overload
bare(1, 2)  # E: call-overload
called(1, scale="2")  # E: call-overload
bash(1)  # E: call-overload
joined("one")  # E: arg-type


async def main() -> None:
    reveal_type(await bare(1))  # R: str
"""

EXPECTED = {
    number: line.rpartition("  # ")[2]
    for number, line in enumerate(SCRIPT.splitlines(), start=1)
    if "  # R: " in line or "  # E: " in line
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[str]]:
    """Run mypy once, as a user would who has flowcore installed; what it says, by line."""
    folder: Path = tmp_path_factory.mktemp("typing")
    (folder / "script.py").write_text(SCRIPT)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        f"--cache-dir={folder / 'cache'}",
        "script.py",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "MYPYPATH"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    lines: dict[int, list[str]] = {}
    for line in done.stdout.splitlines():
        if found := re.match(r"script\.py:(\d+): (.*)", line):
            lines.setdefault(int(found[1]), []).append(found[2])
    assert lines, done.stdout + done.stderr
    return lines


def _plain(text: str) -> str:
    """Leave out the modules of the names that the expectations write without."""
    return text.replace("flowcore.dataflow.futures.", "").replace("builtins.", "")


@pytest.mark.parametrize(
    "number", EXPECTED, ids=lambda number: SCRIPT.splitlines()[number - 1].partition("  #")[0].strip()
)
def test_mypy_sees(told, number):
    kind, _, expected = EXPECTED[number].partition(": ")
    said = _plain("\n".join(told.get(number, ["nothing"])))
    if kind == "E":
        assert f"[{expected}]" in said
    else:
        pattern = re.escape(expected).replace(re.escape("(.*)"), r"\(.*\)")
        assert re.search(f'Revealed type is "{pattern}"', said), said


def test_mypy_complains_of_nothing_else(told):
    assert {number: said for number, said in told.items() if number not in EXPECTED} == {}
