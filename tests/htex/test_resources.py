"""Requests of tasks: packed on nodes, assigned by id, enforced by killing, refused where no node can meet them."""

from __future__ import annotations
