"""What every launcher must do: a suite that the tests of each one inherit."""
# ruff: noqa: D102 - the names of tests are claims

from __future__ import annotations

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowcore.launchers.base import Launcher
from flowcore.testing.commands import COMMANDS, printed

TIMEOUT = 90.0
"""Seconds that a launcher may take for a test on a busy machine."""

# A shell that has just forked, and not become a program yet, may take the signal: so nothing is started after the trap.
STUBBORN = "sleep 600 & trap 'trap : TERM; echo told; kill -KILL $! 2>/dev/null; exit 0' TERM; echo ready; wait $!"


class LauncherConformance(ABC):
    """Inherit, name the class `Test...`, and define `make_launcher`; needs pytest and /bin/bash.

    Launchers that need a resource manager override `run` as well, to run their text in a job of one node.

        class TestAcmeLauncher(LauncherConformance):
            def make_launcher(self, *, debug: bool = True) -> AcmeLauncher:
                return AcmeLauncher(debug=debug)
    """

    @abstractmethod
    def make_launcher(self, *, debug: bool = True) -> Launcher:
        """Return a new launcher."""

    def copies(self, tasks_per_node: int, nodes_per_block: int) -> int:
        """Tell how many copies run on one machine; override where that is not the product."""
        return tasks_per_node * nodes_per_block

    @contextmanager
    def start(self, text: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
        """Start the text as a provider does: a script for /bin/bash that leads its session, without input."""
        script = folder / "script.sh"
        script.write_text(text)
        process = subprocess.Popen(
            ["/bin/bash", str(script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            encoding="utf-8",
        )
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:  # the test has failed
                    os.killpg(process.pid, signal.SIGKILL)

    def run(self, text: str, folder: Path) -> tuple[int, str, str]:
        """Run the text, and return its exit code, standard output and standard error."""
        with self.start(text, folder) as process:
            out, err = process.communicate(timeout=TIMEOUT)
        return process.returncode, out, err

    @pytest.mark.parametrize("name", COMMANDS)
    def test_the_command_arrives_unchanged(self, name: str, tmp_path: Path) -> None:
        code, out, err = self.run(self.make_launcher()(COMMANDS[name], 1, 1), tmp_path)
        assert (code, out) == (0, printed(COMMANDS[name])), err[:2000]

    def test_it_starts_the_right_number_of_copies(self, tmp_path: Path) -> None:
        code, out, _ = self.run(self.make_launcher()("echo here", 2, 3), tmp_path)
        assert (code, out.split()) == (0, ["here"] * self.copies(2, 3))

    def test_a_failure_of_the_only_copy_is_its_own(self, tmp_path: Path) -> None:
        assert self.run(self.make_launcher()("exit 7", 1, 1), tmp_path)[0] == 7

    def test_a_failure_of_all_copies_is_its_own(self, tmp_path: Path) -> None:
        assert self.run(self.make_launcher()("exit 7", 2, 1), tmp_path)[0] == 7

    def test_a_command_that_is_not_there_fails_with_127(self, tmp_path: Path) -> None:
        assert self.run(self.make_launcher()("/there/is/no/such/program", 1, 1), tmp_path)[0] == 127

    def test_a_killed_command_fails(self, tmp_path: Path) -> None:
        assert self.run(self.make_launcher()("kill -KILL $BASHPID", 1, 1), tmp_path)[0] in {-9, 137}

    def test_sigterm_reaches_every_copy(self, tmp_path: Path) -> None:
        copies = self.copies(2, 1)
        with self.start(self.make_launcher()(STUBBORN, 2, 1), tmp_path) as process:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(copies)] == ["ready\n"] * copies
            os.killpg(process.pid, signal.SIGTERM)
            out, _ = process.communicate(timeout=TIMEOUT)
        assert out == "told\n" * copies, out

    def test_no_copy_outlives_a_script_that_is_told_to_end(self, tmp_path: Path) -> None:
        copies = self.copies(2, 1)
        # It is the last process that says so: a shell starts one that misses a signal to its group, if that comes just
        # before.
        sleeping = "/bin/bash -c 'echo ready; exec sleep 600'; echo late"
        with self.start(self.make_launcher()(sleeping, 2, 1), tmp_path) as process:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(copies)] == ["ready\n"] * copies
            os.killpg(process.pid, signal.SIGTERM)
            out, _ = process.communicate(timeout=TIMEOUT)  # ends when the last holder of the pipe does
        assert out == ""
        assert process.returncode != 0

    def test_debug_says_on_standard_error_what_starts_and_changes_nothing_else(self, tmp_path: Path) -> None:
        code, out, err = self.run(self.make_launcher(debug=True)("echo here; exit 3", 1, 1), tmp_path)
        quiet_code, quiet_out, quiet_err = self.run(
            self.make_launcher(debug=False)("echo here; exit 3", 1, 1), tmp_path
        )
        assert (code, out) == (quiet_code, quiet_out) == (3, "here\n")
        assert type(self.make_launcher()).__name__ in err
        assert quiet_err == ""

    def test_it_is_a_value_without_a_memory(self) -> None:
        launcher = self.make_launcher()
        assert launcher("echo", 1, 2) == launcher("echo", 1, 2) == self.make_launcher()("echo", 1, 2)
        assert type(launcher).__name__ in repr(launcher)
