"""However a script ends, it ends soon, says once what it left unfinished, and leaves no process behind."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from waiting import eventually

MARK = "FLOWCORE_TEST_SCRIPT"
PATIENCE = 60.0
"""Seconds for a busy machine; the scripts' own bounds are checked by what they leave, not by how long they took."""

PREAMBLE = """
import os, signal, subprocess, sys, threading, time
import flowcore
from flowcore import Config, bash_app, join_app, python_app
from flowcore.executors import ThreadPoolExecutor

held = threading.Event()

@python_app
def hold():
    held.wait()

@python_app
def same(x):
    return x

@bash_app
def sleep(seconds):
    return f"sleep {seconds}"

def load(**options):
    return flowcore.load(Config(executors=[ThreadPoolExecutor(max_threads=2)], **options))

def ready():
    print("ready", flush=True)
"""


@attrs.frozen
class Script:
    """A running script; its processes are known by a variable in their environment."""

    process: subprocess.Popen[str]
    mark: str

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], PATIENCE)[0]
        assert self.process.stdout.readline() == "ready\n"

    def end(self) -> tuple[int, str]:
        """Return the exit code and the error output."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors

    def processes(self) -> list[int]:
        """Find those that have the variable in their environment, the script itself apart."""
        needle = f"{MARK}={self.mark}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if needle in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != self.process.pid:
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def leaves_nothing(self) -> bool:
        """Whether the processes end, those included that others start meanwhile."""
        deadline = time.monotonic() + PATIENCE
        while processes := self.processes():
            if time.monotonic() > deadline:
                return False
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    handle = os.pidfd_open(process)
                    select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
                    os.close(handle)
        return True


class Runner:
    def __init__(self) -> None:
        self.scripts: list[Script] = []

    def __call__(self, body: str) -> Script:
        mark = uuid.uuid4().hex
        process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + textwrap.dedent(body)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, MARK: mark},
            start_new_session=True,
        )
        self.scripts.append(Script(process, mark))
        return self.scripts[-1]

    def close(self) -> None:
        for script in self.scripts:
            script.process.kill()
            for process in script.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            script.process.communicate()


@pytest.fixture
def run() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


def warned(errors: str, count: int) -> bool:
    return errors.count("RuntimeWarning: ") == 1 and f"while {count} flowcore tasks were unfinished" in errors


class TestOrderlyEnds:
    def test_the_end_of_a_script_with_unfinished_tasks(self, run: Runner) -> None:
        code, errors = run("load(); fs = [hold() for _ in range(5)]; [same(f) for f in fs]").end()
        assert code == 0
        assert warned(errors, 10)
        assert "flowcore.clear()" in errors

    @pytest.mark.parametrize(
        "body",
        [
            "load(); same(1).result()",
            "load(); same(1).result(); flowcore.clear()",
            "load(); time.sleep(0)",
            "with load(exit_mode='wait'): fs = [same(n) for n in range(100)]",
            "with load(): same(1).result()",
            "load().cleanup()",
            "load(); same(1); flowcore.clear(); load(); same(2); flowcore.clear()",
            "load(initialize_logging=False); same(1).result()",
            "load(); t = threading.Thread(target=lambda: same(1).result()); t.start(); same(2).result(); t.join()",
        ],
    )
    def test_nothing_unfinished_is_nothing_to_say(self, run: Runner, body: str) -> None:
        assert run(body).end() == (0, "")

    def test_sys_exit(self, run: Runner) -> None:
        code, errors = run("load(); hold(); sys.exit(7)").end()
        assert code == 7
        assert warned(errors, 1)

    def test_an_uncaught_exception(self, run: Runner) -> None:
        code, errors = run("load(); hold(); raise KeyError('mine')").end()
        assert code == 1
        assert "KeyError: 'mine'" in errors
        assert warned(errors, 1)

    def test_two_runs_give_one_warning(self, run: Runner) -> None:
        code, errors = run("load(); hold(); flowcore.DataFlowKernel().submit(held.wait, ())").end()
        assert code == 0
        assert warned(errors, 2)

    def test_a_callback_that_exits_spares_no_run(self, run: Runner) -> None:
        body = """
        for kernel in (load(), flowcore.DataFlowKernel()):
            kernel.submit(held.wait, ()).add_done_callback(lambda _: sys.exit(3))
        """
        code, errors = run(body).end()
        assert code == 0
        assert warned(errors, 2)

    def test_futures_are_done_when_atexit_handlers_run(self, run: Runner) -> None:
        script = run(
            "import atexit; load(); f = hold(); atexit.register(lambda: print(repr(f.exception(0)), flush=True))"
        )
        output, _ = script.process.communicate(timeout=PATIENCE)
        assert "ShutdownError" in output

    def test_a_task_that_never_ends_does_not_keep_the_script(self, run: Runner) -> None:
        code, errors = run("load(); same(1).result(); fs = [python_app(lambda: held.wait())() for _ in range(9)]").end()
        assert code == 0
        assert warned(errors, 9)

    def test_a_join_body_that_never_ends_does_not_keep_it_either(self, run: Runner) -> None:
        code, errors = run("load(); join_app(lambda: held.wait())()").end()
        assert code == 0
        assert warned(errors, 1)

    def test_a_thread_that_waits_for_a_task_is_let_go(self, run: Runner) -> None:
        body = """
        load()
        def wait():
            try:
                hold().result()
            except flowcore.errors.ShutdownError:
                print("let go", flush=True)
        import flowcore.errors
        waiting = threading.Thread(target=wait)
        waiting.start()
        while not flowcore.dfk().task_count:
            time.sleep(0.01)
        """
        script = run(body)
        output, errors = script.process.communicate(timeout=PATIENCE)
        assert output == "let go\n"
        assert warned(errors, 1)


class TestSignals:
    def test_ctrl_c_once(self, run: Runner) -> None:
        script = run("load(); f = hold(); ready(); f.result()")
        script.wait_until_ready()
        script.process.send_signal(signal.SIGINT)
        code, errors = script.end()
        assert code == -signal.SIGINT
        assert "KeyboardInterrupt" in errors
        assert warned(errors, 1)

    def test_ctrl_c_twice(self, run: Runner) -> None:
        body = """
        import select, socket
        woken, waker = socket.socketpair()
        waker.setblocking(False)
        signal.set_wakeup_fd(waker.fileno())
        class Slow(ThreadPoolExecutor):
            def shutdown(self):
                assert woken.recv(9) == bytes([signal.SIGINT])
                ready()
                assert select.select([woken], [], [], 60)[0]  # the second signal comes in here
                super().shutdown()
                print("shut down", flush=True)
        flowcore.load(Config(executors=[Slow()]))
        f = hold()
        ready()
        f.result()
        """
        script = run(body)
        script.wait_until_ready()
        script.process.send_signal(signal.SIGINT)
        script.wait_until_ready()
        script.process.send_signal(signal.SIGINT)
        output, errors = script.process.communicate(timeout=PATIENCE)
        assert output == "shut down\n"
        assert warned(errors, 1)

    def test_ctrl_c_that_the_script_catches(self, run: Runner) -> None:
        body = """
        load()
        f = hold()
        try:
            ready()
            f.result()
        except KeyboardInterrupt:
            assert same(1).result() == 1
            held.set()
            flowcore.clear()
        """
        script = run(body)
        script.wait_until_ready()
        script.process.send_signal(signal.SIGINT)
        assert script.end() == (0, "")

    def test_ctrl_c_in_the_middle_of_calls(self, run: Runner) -> None:
        body = """
        load()
        try:
            ready()
            while True:
                same(same([same(1)]))
        except KeyboardInterrupt:
            flowcore.clear()
        """
        script = run(body)
        script.wait_until_ready()
        script.process.send_signal(signal.SIGINT)
        assert script.end()[0] == 0

    def test_sigterm(self, run: Runner) -> None:
        script = run("load(); sleep(600); f = hold(); ready(); f.result()")
        script.wait_until_ready()
        script.process.terminate()
        assert script.end()[0] == -signal.SIGTERM
        assert script.leaves_nothing()

    @pytest.mark.parametrize("module", ["ledger", "thread_pool", "course", "loader"])
    def test_a_handler_may_end_the_run_within_any_call(self, run: Runner, module: str) -> None:
        body = f"""
        import flowcore.errors

        left = 0
        signal.signal(signal.SIGTERM, lambda *_: flowcore.clear(wait=False))

        def watch(frame, event, _):
            global left
            if frame.f_code.co_filename.endswith("/{module}.py") and event in ("call", "c_call", "c_return"):
                left -= 1
                if left == 0:
                    signal.raise_signal(signal.SIGTERM)

        number = 0
        while left <= 0:
            number += 1
            left, futures = number, []
            sys.setprofile(watch)
            try:
                load(initialize_logging=False)
                futures.append(same(same([same(1)])))
                futures.append(futures[0][0])
                futures[1].result()
                flowcore.clear()
            except (flowcore.errors.NoDataFlowKernelError, flowcore.errors.ShutdownError):
                pass
            finally:
                sys.setprofile(None)
            for future in futures:
                future.exception(timeout=60)
            flowcore.clear(wait=False)
        print(number)
        """
        script = run(body)
        output, errors = script.process.communicate(timeout=240)
        assert errors == ""
        assert int(output) > 3


def running_command(run: Runner, body: str) -> Script:
    """Start a script, and return when its bash app is known to run."""
    os.mkfifo("up")
    script = run(
        f"""
        @bash_app
        def command():
            return "trap '' TERM; sleep 600 & echo up > up; sleep 601"
        {body}
        """
    )
    descriptor = os.open("up", os.O_RDONLY | os.O_NONBLOCK)
    assert select.select([descriptor], [], [], PATIENCE)[0]
    os.close(descriptor)
    return script


class TestCommands:
    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_they_end_when_the_script_is_killed(self, run: Runner, number: signal.Signals) -> None:
        script = running_command(run, "load(); command().result()")
        eventually(lambda: len(script.processes()) >= 3)  # one that is being started may not bear its mark yet
        script.process.send_signal(number)
        assert script.end()[0] == -number
        assert script.leaves_nothing()

    def test_they_end_with_the_script(self, run: Runner) -> None:
        os.mkfifo("end")
        script = running_command(run, "load(); f = command(); open('end').close()")
        Path("end").write_text("")
        code, errors = script.end()
        assert code == 0
        assert warned(errors, 1)
        assert script.leaves_nothing()


class TestForks:
    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize(
        "child",
        [
            "sys.exit(0)",
            "flowcore.clear()",
            "kernel.cleanup()",
            "flowcore.clear(wait=False); sys.exit(0)",
            "kernel.wait_for_current_tasks()",
            "pass",
        ],
    )
    def test_a_child_that_exits_does_not_end_the_parents_run(self, run: Runner, child: str) -> None:
        body = f"""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        class Told(ThreadPoolExecutor):
            def shutdown(self):
                print("shutdown in", "parent" if os.getpid() == parent else "child", flush=True)
                super().shutdown()
        parent = os.getpid()
        kernel = flowcore.load(Config(executors=[Told()]))
        f = hold()
        child = os.fork()
        if child == 0:
            {child}
            sys.exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert same(1).result() == 1
        held.set()
        f.result()
        flowcore.clear()
        """
        script = run(body)
        output, errors = script.process.communicate(timeout=PATIENCE)
        assert (output, errors) == ("shutdown in parent\n", "")

    def test_a_child_inside_a_with_block_leaves_the_run_alone(self, run: Runner) -> None:
        body = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        with load(exit_mode="wait") as kernel:
            f = hold()
            child = os.fork()
            if child == 0:
                sys.exit(5)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
            assert same(1).result() == 1
            held.set()
        """
        assert run(body).end() == (0, "")

    def test_a_child_is_told_that_the_run_is_not_its_own(self, run: Runner) -> None:
        body = """
        load()
        child = os.fork()
        if child == 0:
            try:
                same(1)
            except flowcore.errors.NoDataFlowKernelError:
                os._exit(3)
            os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        """
        assert run("import flowcore.errors\n" + textwrap.dedent(body)).end() == (0, "")

    def test_a_child_may_have_a_run_with_the_same_memoizer(self, run: Runner) -> None:
        body = """
        from flowcore.dataflow.memoization import BasicMemoizer
        memoizer = BasicMemoizer()
        load(memoizer=memoizer)
        child = os.fork()
        if child == 0:
            flowcore.clear()
            load(run_dir="child", memoizer=memoizer)
            assert same(1).result() == 1
            os._exit(6)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6
        assert same(2).result() == 2
        """
        assert run(body).end() == (0, "")

    def test_a_child_may_have_a_run_of_its_own(self, run: Runner) -> None:
        body = """
        load()
        child = os.fork()
        if child == 0:
            flowcore.clear()
            load(run_dir="child")
            assert same(1).result() == 1
            sys.exit(6)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6
        assert same(2).result() == 2
        """
        assert run(body).end() == (0, "")
