"""Where modules are found: in tasks as in the user's script, and in flowcore's own processes never by accident."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

_STDLIB: Final = os.path.dirname(os.__file__)  # noqa: PTH120 - these processes have to start fast

BARE: Final = (
    "import sys; sys.path[:1] = sys.path[:1] * (sys.path[0] != ''); from importlib import import_module; "
    "import_module(sys.argv.pop(1)).main()"
)
"""What `python -c` runs to start the module that is named next: the current folder hides no module that it needs."""


def search_path() -> tuple[list[str], list[str]]:
    """Return this process' search path, absolute: what comes before the standard library, and what comes after."""
    entries = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100 - symbolic links are to stay
    for place, entry in enumerate(entries):
        if entry == _STDLIB or os.path.basename(entry) == f"python{sys.version_info[0]}{sys.version_info[1]}.zip":  # noqa: PTH119
            return entries[:place], entries[place:]
    return [], entries


def extend_path(path: Sequence[Sequence[str]]) -> None:
    """Search as the process does that `search_path` was called in; what is known here stays known."""
    before, after = path
    sys.path[:] = [*before, *(entry for entry in sys.path if entry not in before)]
    sys.path += [entry for entry in after if entry not in sys.path]
