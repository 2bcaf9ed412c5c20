"""What every test has: a folder of its own as working directory, signals as usual, no run left loaded after it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import flowcore

pytest.register_assert_rewrite("bursts", "htex_rig", "nodes")
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")  # before any test module is imported: `given` looks only then


def pytest_configure() -> None:
    """Let the programs that tests start have the signals that a shell in the background or `nohup` keeps from them.

    A handler is for this process alone; those it starts get the default.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def _known(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let `dev.py` know which of the things that are named for a process come from this one."""
    (tmp_path_factory.getbasetemp() / f"pid-{os.getpid()}").touch()


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _cleared() -> Iterator[None]:
    """Forget whatever run the test has loaded, without waiting for its tasks, be it over or not."""
    yield
    flowcore.clear(wait=False)
