"""The wheels work where nothing else is: built into a folder, installed with plain pip into an empty environment."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import pytest

pytestmark = [pytest.mark.packaging, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
NAMES = ["flowcore", *(f"flowcore_{name}" for name in ("flux", "htex", "mpi", "radical", "threads", "workqueue"))]


def _run(*command: str | Path, cwd: Path, code: int = 0) -> str:
    """Run a command away from this environment and return its output."""
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of every distribution, by the name of its package."""
    folder = tmp_path_factory.mktemp("wheels")
    sources = [ROOT / "core", *(path.parent for path in sorted(ROOT.glob("plugins/*/pyproject.toml")))]

    def build(source: Path) -> None:
        _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source, cwd=folder)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(build, sources))
    return {path.name.partition("-")[0]: path for path in sorted(folder.glob("*.whl"))}


def _environment(folder: Path, wheels: dict[str, Path], extra: str) -> Path:
    """Make an empty environment, install flowcore with an extra into it, and return its Python."""
    python = folder / "env" / "bin" / "python"
    _run(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-compile",
        "--only-binary",
        ":all:",
    ]
    _run(*pip, "--find-links", wheels["flowcore"].parent, f"flowcore[{extra}]", cwd=folder)
    for name in ("flowcore", f"flowcore_{extra}"):
        _assert_installed(wheels[name], next(folder.glob(f"env/lib/*/site-packages/{name}-*.dist-info/RECORD")))
    return python


def _assert_installed(wheel: Path, record: Path) -> None:
    """Check that what is installed came from the wheel, and not from an index that has the same name."""
    with zipfile.ZipFile(wheel) as archive:
        listed = archive.read(f"{record.parent.name}/RECORD").decode().splitlines()
    assert {line for line in listed if "/RECORD," not in line} <= set(record.read_text().splitlines())


@pytest.fixture(scope="module")
def with_htex(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _environment(tmp_path_factory.mktemp("htex"), wheels, "htex")


@pytest.fixture(scope="module")
def with_the_oldest(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with htex, and the oldest versions of all else that it allows."""
    folder = tmp_path_factory.mktemp("oldest")
    python = folder / "env" / "bin" / "python"
    _run(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    uv = [sys.executable, "-m", "uv", "pip", "install", "--python", python, "--quiet"]
    chosen = ["--resolution", "lowest", "--only-binary", ":all:", "--find-links", wheels["flowcore"].parent]
    _run(*uv, *chosen, "flowcore[htex]", cwd=folder)
    return python


@pytest.fixture(scope="module")
def with_threads(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _environment(tmp_path_factory.mktemp("threads"), wheels, "threads")


def test_there_is_a_wheel_of_every_distribution(wheels):
    assert list(wheels) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_wheel_holds_its_package_typed_and_without_tests(wheels, name):
    with zipfile.ZipFile(wheels[name]) as wheel:
        files = set(wheel.namelist())
        metadata = next(wheel.read(file).decode() for file in files if file.endswith(".dist-info/METADATA"))
        entry_points = next(wheel.read(file).decode() for file in files if file.endswith("entry_points.txt"))
    assert {file.split("/")[0] for file in files if ".dist-info/" not in file} == {name}
    assert {f"{name}/py.typed", f"{name}/__init__.py"} <= files
    assert not [file for file in files if "/tests/" in file or "test_" in file or file.endswith(".pyc")]
    assert "Requires-Python: >=3.10" in metadata
    assert "[flowcore]" in entry_points


def test_the_wheel_of_core_holds_what_is_no_python(wheels):
    with zipfile.ZipFile(wheels["flowcore"]) as wheel:
        files = set(wheel.namelist())
    package = ROOT / "core" / "src" / "flowcore"
    others = [path for path in package.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}]
    assert others
    assert {f"flowcore/{path.relative_to(package).as_posix()}" for path in others} <= files


def test_every_extra_of_core_is_a_plugin_of_the_same_version(wheels):
    with zipfile.ZipFile(wheels["flowcore"]) as wheel:
        metadata = wheel.read("flowcore-0.1.0.dist-info/METADATA").decode()
    for name in NAMES[1:]:
        extra = name.removeprefix("flowcore_")
        assert f"Requires-Dist: flowcore-{extra}==0.1.0; extra == '{extra}'" in metadata


def test_what_is_installed_is_six_distributions(with_htex):
    installed = {path.name.partition("-")[0] for path in with_htex.parents[1].glob("lib/*/site-packages/*.dist-info")}
    expected = {"flowcore", "flowcore_htex", "attrs", "cloudpickle", "pluggy", "pyzmq"}
    assert installed == expected | ({"tomli"} if sys.version_info < (3, 11) else set())


@pytest.mark.parametrize("python", ["with_htex", "with_the_oldest"])
def test_a_script_runs_on_htex_in_an_environment_of_its_own(python, tmp_path, request):
    (tmp_path / "script.py").write_text(
        dedent("""
        import os
        import flowcore
        from flowcore import Config, python_app
        from flowcore.executors import HighThroughputExecutor

        @python_app
        def worker():
            import os
            return os.getpid()

        if __name__ == "__main__":
            with flowcore.load(Config(executors=[HighThroughputExecutor(max_workers=1)])):
                assert worker().result(120) != os.getpid()
            print("done in a worker process")
        """)
    )
    done = _run(request.getfixturevalue(python), "script.py", cwd=tmp_path)
    assert done.splitlines()[-1] == "done in a worker process"


def test_the_command_finds_every_installed_component_sound(with_htex, tmp_path):
    told = _run(with_htex.parent / "flowcore", "plugins", "check", cwd=tmp_path)
    assert "htex (flowcore-htex 0.1.0): ok: HighThroughputExecutor" in told
    assert "core (flowcore 0.1.0): ok: LocalProvider" in told


def test_a_script_runs_on_threads_without_the_other_plugins(with_threads, tmp_path):
    (tmp_path / "script.py").write_text(
        dedent("""
        import sys
        import flowcore
        from flowcore import Config, python_app
        from flowcore.executors import ThreadPoolExecutor

        @python_app
        def double(x):
            return 2 * x

        with flowcore.load(Config(executors=[ThreadPoolExecutor(max_threads=2)])):
            print(double(double(21)).result(120), "zmq" in sys.modules)
        """)
    )
    assert _run(with_threads, "script.py", cwd=tmp_path).splitlines()[-1] == "84 False"


@pytest.mark.parametrize(
    ("statement", "extra"),
    [
        ("from flowcore.executors import HighThroughputExecutor", "htex"),
        ("from flowcore import HighThroughputExecutor", "htex"),
        ("from flowcore.executors.radical import ResourceConfig", "radical"),
    ],
)
def test_an_executor_that_is_not_installed_ends_with_its_install_command(with_threads, tmp_path, statement, extra):
    told = _run(with_threads, "-c", statement, cwd=tmp_path, code=1)
    assert told.splitlines()[-1] == f"pip install 'flowcore[{extra}]'"
