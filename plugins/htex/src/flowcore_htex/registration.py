"""What a manager says of itself when it registers, and whether it fits the run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

from flowcore_htex import wire
from flowcore_htex.version import RELEASE

_NONE: Final = type(None)

_BEYOND: Final = 1 << 64
"""No number is so large: ids have 64 bits, and no size is anywhere near."""

_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "manager": (str,),
    "hostname": (str,),
    "block_id": (str,),
    "pid": (int,),
    "cores": (int,),
    "memory": (int, float),
    "disk": (int, float),
    "gpus": (int,),
    "worker_count": (int,),
    "start": (int, float),
    "draining": (bool,),
    "drain_reason": (str, _NONE),
    "seconds_left": (int, float, _NONE),
    "held": (list,),
}


def python_version() -> str:
    """Return the minor version of this Python, which peers have to share."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def misfit(info: Mapping[str, Any]) -> str | None:
    """Tell why a manager does not fit this run, None where it does."""
    for what, theirs, ours in (
        ("protocol", info.get("protocol"), wire.VERSION),
        ("flowcore", info.get("release"), RELEASE),
        ("Python", info.get("python"), python_version()),
        ("byte order", info.get("byteorder"), sys.byteorder),
    ):
        if theirs != ours:
            return f"the manager has {what} {theirs}, the user's process has {what} {ours}"
    wrong = [name for name, kinds in _KINDS.items() if not _is(info.get(name), kinds)]
    if not wrong and not info["manager"]:
        wrong.append("manager")
    if not wrong and info["worker_count"] < 1:
        wrong.append("worker_count")
    if not wrong and not all(_is(tid, (int,)) for tid in info["held"]):
        wrong.append("held")
    return f"its registration lacks a proper value for {', '.join(wrong)}" if wrong else None


def _is(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return kinds == (bool,)
    return isinstance(value, kinds) and not (isinstance(value, (int, float)) and not 0 <= value < _BEYOND)
