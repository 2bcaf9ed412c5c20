#!/bin/bash
#SBATCH --job-name=@{job_name}
#SBATCH --output=@{stdout}
#SBATCH --error=@{stderr}
#SBATCH --nodes=@{nodes}
#SBATCH --ntasks-per-node=@{tasks_per_node}
#SBATCH --cpus-per-task=@{cpus_per_task}
#SBATCH --mem=@{memory}
#SBATCH --time=@{walltime}
#SBATCH --partition=@{partition}
#SBATCH --account=@{account}
#SBATCH --qos=@{qos}
#SBATCH --constraint=@{constraint}
#SBATCH --clusters=@{clusters}
#SBATCH --gpus-per-node=@{gpus_per_node}
#SBATCH --gres=@{gres}
#SBATCH --@{exclusive}
#SBATCH --no-requeue
@{scheduler_options}

@{prologue}
# Slurm counts from the start of the allocation, which may be long before this; new ones say when it ends.
if [ "${SLURM_JOB_END_TIME:-0}" -gt 0 ]; then FLOWCORE_BLOCK_END=$SLURM_JOB_END_TIME; fi
@{worker_init}
@{command}
