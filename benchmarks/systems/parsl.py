"""Parsl, with its HighThroughputExecutor."""

from __future__ import annotations

from systems.apps import Apps


class Adapter(Apps):
    """See `Apps`."""

    module = "parsl"
