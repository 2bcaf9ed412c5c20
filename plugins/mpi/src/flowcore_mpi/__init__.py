"""Runs multi-node MPI applications as flowcore tasks."""
