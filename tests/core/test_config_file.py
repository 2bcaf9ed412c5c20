"""`Config.from_toml`: a file says what a constructor would, and every fault is told with file, table and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

import flowcore
from flowcore import Config, python_app
from flowcore.cli import main
from flowcore.errors import ConfigurationError, FlowcoreError
from flowcore.executors import HighThroughputExecutor, ThreadPoolExecutor
from flowcore.launchers import SrunLauncher
from flowcore.plugin_errors import PluginNotFound
from flowcore.providers import CondorProvider, SlurmProvider

CLUSTER = """
retries = 2
exit_mode = "wait"
checkpoint_files = ["a", "b"]

[[executors]]
class = "HighThroughputExecutor"
label = "cluster"
max_workers = inf
mem_per_worker = "4GB"
worker_port_range = [54000, 54100]
available_accelerators = ["0", "1"]

[executors.provider]
class = "SlurmProvider"
partition = "compute"
nodes_per_block = 2
walltime = "02:00:00"

[executors.provider.launcher]
class = "SrunLauncher"
overrides = "--mpibind=off"

[[executors]]
class = "ThreadPoolExecutor"
label = "here"
max_threads = 3
"""


def written(text: str) -> Path:
    """Write a configuration file into the test's folder, and return its path."""
    path = Path("run.toml")
    path.write_text(text, encoding="utf-8")
    return path


class TestValues:
    def test_options_and_components_are_those_of_the_constructors(self) -> None:
        config = Config.from_toml(written(CLUSTER))
        assert (config.retries, config.exit_mode, config.checkpoint_files) == (2, "wait", ("a", "b"))
        assert config.executors is not None
        cluster, here = config.executors
        assert isinstance(cluster, HighThroughputExecutor)
        assert (cluster.label, cluster.options.mem_per_worker) == ("cluster", 4000)
        assert cluster.options.worker_port_range == (54000, 54100)
        assert cluster.options.available_accelerators == ["0", "1"]
        assert isinstance(cluster.provider, SlurmProvider)
        assert (cluster.provider.partition, cluster.provider.nodes_per_block) == ("compute", 2)
        assert isinstance(cluster.provider.launcher, SrunLauncher)
        assert cluster.provider.launcher.overrides == "--mpibind=off"
        assert isinstance(here, ThreadPoolExecutor)
        assert (here.label, here.max_threads) == ("here", 3)

    def test_an_empty_file_is_the_default_configuration(self) -> None:
        assert attrs.asdict(Config.from_toml(written(""))) == attrs.asdict(Config())

    def test_a_run_can_be_made_of_it(self) -> None:
        flowcore.load(Config.from_toml(written('[[executors]]\nclass = "ThreadPoolExecutor"\nlabel = "mine"')))
        assert python_app(abs, executors=["mine"])(-3).result() == 3

    def test_what_a_file_cannot_say_is_given_by_keyword(self) -> None:
        config = Config.from_toml(written("retries = 2\nlost_retries = 7"), retry_handler=_half, retries=3)
        assert (config.retries, config.lost_retries, config.retry_handler) == (3, 7, _half)

    def test_the_path_may_be_a_text(self) -> None:
        assert Config.from_toml(str(written("retries = 1"))).retries == 1

    def test_a_table_without_a_class_is_a_dict(self) -> None:
        table = '[executors.provider]\nclass = "CondorProvider"\n[executors.provider.environment]\nA = "1"'
        config = Config.from_toml(written(f'[[executors]]\nclass = "HighThroughputExecutor"\n{table}'))
        assert config.executors is not None
        [executor] = config.executors
        assert isinstance(executor, HighThroughputExecutor)
        assert isinstance(executor.provider, CondorProvider)
        assert executor.provider.environment == {"A": "1"}

    def test_a_companion_of_an_executor_is_made_too(self) -> None:
        table = '[executors.resource_config]\nclass = "ResourceConfig"\ncpus = 0'
        with pytest.raises(
            ConfigurationError, match=r"resource_config of .* number 1: ResourceConfig: ResourceConfig.cpus=0.: a whole"
        ):
            Config.from_toml(written(f'[[executors]]\nclass = "RadicalPilotExecutor"\n{table}'))


def _half(_error: BaseException, _task: Any) -> float:
    return 0.5


HTEX = '[[executors]]\nclass = "ThreadPoolExecutor"\n\n[[executors]]\nclass = "HighThroughputExecutor"\n'
PROVIDER = HTEX + '[executors.provider]\nclass = "LocalProvider"\n'
FIRST, SECOND = "[[executors]] number 1", "[[executors]] number 2"

