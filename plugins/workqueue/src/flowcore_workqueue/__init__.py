"""Runs flowcore tasks on Work Queue."""
