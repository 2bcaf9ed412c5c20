"""Shell text for jobs that leave signs in a folder, of which a test can wait for all."""

from __future__ import annotations

import shlex
from pathlib import Path


def last_act(folder: Path, name: str) -> str:
    """Return a command that leaves `up-NAME` when it runs, and `told-NAME` when it is told to end.

    Args:
        folder: seen by all copies.
        name: shell text that is another one for each copy.
    """
    quoted = shlex.quote(str(folder))
    return f"sleep 600 &\ntrap 'echo > {quoted}/told-'{name}'; exit 0' TERM\necho > {quoted}/up-{name}\nwait"
