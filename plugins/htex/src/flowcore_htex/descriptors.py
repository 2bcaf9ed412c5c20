"""The limit on open files: raised where more are needed than a process gets by default."""

from __future__ import annotations

import resource

_ENOUGH = 1 << 20
"""How many to ask for where there is no limit; more is refused by many systems."""


def allow(wanted: int = _ENOUGH) -> int:
    """Raise the limit to `wanted`, as far as the hard limit goes, and never lower it; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft >= most:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