FAULTS = {
    "an unknown option": ("retires = 1", ["retires: Config has no such option; did you mean 'retries'?"]),
    "an option like no other": ("xyzzy = 1", ["xyzzy: Config has no such option; there are: app_cache, "]),
    "a wrong option": ("retries = -1", ["Config(retries=-1): "]),
    "no grammar": ("retries = ]", ["it is no TOML: ", "at line 1"]),
    "one executor for several": ('[executors]\nclass = "ThreadPoolExecutor"', ["executors: ", "write [[executors]]"]),
    "a text for an executor": ('executors = ["threads"]', ["executors: ", "write [[executors]]"]),
    "no class": ('[[executors]]\nlabel = "x"', [FIRST, "class: which executor is it?", "ThreadPoolExecutor"]),
    "a class that is no text": ("[[executors]]\nclass = 5", [FIRST, "class: which executor is it?"]),
    "an unknown class": (
        '[[executors]]\nclass = "Threads"',
        [FIRST, "class: no executor named 'Threads'", "there are: "],
    ),
    "a class of another kind": (
        HTEX + '[executors.provider]\nclass = "SrunLauncher"',
        [f"provider of {SECOND}: class: no provider named 'SrunLauncher'"],
    ),
    "a provider without a class": (
        HTEX + "[executors.provider]\nmax_blocks = 2",
        [f"provider of {SECOND}: class: which provider is it?", "SlurmProvider"],
    ),
    "an unknown parameter": (
        HTEX + "max_worker = 3",
        [f"{SECOND}: max_worker: HighThroughputExecutor has no such parameter; did you mean 'max_workers'?"],
    ),
    "a wrong parameter": (HTEX + "max_workers = 0", [f"{SECOND}: HighThroughputExecutor: max_workers=0: "]),
    "a wrong parameter of a provider": (
        PROVIDER + 'init_blocks = "1"',
        [f"provider of {SECOND}: LocalProvider", "init_blocks"],
    ),
    "a parameter that is missing": (
        PROVIDER + '[executors.provider.launcher]\nclass = "WrappedLauncher"',
        [f"launcher of provider of {SECOND}: prepend: it is missing, and WrappedLauncher has no default for it"],
    ),
    "a time without quotes": (PROVIDER + "cmd_timeout = 00:01:00", ["write it in quotes: cmd_timeout = '00:01:00'"]),
    "a component for an option that takes none": (
        '[memoizer]\nclass = "BasicMemoizer"',
        ["memoizer: a file cannot make it; give it by keyword: Config.from_toml(..., memoizer=...)"],
    ),
    "two executors with one label": (
        '[[executors]]\nclass = "ThreadPoolExecutor"\n' * 2,
        ["unique labels (label='threads')"],
    ),
}


class TestFaults:
    @pytest.mark.parametrize("name", FAULTS)
    def test_a_fault_is_told_with_file_table_and_key(self, name: str) -> None:
        text, words = FAULTS[name]
        with pytest.raises(ConfigurationError) as caught:
            Config.from_toml(written(text))
        assert str(caught.value).startswith("run.toml: ")
        assert [word for word in words if word not in str(caught.value)] == []

    def test_a_file_that_is_not_there(self) -> None:
        with pytest.raises(ConfigurationError, match=r"^none\.toml: cannot be read: No such file or directory$"):
            Config.from_toml("none.toml")

    def test_a_file_that_is_no_text(self) -> None:
        Path("bytes.toml").write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigurationError, match=r"^bytes\.toml: it is no TOML: "):
            Config.from_toml("bytes.toml")

    def test_the_cause_is_kept(self) -> None:
        with pytest.raises(FlowcoreError) as caught:
            Config.from_toml(written('[[executors]]\nclass = "Threads"'))
        assert isinstance(caught.value.__cause__, PluginNotFound)


class TestCommand:
    def test_the_scripts_of_a_file_can_be_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["provider", "show", str(written(CLUSTER))]) == 0
        out = capsys.readouterr().out
        assert "#SBATCH --partition=compute" in out
        assert "--mpibind=off" in out
        assert "# executor here: it has no blocks" in out

    def test_a_fault_is_told_once_with_its_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["provider", "show", str(written("retires = 1"))]) == 1
        assert capsys.readouterr().err == "run.toml: retires: Config has no such option; did you mean 'retries'?\n"

    def test_a_file_without_executors_is_explained(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["provider", "show", str(written("retries = 1"))]) == 1
        assert "run.toml: it names no executors" in capsys.readouterr().err
