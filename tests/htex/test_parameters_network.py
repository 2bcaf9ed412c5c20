"""Constructor parameters that say who connects to whom: addresses, ports, keys, heartbeats."""

from __future__ import annotations
