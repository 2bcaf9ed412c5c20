"""The launcher that starts the copies with Slurm's `srun`, on every node of a block."""

from __future__ import annotations

import shlex
from typing import ClassVar, Final

from flowcore.launchers.base import Launcher, announce, bash

GRACE: Final = 2
"""Seconds that the copies have between SIGTERM and SIGKILL."""

# srun kills its tasks when it gets a SIGTERM, and Slurm signals the processes of a task one after the other: what waits
# for a child would go on before its own turn comes. So srun has a process group of its own (set -m), and its standard
# input is a line to the tasks: when it is closed, each task tells all of its copy at once (TASK). srun itself is told
# after `GRACE`. srun without --cpus-per-task ignores what the job was given (since 22.05): hence SRUN_CPUS_PER_TASK.
# A wait that a trap interrupts has not waited: hence the loops.
SCRIPT: Final = """\
flowcore_end_step() {{
  flowcore_interrupted=yes
  [ -z "$flowcore_last_word" ] || return
  exec {{flowcore_line}}>&-
  (
    trap - TERM INT HUP
    read -rt {grace} <> <(:)
    kill -s TERM "$flowcore_srun"
  ) >/dev/null 2>&1 {{flowcore_stdout}}>&- &
  flowcore_last_word=$!
}}
set +e
[ -z "${{SLURM_CPUS_PER_TASK:-}}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
flowcore_last_word=
exec {{flowcore_stdout}}>&1
set -m
coproc flowcore_step {{
  trap - TERM INT HUP
  exec srun {options} {command} >&"$flowcore_stdout" {{flowcore_stdout}}>&-
}}
flowcore_srun=$!
set +m
exec {{flowcore_line}}>&"${{flowcore_step[1]}}"-
trap flowcore_end_step TERM INT HUP
while :; do
  flowcore_interrupted=
  wait "$flowcore_srun"
  flowcore_code=$?
  [ -n "$flowcore_interrupted" ] || break
done
[ -z "$flowcore_last_word" ] || kill "$flowcore_last_word" 2>/dev/null
exit "$flowcore_code"
"""

# bash has something to say about jobs that end: not to the user. Slurm's own signals reach the copy without help.
TASK: Final = """\
flowcore_command={command}
trap flowcore_interrupted=yes TERM INT HUP
exec {{flowcore_stderr}}>&2 2>/dev/null
set -m
(
  exec 2>&"$flowcore_stderr" {{flowcore_stderr}}>&-
  trap - TERM INT HUP
  set +m
  eval "$flowcore_command"
) </dev/null &
flowcore_copy=$!
( read -r; kill -s TERM -- "-$flowcore_copy" ) <&0 >/dev/null &
flowcore_reader=$!
set +m
while :; do
  flowcore_interrupted=
  wait "$flowcore_copy"
  flowcore_code=$?
  [ -n "$flowcore_interrupted" ] || break
done
kill -s KILL "$flowcore_reader"
exit "$flowcore_code"
"""


class SrunLauncher(Launcher):
    """Starts `tasks_per_node` copies on each node of the block, in one job step of Slurm.

    It ends when all copies have ended; its exit code is srun's, which is the highest of theirs. SIGTERM, SIGINT and
    SIGHUP make the script send SIGTERM to every copy, and two seconds later SIGKILL.

    Args:
        debug: say on standard error what is started.
        overrides: further options for srun, as shell text, such as `"--mpi=pmi2 --cpu-bind=none"`.
    """

    schedulers: ClassVar[frozenset[str] | None] = frozenset({"slurm", "local"})

    def __init__(self, debug: bool = True, overrides: str = "") -> None:
        super().__init__(debug=debug)
        self.overrides = overrides

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return the script that starts the step and waits for it."""
        copies = tasks_per_node * nodes_per_block
        options = f"--nodes={nodes_per_block} --ntasks={copies} {self.overrides}".rstrip()
        told = f"{tasks_per_node} cop{'y' if tasks_per_node == 1 else 'ies'} on each of {nodes_per_block} node(s)"
        return announce(self, told) + step(options, command)


def step(options: str, command: str) -> str:
    """Return the script that runs one step, whose tasks are copies of the command."""
    return SCRIPT.format(grace=GRACE, options=options, command=bash(TASK.format(command=shlex.quote(command))))
