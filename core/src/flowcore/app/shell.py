"""Run the command of a bash app; runs where the task runs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from flowcore.app.errors import (
    AppBadFormatting,
    AppTimeout,
    BadStdStreamFile,
    BashAppNoReturn,
    BashExitFailure,
    MissingOutputs,
)
from flowcore.process_exit import await_exit

KILL_AFTER: Final = 2.0
"""Seconds that a command has between the polite and the final signal when its walltime is over."""

TAIL_BYTES: Final = 1000
"""How much of a failed command's error output goes into the error."""

# Told the process group of each command when it starts and when it ends; kills those left when this process dies.
_GUARD: Final = """
trap '' INT TERM HUP
groups=' '
while read -r sign group; do
    case $sign in
        +) groups="$groups$group " ;;
        -) groups="${groups%% "$group" *} ${groups#* "$group" }" ;;
    esac
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
"""


# Begins the command when the guard knows its process group; never, where this process died before that.
_GATE: Final = 'read -r _ && exec /bin/bash -c "$1" </dev/null'


class BashCall:
    """What a worker runs for one call of a bash app: the body, then the command line that it returns.

    Args:
        function: the app's body.
        accepted: the options (`stdout`, `stderr`, `walltime`, `outputs`) that the body takes as parameters.
        walltime: seconds for the command; None for any time it takes.
    """

    OPTIONS: Final = frozenset({"stdout", "stderr", "walltime", "outputs"})
    """The keywords that tell how the command runs."""

    def __init__(self, function: Callable[..., Any], accepted: frozenset[str], walltime: float | None = None) -> None:
        self.function = function
        self.accepted = accepted
        self.walltime = walltime
        self.__name__: str = getattr(function, "__name__", "bash_app")

    @property
    def untimed(self) -> BashCall:
        """What is called where no walltime is given."""
        return BashCall(self.function, self.accepted)

    def __call__(self, /, *args: Any, **kwargs: Any) -> int:
        """Return 0, or raise what `run_command` raises."""
        options = {name: kwargs.get(name) for name in self.OPTIONS}
        passed = {name: value for name, value in kwargs.items() if name not in self.OPTIONS or name in self.accepted}
        command = self._command_line(args, passed)
        options["walltime"] = self.walltime
        run_command(command, name=self.__name__, **options)
        return 0

    def _command_line(self, args: Sequence[Any], kwargs: dict[str, Any]) -> str:
        try:
            command = self.function(*args, **kwargs)
        except AttributeError as error:
            message = f"bash_app {self.__name__} returned no command line: {error}"
            raise BashAppNoReturn(message) from error
        except IndexError as error:
            message = f"bash_app {self.__name__}: the command line cannot be formatted: {error}"
            raise AppBadFormatting(message) from error
        if not isinstance(command, str):
            fault = f"Expected a str for bash_app commandline, got {type(command)}"
            message = f"{fault}\n  the body of bash_app {self.__name__} has to return the command line"
            raise BashAppNoReturn(message)
        return command


def run_command(
    command: str,
    *,
    name: str,
    stdout: Any = None,
    stderr: Any = None,
    walltime: float | None = None,
    outputs: Sequence[Any] | None = None,
) -> None:
    """Run a command line with /bin/bash in a process group of its own, which ends with it.

    Raises:
        BadStdStreamFile: a stream cannot be opened.
        AppTimeout: `walltime` seconds were over; the whole process group is dead.
        BashExitFailure: the exit code was not 0.
        MissingOutputs: a file of `outputs` is not there.
    """
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(_opened(stdout, "stdout"))
        err = stack.enter_context(_opened(stderr, "stderr"))
        if err is not None:
            err.write(f"--> executable follows <--\n{command}\n--> end executable <--\n".encode())
            err.flush()
        exit_code, late = _run(command, out, err, walltime)
    if late:
        message = f"bash_app {name} ran longer than its walltime of {walltime} s"
        raise AppTimeout(message)
    if exit_code != 0:
        path = None if stderr is None else os.fspath(_path_and_mode(stderr, "stderr")[0])
        raise BashExitFailure(name, exit_code, _tail(path), path)
    missing = [output for output in outputs or () if not Path(output).exists()]
    if missing:
        raise MissingOutputs(f"Missing outputs from app {name}", missing)


