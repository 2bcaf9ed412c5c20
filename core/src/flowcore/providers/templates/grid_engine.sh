#!/bin/bash
#$ -S /bin/bash
#$ -N @{job_name}
#$ -o @{stdout}
#$ -e @{stderr}
#$ -j n
#$ -r n
#$ -cwd
#$ -l h_rt=@{walltime}
#$ -l mem_free=@{memory}
#$ -q @{queue}
#$ -pe @{parallel_environment}
@{scheduler_options}

# Grid Engine ends a job by killing the process group of its script, which launchers and their copies have left. This
# guard, in a session of its own, waits for the end of the script, and then ends what is left of the job's session.
# The script goes on when the guard has left the group: else the end of a very short job would be the guard's, too.
if [ "$(ps -o sid= -p $$ | tr -d ' ')" = $$ ]; then
  read -r _ < <(exec setsid /bin/bash -c '
    echo
    exec >/dev/null
    tail --pid="$1" -f /dev/null
    pkill -TERM -s "$1" || exit 0
    for ((i = 0; i < 50; i++)); do
      sleep 0.1
      pgrep -s "$1" || exit 0
    done
    pkill -KILL -s "$1"
  ' flowcore-guard $$ </dev/null 2>/dev/null)
fi
@{prologue}
@{worker_init}
@{command}
