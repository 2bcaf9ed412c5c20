"""The example plugin of docs/plugins.md: shown as it is, built, installed, discovered, and true to the contract."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples" / "plugin_acme"
BUILD = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the plugin's wheel and install it into a folder of its own."""
    folder = tmp_path_factory.mktemp("acme")
    source = shutil.copytree(PLUGIN, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    run("-c", BUILD, str(folder), cwd=source)
    (wheel,) = folder.glob("flowcore_acme-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(*arguments: str, cwd: Path, site: Path | None = None) -> str:
    environment = dict(os.environ) if site is None else {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_shows_the_files_as_they_are() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text()
    shown = dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)```$", page, flags=re.DOTALL | re.MULTILINE))
    files = [path for path in PLUGIN.rglob("*") if path.suffix in (".py", ".toml") and "__pycache__" not in path.parts]
    assert shown == {path.relative_to(PLUGIN).as_posix(): path.read_text() for path in files}


def test_it_is_discovered_once_it_is_installed(site: Path, tmp_path: Path) -> None:
    plugins = json.loads(run("-m", "flowcore", "plugins", "--json", cwd=tmp_path, site=site))["plugins"]
    (acme,) = [plugin for plugin in plugins if plugin["name"] == "acme"]
    assert acme["status"] == "active"
    run("-m", "flowcore", "plugins", "check", "acme", cwd=tmp_path, site=site)


def test_the_page_s_script_runs_on_it(site: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "plugins.md").read_text()
    (script,) = [
        block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "flowcore.load" in block
    ]
    (tmp_path / "script.py").write_text(script)
    assert run("script.py", cwd=tmp_path, site=site) == "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]\n"


@pytest.mark.slow
def test_it_passes_the_conformance_suite(site: Path, tmp_path: Path) -> None:
    shutil.copy(PLUGIN / "tests" / "test_executor.py", tmp_path)
    strict = ["-q", "-W", "error", "-p", "no:cacheprovider", "--basetemp", "base"]
    assert "passed" in run("-m", "pytest", *strict, "test_executor.py", cwd=tmp_path, site=site)
