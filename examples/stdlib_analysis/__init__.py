"""The parts of `analyze_stdlib.py`: plain functions that measure, and the apps that run them in parallel."""
