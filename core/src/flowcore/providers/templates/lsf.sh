#!/bin/bash
#BSUB -L /bin/bash
#BSUB -J @{job_name}
#BSUB -o @{stdout}
#BSUB -e @{stderr}
#BSUB -W @{minutes}
#BSUB -nnodes @{node_count}
#BSUB -n @{slots}
#BSUB -R @{span}
#BSUB -R @{memory}
#BSUB -q @{queue}
#BSUB -P @{project}
@{scheduler_options}

@{prologue}
@{worker_init}
@{command}
