"""Launchers beyond the contract: what each one adds."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from flowcore.launchers.single_node import SingleNodeLauncher
from flowcore.launchers.wrapped import WrappedLauncher


def run(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/bash"], input=text, capture_output=True, encoding="utf-8", timeout=60, check=False)


def one_fails(tmp_path: Path, code: int) -> str:
    """Return a command of which exactly one copy fails."""
    return f"if mkdir {tmp_path}/taken 2>/dev/null; then exit {code}; fi"


def test_one_failed_copy_of_several_is_forgiven(tmp_path: Path) -> None:
    assert run(SingleNodeLauncher()(one_fails(tmp_path, 9), 3, 1)).returncode == 0


def test_one_failed_copy_of_several_counts_with_fail_on_any(tmp_path: Path) -> None:
    assert run(SingleNodeLauncher(fail_on_any=True)(one_fails(tmp_path, 9), 3, 1)).returncode == 9


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_the_script_alone_ends_all_that_the_copies_started(number: signal.Signals) -> None:
    text = SingleNodeLauncher()("sleep 600 | { echo ready; exec sleep 600; }", 2, 1)
    with subprocess.Popen(
        ["/bin/bash", "-c", text], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        os.kill(process.pid, number)
        assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 128 + signal.SIGTERM


def test_set_e_in_worker_init_does_not_hide_the_exit_code() -> None:
    assert run("set -eu\n" + SingleNodeLauncher()("exit 7", 2, 1)).returncode == 7


def test_set_e_within_the_command_has_its_usual_effect() -> None:
    done = run(SingleNodeLauncher()("set -e; false; echo not reached", 1, 1))
    assert (done.returncode, done.stdout) == (1, "")


def test_wrapped_puts_its_text_before_the_command() -> None:
    done = run(WrappedLauncher("env GREETING='hello you'")("echo $GREETING && echo again", 1, 1))
    assert done.stdout == "hello you\nagain\n"


def test_wrapped_hands_over_the_exit_code_of_what_it_prepends() -> None:
    assert run(WrappedLauncher("false")("exit 7", 1, 1)).returncode == 1


def test_their_options_show_in_their_repr() -> None:
    assert repr(WrappedLauncher("nice", debug=False)) == "WrappedLauncher(debug=False, prepend='nice')"
    assert repr(SingleNodeLauncher(fail_on_any=True)) == "SingleNodeLauncher(debug=True, fail_on_any=True)"
