"""The kernel: it knows tasks, their order and their outcome, and hands them to executors."""
