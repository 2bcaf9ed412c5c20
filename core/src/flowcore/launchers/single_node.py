"""The launcher that starts all copies of the command on the node where the block's script runs."""

from __future__ import annotations

import shlex
from typing import ClassVar, Final

from flowcore.launchers.base import Launcher, announce

# Each copy leads a process group of its own (set -m), so that a signal reaches whatever the copy has started. A signal
# that comes while copies are being started stops that, and is passed on once more to the one that it may have missed.
# SIGINT is not passed on as such: a shell that is just starting a program may lose it. A wait that a trap interrupts
# has not waited: hence the loop. `jobs -pr` names running copies only, whose numbers cannot have come to mean others.
SCRIPT: Final = """\
flowcore_command={command}
flowcore_end_copies() {{
  flowcore_interrupted=yes
  for flowcore_copy in $(jobs -pr); do kill -s TERM -- "-$flowcore_copy" 2>/dev/null; done
}}
set +e -m
trap flowcore_end_copies TERM INT HUP
flowcore_interrupted=
flowcore_copies=()
for ((flowcore_i = 0; flowcore_i < {copies} && ${{#flowcore_interrupted}} == 0; flowcore_i++)); do
  ( trap - TERM INT HUP; set +m; eval "$flowcore_command" ) </dev/null &
  flowcore_copies+=($!)
done
[ -z "$flowcore_interrupted" ] || flowcore_end_copies
flowcore_failed=0
flowcore_first=0
for flowcore_pid in "${{flowcore_copies[@]}}"; do
  while :; do
    flowcore_interrupted=
    wait "$flowcore_pid"
    flowcore_code=$?
    [ -n "$flowcore_interrupted" ] || break
  done
  if [ "$flowcore_code" -ne 0 ]; then
    flowcore_failed=$((flowcore_failed + 1))
    [ "$flowcore_first" -ne 0 ] || flowcore_first=$flowcore_code
  fi
done
if [ "$flowcore_failed" -lt {tolerated} ]; then exit 0; fi
exit "$flowcore_first"
"""


class SingleNodeLauncher(Launcher):
    """Starts `tasks_per_node * nodes_per_block` copies on one node, and ends when all have ended.

    The exit code is 0, or that of the first copy that failed: if all copies failed, or, with `fail_on_any`, if any did.
    SIGTERM, SIGINT and SIGHUP make the script send SIGTERM to every copy and what it has started.

    Args:
        debug: say on standard error what is started.
        fail_on_any: whether one failed copy makes the block a failed one.
    """

    one_node: ClassVar[bool] = True

    def __init__(self, debug: bool = True, fail_on_any: bool = False) -> None:
        super().__init__(debug=debug)
        self.fail_on_any = fail_on_any

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return the script that starts the copies and waits for them."""
        copies = tasks_per_node * nodes_per_block
        tolerated = 1 if self.fail_on_any else copies
        script = SCRIPT.format(command=shlex.quote(command), copies=copies, tolerated=tolerated)
        return announce(self, f"{copies} cop{'y' if copies == 1 else 'ies'} on this node") + script
