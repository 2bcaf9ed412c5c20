"""Files as arguments of apps, and how they get to where a task runs."""
