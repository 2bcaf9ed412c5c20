"""Constructor parameters that say which workers a node has, and what work they are given."""

from __future__ import annotations
