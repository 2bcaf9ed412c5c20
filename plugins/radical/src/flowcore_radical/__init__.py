"""Runs flowcore tasks on RADICAL-Pilot."""
