"""Every run has a numbered folder of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flowcore.dataflow.rundirs import make_rundir


def test_they_count_up(tmp_path: Path) -> None:
    assert [make_rundir(tmp_path / "a").name for _ in range(3)] == ["000", "001", "002"]


def test_the_path_is_absolute() -> None:
    assert make_rundir("relative") == Path.cwd() / "relative" / "000"


def test_they_go_on_after_the_highest(tmp_path: Path) -> None:
    for name in ("003", "999", "notes", "1x", "²"):
        (tmp_path / name).mkdir()
    (tmp_path / "1001").write_text("a file also takes a number")
    assert make_rundir(tmp_path).name == "1002"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        make_rundir(tmp_path / "file" / "runs")


def test_processes_that_race_get_folders_of_their_own(tmp_path: Path) -> None:
    code = (
        "import sys; from flowcore.dataflow.rundirs import make_rundir; input();"
        "print(*(make_rundir(sys.argv[1]).name for _ in range(100)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    names = [name for process in processes for name in process.communicate(timeout=60)[0].split()]
    assert len(names) == len(set(names)) == 300
    assert sorted(names) == [f"{number:03}" for number in range(300)]
