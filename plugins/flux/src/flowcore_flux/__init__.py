"""Runs flowcore tasks as Flux jobs."""
