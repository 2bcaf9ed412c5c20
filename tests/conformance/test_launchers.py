"""The launchers of core keep the contract of launchers."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowcore.launchers.base import Launcher
from flowcore.launchers.simple import SimpleLauncher
from flowcore.launchers.single_node import SingleNodeLauncher
from flowcore.launchers.wrapped import WrappedLauncher
from flowcore.testing.launchers import LauncherConformance


class TestSimpleLauncher(LauncherConformance):
    def make_launcher(self, *, debug: bool = True) -> Launcher:
        return SimpleLauncher(debug=debug)

    def copies(self, tasks_per_node: int, nodes_per_block: int) -> int:
        return 1


class TestWrappedLauncher(LauncherConformance):
    def make_launcher(self, *, debug: bool = True) -> Launcher:
        return WrappedLauncher("env GREETING=hello", debug=debug)

    def copies(self, tasks_per_node: int, nodes_per_block: int) -> int:
        return 1


class TestSingleNodeLauncher(LauncherConformance):
    def make_launcher(self, *, debug: bool = True) -> Launcher:
        return SingleNodeLauncher(debug=debug)


class TestSingleNodeLauncherThatFailsOnAny(LauncherConformance):
    def make_launcher(self, *, debug: bool = True) -> Launcher:
        return SingleNodeLauncher(debug=debug, fail_on_any=True)


def test_a_failing_suite_shows_the_values(tmp_path: Path) -> None:
    class Launcher(SimpleLauncher):
        def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
            return "exit 8"

    class Suite(TestSimpleLauncher):
        def make_launcher(self, *, debug: bool = True) -> Launcher:
            return Launcher()

    with pytest.raises(AssertionError, match="assert 8 == 7"):
        Suite().test_a_failure_of_the_only_copy_is_its_own(tmp_path)
