from flowcore_mpi.executor import MPIExecutor as MPIExecutor
