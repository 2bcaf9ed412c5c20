"""Resource managers for tests: installed when they are missing, or the reason why they cannot be had."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from clusters.daemons import PATH

REQUIRED = "FLOWCORE_REQUIRE_ENGINES"
"""Where this variable is set, what is missing is installed, and what cannot be had is a failure; else tests skip."""

_POLICY = Path("/usr/sbin/policy-rc.d")
_WAIT = 600


class Unavailable(Exception):
    """What a test needs cannot be had here."""


def require(commands: Sequence[str], packages: Sequence[str]) -> None:
    """See to it that the commands are there; where the engines are required, by installing Debian packages."""
    try:
        _install(commands, packages)
    except Unavailable as error:
        give_up(str(error))


def give_up(reason: str) -> None:
    """Skip the test, or fail where the engines are required."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{reason}, and {REQUIRED} is set", pytrace=False)
    pytest.skip(reason)


@contextlib.contextmanager
def locked(command: str) -> Iterator[None]:
    """Hold a lock that all test processes of this machine share: on the program, so that no file has to be left."""
    program = shutil.which(command, path=PATH)
    assert program is not None
    with open(program, "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _missing(commands: Sequence[str]) -> list[str]:
    return [command for command in commands if shutil.which(command, path=PATH) is None]


def _install(commands: Sequence[str], packages: Sequence[str]) -> None:
    if not _missing(commands):
        return
    if not os.environ.get(REQUIRED):
        raise Unavailable(f"there is no {', '.join(_missing(commands))} here; {REQUIRED}=1 lets the tests install it")
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Unavailable(f"there is no {', '.join(_missing(commands))} here, and no root with apt-get to install it")
    with locked("apt-get"):
        if not _missing(commands):  # another test process has just done it
            return
        made = not _POLICY.exists()
        if made:  # else Debian starts the daemons with settings of its own
            _POLICY.write_text("#!/bin/sh\nexit 101\n")
            _POLICY.chmod(0o755)
        try:
            _apt("update")
            _apt("install", "--yes", "--no-install-recommends", *packages)
        finally:
            if made:
                _POLICY.unlink()
    if missing := _missing(commands):
        raise Unavailable(f"{', '.join(packages)} did not bring {', '.join(missing)}")


def _apt(*words: str) -> None:
    done = subprocess.run(
        ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        text=True,
        timeout=_WAIT,
        check=False,
    )
    if done.returncode != 0:
        raise Unavailable(f"apt-get {words[0]} failed: {done.stderr.strip()[-500:]}")
