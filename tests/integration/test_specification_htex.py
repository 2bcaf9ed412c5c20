"""The examples of the specification page that concern htex, targeting, resources, lifecycle and errors, as they stand."""

from __future__ import annotations
