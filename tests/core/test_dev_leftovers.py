"""`dev.py test` fails where tests leave something behind, and says what."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DEV = Path(__file__).resolve().parents[2] / "dev.py"
PATIENCE = 240

RUN = """
import sys
from pathlib import Path
import dev
dev.NETWORKS, dev.CONTROL_GROUPS = {Path("../networks").resolve()}, Path("../groups").resolve()
dev.LEFTOVER_PATIENCE = 0.5
sys.exit(dev.test(["-n", "0", "test_it.py"]))
"""

HEAD = """
import os, socket, subprocess, sys, tempfile
from pathlib import Path

CHECKOUT = Path(__file__).parent
NETWORKS, GROUPS = CHECKOUT.parent / "networks", CHECKOUT.parent / "groups"
TEMPORARY = Path(tempfile.gettempdir())

def test_it(tmp_path):
"""


class Checkout:
    """A folder with `dev.py`, and one test in a file; temporary directories are made in `temporary`."""

    def __init__(self, folder: Path) -> None:
        self.path, self.temporary = folder / "checkout", folder / "tmp"
        for path in (self.path, self.temporary, folder / "networks", folder / "groups"):
            path.mkdir()
        shutil.copy(DEV, self.path)

    def test(self, *body: str) -> tuple[int, str]:
        """Run a test with this body; return the exit code and the output."""
        (self.path / "test_it.py").write_text(HEAD + "".join(f"    {line}\n" for line in body))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        done = subprocess.run(
            [sys.executable, "-c", RUN],
            cwd=self.path,
            env={**environment, "FLOWCORE_VENV": sys.prefix, "TMPDIR": str(self.temporary)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            start_new_session=True,  # as a terminal gives it one
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.slow
def test_one_that_leaves_nothing_passes_and_its_temporary_directory_goes(checkout: Checkout) -> None:
    code, output = checkout.test(
        "(tmp_path / 'kept').touch()",
        "subprocess.run(['true'], check=True)",
        "(TEMPORARY / 'passing').mkdir()",
        "(TEMPORARY / 'passing').rmdir()",
    )
    assert code == 0, output
    assert list(checkout.temporary.iterdir()) == []


@pytest.mark.slow
def test_all_that_is_left_is_named(checkout: Checkout) -> None:
    code, output = checkout.test(
        "null = {name: subprocess.DEVNULL for name in ('stdin', 'stdout', 'stderr')}",
        "subprocess.Popen(['sleep', '599'], start_new_session=True, **null)",
        "subprocess.Popen(['sleep', '598'], start_new_session=True, env={}, cwd=tmp_path, **null)",
        "(TEMPORARY / 'file').touch()",
        "os.chdir(TEMPORARY)",
        "socket.socket(socket.AF_UNIX).bind('socket')",  # the whole path is too long for one
        "(CHECKOUT / 'stray').touch()",
        "(CHECKOUT / '.mypy_cache').mkdir()",
        "(tmp_path / f'pid-{os.getpid()}').touch()",
        "(NETWORKS / f'fc{os.getpid()}a-n1').touch()",
        "(GROUPS / 'flowcore_run').mkdir()",
        "(GROUPS / 'flowcore_run' / 'cgroup.procs').touch()",
    )
    for pid in re.findall(r"process (\d+): sleep 59[89]$", output, re.MULTILINE):
        os.kill(int(pid), signal.SIGKILL)
    assert code == 1
    assert "1 passed" in output, output
    listed = output.partition("left behind by the tests:\n")[2].partition("the temporary directory")[0]
    names = [re.sub(r"process \d+: |\S*/|(?<=fc)\d+", "", line).strip() for line in listed.splitlines()]
    assert sorted(names) == ["fca-n1", "file", "flowcore_run", "sleep 598", "sleep 599", "socket", "stray"]


@pytest.mark.slow
def test_what_a_run_does_in_spite_of_its_temporary_directory_is_told_from_what_others_do(checkout: Checkout) -> None:
    code, output = checkout.test(
        "(TEMPORARY.parent / 'of-this-run').touch()",
        "(TEMPORARY.parent / 'of-another').touch()",
        "(tmp_path / 'log').write_text(f'made {TEMPORARY.parent}/of-this-run/here')",
        "(NETWORKS / f'fc{os.getppid()}').touch()",
        "(NETWORKS / 'docker0').touch()",
    )
    assert code == 1
    assert "1 passed" in output, output
    assert str(checkout.temporary / "of-this-run") in output
    assert "of-another" not in output


@pytest.mark.slow
def test_the_temporary_directory_of_one_that_fails_is_kept(checkout: Checkout) -> None:
    code, output = checkout.test("(tmp_path / 'evidence').touch()", "assert not tmp_path")
    assert code == 1
    kept = re.search(r"the temporary directory of the tests is kept: (.*)", output)
    assert kept is not None
    assert list(Path(kept[1]).glob("p/**/evidence"))
    assert "left behind" not in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "number"),
    [("os.kill(os.getppid(), signal.SIGTERM)", signal.SIGTERM), ("os.killpg(0, signal.SIGINT)", signal.SIGINT)],
)
def test_whoever_ends_it_ends_the_tests_and_they_tidy_up(checkout: Checkout, target: str, number: int) -> None:
    code, output = checkout.test(
        "import select, signal",
        "woken, waker = socket.socketpair()",
        "waker.setblocking(False)",
        "signal.set_wakeup_fd(waker.fileno())",  # a signal just before a wait that knows nothing of it would not end it
        "sleeper = subprocess.Popen(['sleep', '597'], start_new_session=True)",
        "try:",
        f"    {target}",
        f"    select.select([woken], [], [], {PATIENCE})",
        "finally:",
        "    signal.set_wakeup_fd(-1)",
        "    sleeper.kill()",
        "    sleeper.wait()",
    )
    assert code == 128 + number, output
    assert "KeyboardInterrupt" in output
    assert "left behind" not in output
