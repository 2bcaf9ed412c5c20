"""Constructor parameters that say how processes are started: provider, command lines, containers, folders, logs."""

from __future__ import annotations
