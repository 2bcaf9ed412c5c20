"""Runs flowcore tasks on Acme."""
