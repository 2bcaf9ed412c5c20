"""What the executor tells of itself is true before, during and after tasks, losses and shutdown."""

from __future__ import annotations
