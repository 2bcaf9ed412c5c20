"""What `import flowcore` costs: little, and nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("pluggy", "zmq", "cloudpickle", "sqlite3", "attr", "attrs", "importlib.metadata", "asyncio", "multiprocessing")
NAMES = [
    "AUTO_LOGNAME",
    "Config",
    "DataFlowKernel",
    "File",
    "bash_app",
    "clear",
    "dfk",
    "join_app",
    "load",
    "python_app",
    "set_file_logger",
    "set_stream_logger",
    "wait_for_current_tasks",
]


def _python(*words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_import_loads_nothing_heavy():
    code = f"import flowcore, sys; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    assert _python("-c", code).stdout.split() == []


@pytest.mark.performance
def test_import_takes_less_than_sixty_milliseconds():
    def milliseconds() -> float:
        """Return the processor time, which is all of it where nobody else wants the processor."""
        code = "import time; before = time.process_time(); import flowcore; print(time.process_time() - before)"
        return 1000 * float(_python("-c", code).stdout)

    milliseconds()  # compiles what is not compiled yet
    assert min(milliseconds() for _ in range(5)) < 60


def test_a_star_import_brings_the_names_of_the_user():
    code = "before = set(globals()); from flowcore import *; print(*sorted(set(globals()) - before - {'before'}))"
    assert _python("-c", code).stdout.split() == NAMES


def test_a_manifest_is_cheap_and_workers_need_no_plugin_machinery():
    code = "import flowcore.serialize, sys; print(*[m for m in ('pluggy', 'importlib.metadata') if m in sys.modules])"
    assert _python("-c", code).stdout.split() == []


def test_discovery_loads_no_executor_of_a_plugin():
    code = (
        "import sys; from flowcore import registry; registry.current(); "
        "print(*[m for m in sys.modules if m == 'zmq' or m.startswith('flowcore_') and m.endswith('.executor')])"
    )
    assert _python("-c", code).stdout.split() == []
