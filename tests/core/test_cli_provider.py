"""`flowcore provider show` prints what would be submitted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flowcore.cli import main

CONFIG = """
from flowcore import Config
from flowcore.executors import HighThroughputExecutor, ThreadPoolExecutor
from flowcore.providers import LocalProvider, SlurmProvider

def config():
    return Config(executors=[
        HighThroughputExecutor(label="cluster", provider=SlurmProvider("main", nodes_per_block=2, account="phys")),
        HighThroughputExecutor(label="here", provider=LocalProvider(worker_init="module load gcc")),
        ThreadPoolExecutor(label="threads"),
    ])
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return path


def test_every_executors_script_is_printed(config: Path, capsys) -> None:
    assert main(["provider", "show", str(config)]) == 0
    out = capsys.readouterr().out
    assert "# executor cluster: SlurmProvider(" in out
    assert "#SBATCH --account=phys" in out
    assert "exec srun --nodes=2 --ntasks=2 " in out
    assert "module load gcc" in out
    assert "# executor threads: it has no blocks" in out


def test_one_executor_can_be_asked_for_and_its_script_is_valid_shell(config: Path, capsys) -> None:
    assert main(["provider", "show", str(config), "--executor", "here"]) == 0
    out = capsys.readouterr().out
    assert "SBATCH" not in out
    assert subprocess.run(["bash", "-n"], input=out, text=True, timeout=60, check=False).returncode == 0


def test_nothing_is_submitted_and_no_file_is_made(config: Path, tmp_path: Path) -> None:
    assert main(["provider", "show", str(config)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["config.py"]


FAULTS = {
    "nothing": ("", "it defines no `config`; write config = Config(executors=[...])"),
    "no config": ("config = 5", "its `config` is no flowcore.Config but 5"),
    "defaults": ("import flowcore; config = flowcore.Config()", "it names no executors"),
    "own error": ("1 / 0", "ZeroDivisionError: division by zero"),
    "own error later": ("def config(): return 1 / 0", "ZeroDivisionError: division by zero"),
    "bad value": (
        "from flowcore.providers import SlurmProvider; SlurmProvider('a\\nb')",
        "SlurmProvider(partition='a\\nb'): one line of text is needed",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_without_a_configuration_is_explained(name: str, tmp_path: Path, capsys) -> None:
    text, words = FAULTS[name]
    path = tmp_path / "config.py"
    path.write_text(text)
    assert main(["provider", "show", str(path)]) == 1
    assert f"{path}: {words}" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys) -> None:
    assert main(["provider", "show", str(tmp_path / "none.py")]) == 1
    assert "none.py: No such file or directory" in capsys.readouterr().err


def test_an_unknown_executor_is_named(config: Path, capsys) -> None:
    assert main(["provider", "show", str(config), "--executor", "other"]) == 1
    assert "no executor is labelled 'other'; there are: 'cluster', 'here', 'threads'" in capsys.readouterr().err


def test_it_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flowcore", "provider"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "show" in done.stdout) == (0, True)
