"""What a task finds around it: variables, paths, streams, signals, and no secret."""

from __future__ import annotations
