"""What the README shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import flowcore
from flowcore.cli import main
from flowcore.executors import ThreadPoolExecutor
from flowcore.registry import current

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SHELL = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_first_program_prints_the_mean_of_its_samples(tmp_path):
    (tmp_path / "first.py").write_text(PYTHON[0])
    done = subprocess.run(
        [sys.executable, "-W", "error", "first.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    import random

    assert float(done.stdout) == pytest.approx(sum(random.Random(seed).gauss(0, 1) for seed in range(1000)) / 1000)


def test_the_apps_that_show_what_calls_take_work(tmp_path):
    flowcore.load(flowcore.Config(executors=[ThreadPoolExecutor(4)]))
    names: dict = {}
    exec(compile(PYTHON[1], "README.md", "exec"), names)
    paths = []
    for number in range(3):
        path = tmp_path / f"{number}.txt"
        path.write_text(f"{number}" * 1000)
        paths.append(str(path))
    sizes = names["compress_all"](paths).result(timeout=60)
    assert sizes == [Path(f"{path}.gz").stat().st_size for path in paths]
    assert all(0 < size < 1000 for size in sizes)


def test_the_configuration_file_that_is_shown_makes_a_job_script(tmp_path, capsys):
    (text,) = re.findall(r"^```toml\n(# cluster\.toml\n.*?)^```", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "cluster.toml").write_text(text)
    assert main(["provider", "show", str(tmp_path / "cluster.toml")]) == 0
    script = capsys.readouterr().out
    assert {"#SBATCH --partition=compute", "#SBATCH --nodes=2", "#SBATCH --time=02:00:00"} <= set(script.splitlines())
    (executor,) = flowcore.Config.from_toml(tmp_path / "cluster.toml").executors
    assert (executor.label, executor.options.worker_limit) == ("cluster", 16)


def test_the_manifest_that_is_shown_is_a_manifest():
    names: dict = {}
    exec(compile(PYTHON[2], "README.md", "exec"), names)
    assert names["FLOWCORE_API"] == 1
    assert [component.name for component in names["flowcore_executors"]()] == ["AcmeExecutor"]


def test_the_commands_that_are_shown_exist():
    commands = [line.split() for block in SHELL for line in block.splitlines()]
    assert commands == [
        ["python3", "dev.py", "example"],
        ["python3", "dev.py", "test"],
        ["pip", "install", "'flowcore[htex]'"],
    ]
    shown = subprocess.run(
        [sys.executable, str(ROOT / "dev.py"), "--help"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert {"example", "test", "bench"} <= set(re.findall(r"^    (\w+)", shown, re.MULTILINE))


def test_every_extra_of_the_table_is_installed_here_and_every_plugin_is_in_the_table():
    extras = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", README, re.MULTILINE)
    assert dict(extras).keys() == {plugin.name for plugin in current().plugins} - {"core"}
    assert {name for _, name in extras} <= set(current().names("executor"))


def test_every_link_leads_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page}: {link}"
