"""Runs flowcore tasks in a pool of threads of the user's process."""
