"""`@bash_app`: the command line, its exit, its streams and outputs, and whatever a body may return instead."""

from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path
from typing import Any

import pytest

from flowcore import File, bash_app, python_app
from flowcore.app.errors import AppBadFormatting, BashAppNoReturn, BashExitFailure, MissingOutputs
from flowcore.app.shell import BashCall

pytestmark = pytest.mark.usefixtures("kernel")


@bash_app
def shell(command: str, stdout: Any = None, stderr: Any = None, outputs: Any = (), inputs: Any = ()) -> str:
    return command


class TestExit:
    def test_zero_is_the_result(self) -> None:
        assert shell("true").result() == 0

    @pytest.mark.parametrize(
        ("command", "code"),
        [("exit 15", 15), ("no-such-command-at-all", 127), ("/etc/passwd", 126), ("exit $((1/0))", 1), ("false", 1)],
    )
    def test_any_other_code_is_an_error_that_has_it(self, command: str, code: int) -> None:
        error = shell(command, stderr="err.txt").exception()
        assert isinstance(error, BashExitFailure)
        assert (error.app_name, error.exitcode) == ("shell", code)
        assert str(error).startswith(f"bash_app shell failed with unix exit code {code}\n")

    def test_the_error_shows_the_end_of_the_error_output_and_its_path(self) -> None:
        error = shell("seq 1000 >&2; echo the reason >&2; exit 3", stderr="err.txt").exception()
        assert isinstance(error, BashExitFailure)
        assert error.stderr_path == "err.txt"
        assert str(error).endswith("1000\nthe reason\n--> end executable <--") or str(error).endswith("the reason")
        assert len(str(error)) < 2000

    def test_without_error_output_the_error_says_how_to_keep_it(self) -> None:
        assert "call it with stderr=flowcore.AUTO_LOGNAME to keep it" in str(shell("exit 3").exception())

    def test_a_signal_is_named(self) -> None:
        error = shell("kill -SEGV $$").exception()
        assert isinstance(error, BashExitFailure)
        assert error.exitcode == -signal.SIGSEGV
        assert "was killed by SIGSEGV" in str(error)

    def test_the_error_pickles(self) -> None:
        error = shell("exit 3", stderr="e").exception()
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.exitcode) == (str(error), 3)


class TestBody:
    @pytest.mark.parametrize("returned", [None, 5, b"true", ["true"]])
    def test_anything_but_a_string_is_an_error(self, returned: Any) -> None:
        error = bash_app(lambda: returned)().exception()
        assert isinstance(error, BashAppNoReturn)
        assert isinstance(error, ValueError)
        fault, remedy = str(error).splitlines()
        assert fault == f"Expected a str for bash_app commandline, got {type(returned)}"
        assert remedy == "  the body of bash_app <lambda> has to return the command line"

    def test_an_attribute_error_is_no_command_line(self) -> None:
        error = bash_app(lambda: None.format())().exception()
        assert isinstance(error, BashAppNoReturn)
        assert isinstance(error.__cause__, AttributeError)

    def test_a_format_with_too_few_values_is_bad_formatting(self) -> None:
        error = bash_app(lambda: "{} {}".format("x"))().exception()  # noqa: F524 - which is what is tested
        assert isinstance(error, AppBadFormatting)
        assert isinstance(error.__cause__, IndexError)

    def test_any_other_exception_is_its_own(self) -> None:
        def fail() -> str:
            raise KeyError("x")

        assert isinstance(bash_app(fail)().exception(), KeyError)

    def test_a_parameter_named_cache_is_an_ordinary_one(self) -> None:
        @bash_app
        def write(cache: str, function: str = "f", executors: str = "e", join: str = "j") -> str:
            return f"echo {cache} {function} {executors} {join} > out"

        assert write(cache="c", function="g").result() == 0
        assert Path("out").read_text() == "c g e j\n"

    def test_a_body_without_special_parameters_takes_them_all(self) -> None:
        @bash_app
        def plain() -> str:
            return "echo out; echo err >&2; touch made"

        future = plain(stdout="o", stderr="e", outputs=["made"], walltime=600, label="l")
        assert future.result() == 0
        assert future.outputs[0].result().filepath == "made"
        assert Path("o").read_text() == "out\n"

    def test_a_body_with_special_parameters_sees_them(self) -> None:
        @bash_app
        def tell(stdout: Any, stderr: Any, walltime: Any, label: Any, inputs: Any, outputs: Any) -> str:
            return f"echo {stdout} {stderr} {walltime} {label} {inputs[0]} {outputs[0].filename}; touch {outputs[0]}"

        future = tell(stdout="o", stderr="e", walltime=600, label="l", inputs=["i"], outputs=[File("m")])
        assert future.result() == 0
        assert Path("o").read_text() == "o e 600 l i m\n"

    def test_special_parameters_may_come_by_position(self) -> None:
        assert shell("echo x", "o").result() == 0
        assert Path("o").read_text() == "x\n"

    def test_a_default_in_the_signature_counts(self) -> None:
        @bash_app
        def tell(stdout: str = "default.txt") -> str:
            return "echo x"

        future = tell()
        assert future.stdout == "default.txt"
        future.result()
        assert Path("default.txt").read_text() == "x\n"

    def test_an_async_body_is_run(self) -> None:
        @bash_app
        async def tell() -> str:
            return "echo x > out"

        assert tell().result() == 0
        assert Path("out").read_text() == "x\n"

    def test_a_method(self) -> None:
        class Tool:
            name = "x"

            @bash_app
            def run(self, stdout: Any = None) -> str:
                return f"echo {self.name}"

        assert Tool().run(stdout="o").result() == 0
        assert Path("o").read_text() == "x\n"

    def test_futures_among_the_arguments(self) -> None:
        number = python_app(lambda: 5)()

        @bash_app
        def tell(value: Any, more: Any, stdout: Any = None) -> str:
            return f"echo {value} {more}"

        tell(number, [number], stdout="o").result()
        assert Path("o").read_text() == "5 [5]\n"


