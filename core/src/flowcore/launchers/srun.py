"""The launcher that starts the copies with Slurm's `srun`, on every node of a block."""

from __future__ import annotations

from typing import ClassVar, Final

from flowcore.launchers.base import Launcher, announce, bash

# srun kills its tasks when it gets a SIGTERM. So it has a process group of its own (set -m), the step that it makes has
# a name by which it is found again, and the step is what gets the signal; srun itself is told two seconds later.
# srun without --cpus-per-task ignores what the job was given (since 22.05): hence SRUN_CPUS_PER_TASK. A wait that a
# trap interrupts has not waited: hence the loop.
SCRIPT: Final = """\
flowcore_step=flowcore-$BASHPID-$RANDOM
flowcore_end_step() {{
  flowcore_interrupted=yes
  [ -z "$flowcore_last_word" ] || return
  for flowcore_id in $(squeue --noheader --steps --jobs="$SLURM_JOB_ID" --Format='StepID:.64,StepName:.64' |
    while read -r flowcore_id flowcore_name; do
      [ "$flowcore_name" != "$flowcore_step" ] || echo "$flowcore_id"
    done)
  do scancel --signal=TERM "$flowcore_id"; done
  ( trap - TERM INT HUP; sleep 2; kill -s TERM "$flowcore_srun" ) >/dev/null 2>&1 &
  flowcore_last_word=$!
}}
set +e
trap flowcore_end_step TERM INT HUP
flowcore_last_word=
[ -z "${{SLURM_CPUS_PER_TASK:-}}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
set -m
srun --job-name="$flowcore_step" {options} {command} </dev/null &
flowcore_srun=$!
set +m
while :; do
  flowcore_interrupted=
  wait "$flowcore_srun"
  flowcore_code=$?
  [ -n "$flowcore_interrupted" ] || break
done
[ -z "$flowcore_last_word" ] || kill "$flowcore_last_word" 2>/dev/null
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
        return announce(self, told) + SCRIPT.format(options=options, command=bash(command))