def _run(command: str, out: IO[bytes] | None, err: IO[bytes] | None, walltime: float | None) -> tuple[int, bool]:
    """Return the exit code, and whether the walltime ended it."""
    guard = _guard_of_this_process()
    late = threading.Event()
    with subprocess.Popen(
        ["/bin/sh", "-c", _GATE, "sh", command], stdin=subprocess.PIPE, stdout=out, stderr=err, start_new_session=True
    ) as process:
        try:
            with guard.over(process.pid), _deadline(process.pid, walltime, late):
                _open_gate(process)
                await_exit(process)
        finally:  # before the shell is reaped, while the group's number is its own
            _signal_group(process.pid, signal.SIGKILL)
    return process.returncode, late.is_set()


def _open_gate(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # the walltime was shorter than that
        process.stdin.write(b"\n")
        process.stdin.close()


@contextlib.contextmanager
def _deadline(group: int, walltime: float | None, late: threading.Event) -> Iterator[None]:
    """Signal the group when the walltime is over, and once more when that did not help."""
    if walltime is None:
        yield
        return

    def ask() -> None:
        late.set()
        _signal_group(group, signal.SIGTERM)

    timers = [
        threading.Timer(walltime, ask),
        threading.Timer(walltime + KILL_AFTER, _signal_group, (group, signal.SIGKILL)),
    ]
    for timer in timers:
        timer.daemon = True
        timer.name = f"flowcore-walltime-{group}"
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
            timer.join()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


class _Guard:
    """A shell that outlives this process by a moment, to kill the commands that it leaves behind."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        reading, self._writing = os.pipe()
        try:
            shell = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            os.close(self._writing)
            raise
        finally:
            os.close(reading)
        shell.returncode = 0  # nobody is to wait for it, or to be warned that nobody has

    @contextlib.contextmanager
    def over(self, group: int) -> Iterator[None]:
        """Have the process group killed if this process dies in the meantime."""
        self._tell(f"+ {group}\n")
        try:
            yield
        finally:
            self._tell(f"- {group}\n")

    def _tell(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._writing, line.encode())  # short enough to be written in one piece


_guard: _Guard | None = None
_guard_lock = threading.Lock()


def _guard_of_this_process() -> _Guard:
    global _guard
    with _guard_lock:
        if _guard is None or _guard.pid != os.getpid():
            _guard = _Guard()
        return _guard


def _path_and_mode(stream: Any, name: str) -> tuple[str | os.PathLike[str], str]:
    """Tell the path and the mode of a stream given as a path, a (path, mode) pair or a `File`."""
    given, mode = stream, "a"
    if isinstance(stream, tuple):
        if len(stream) != 2:
            message = f"{name}={stream!r}: a tuple is (path, mode)"
            raise BadStdStreamFile(message)
        stream, mode = stream
    elif hasattr(type(stream), "filepath"):  # of the class: a remote file has none here
        mode = "w"
    if not isinstance(mode, str) or not isinstance(stream, (str, os.PathLike)):
        message = f"{name} takes a path, a (path, mode) pair or a File, not {given!r}"
        raise BadStdStreamFile(message)
    return stream, mode


def check_stream(stream: Any, name: str) -> None:
    """Refuse what can be no stream.

    Raises:
        BadStdStreamFile: saying what would do.
    """
    if stream is None:
        return
    _, mode = _path_and_mode(stream, name)
    if not mode.strip("bt+") or set(mode) - set("wax+bt"):
        message = f"{name}: {mode!r} is no mode to write a file in; take 'w' or 'a'"
        raise BadStdStreamFile(message)


@contextlib.contextmanager
def _opened(stream: Any, name: str) -> Iterator[IO[bytes] | None]:
    if stream is None:
        yield None
        return
    place, mode = _path_and_mode(stream, name)
    path = os.fspath(place)
    binary = mode.replace("t", "").replace("b", "") + "b"
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        opened = Path(path).open(binary)  # noqa: SIM115 - closed below
    except (OSError, ValueError) as error:
        message = f"{name}: cannot open {path} in mode {mode!r}: {error}"
        raise BadStdStreamFile(message) from error
    with opened:
        yield opened


def _tail(path: str | None) -> str:
    if path is None:
        return ""
    with contextlib.suppress(OSError), Path(path).open("rb") as stream:
        stream.seek(max(0, stream.seek(0, 2) - TAIL_BYTES))
        return stream.read().decode(errors="replace").rstrip()
    return ""