class TestCommand:
    @pytest.mark.parametrize(
        ("command", "output"),
        [
            ("echo 'a  b' \"c$((1+1))\"", "a  b c2\n"),
            ("cat <<'END'\nx $y\nEND", "x $y\n"),
            ("[[ a == a ]] && echo {1..3}", "1 2 3\n"),
            ("printf '%s\\n' é", "é\n"),
            ("# nothing but a comment", ""),
        ],
    )
    def test_it_is_bash_and_survives_any_quoting(self, command: str, output: str) -> None:
        assert shell(command, stdout="o").result() == 0
        assert Path("o").read_text() == output

    def test_it_reads_nothing_from_the_terminal(self) -> None:
        assert shell("cat", stdout="o").result() == 0
        assert Path("o").read_text() == ""

    def test_it_has_the_environment_of_the_script(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FLOWCORE_TEST_WORD", "seen")
        shell("echo $FLOWCORE_TEST_WORD", stdout="o").result()
        assert Path("o").read_text() == "seen\n"

    def test_what_it_leaves_in_the_background_ends_with_it(self) -> None:
        assert shell("sleep 600 & echo $!", stdout="o").result() == 0
        process = int(Path("o").read_text())
        with pytest.raises(ProcessLookupError):
            wait_until_gone(process)

    def test_two_at_once_do_not_end_each_other(self) -> None:
        slow = shell("read -t 0.3 < <(sleep 5); echo done", stdout="o")
        fast = [shell("true") for _ in range(10)]
        assert [future.result() for future in fast] == [0] * 10
        slow.result()
        assert Path("o").read_text() == "done\n"


class TestOutputs:
    def test_they_are_there_when_their_futures_are_done(self) -> None:
        future = shell("echo x > a; echo y > b", outputs=[File("a"), "b"])
        assert [Path(output.result()).read_text() for output in future.outputs] == ["x\n", "y\n"]

    def test_a_missing_one_is_named(self) -> None:
        future = shell("touch a", outputs=[File("a"), File("b"), File("c")])
        error = future.exception()
        assert isinstance(error, MissingOutputs)
        assert [output.filepath for output in error.outputs] == ["b", "c"]
        assert str(error).splitlines()[0] == "Missing outputs from app shell: b, c"
        assert future.outputs[0].exception() is error

    def test_a_failed_command_says_so_rather_than_what_is_missing(self) -> None:
        assert isinstance(shell("exit 2", outputs=[File("a")]).exception(), BashExitFailure)

    def test_a_chain_of_files(self) -> None:
        first = shell("echo 1 > first", outputs=[File("first")])
        second = bash_app(lambda inputs, outputs: f"cat {inputs[0]} > {outputs[0]}; echo 2 >> {outputs[0]}")(
            inputs=[first.outputs[0]], outputs=[File("second")]
        )
        assert Path(second.outputs[0].result()).read_text() == "1\n2\n"


def test_the_call_pickles() -> None:
    call = pickle.loads(pickle.dumps(BashCall(os.path.basename, frozenset())))
    assert call("/a/true") == 0


def wait_until_gone(process: int) -> None:
    """Raise `ProcessLookupError` when the process is gone; it was killed by now, and needs reaping only."""
    handle = os.pidfd_open(process)
    try:
        import select

        assert select.select([handle], [], [], 60)[0]
    finally:
        os.close(handle)
    raise ProcessLookupError
