"""Hosts in network namespaces: managers over TCP with CURVE, and what happens when the network is cut."""

from __future__ import annotations
