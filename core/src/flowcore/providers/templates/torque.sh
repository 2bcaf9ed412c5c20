#!/bin/bash
#PBS -S /bin/bash
#PBS -N @{job_name}
#PBS -o @{stdout}
#PBS -e @{stderr}
#PBS -m n
#PBS -r n
#PBS -l walltime=@{walltime}
#PBS -l nodes=@{nodes}:ppn=@{cores}
#PBS -l mem=@{memory}
#PBS -q @{queue}
#PBS -A @{account}
@{scheduler_options}

@{prologue}
@{worker_init}
@{command}
