"""The futures that calls of apps give, under the name by which scripts import them."""

from __future__ import annotations

from flowcore.dataflow.futures import AppFuture, DataFuture

__all__ = ["AppFuture", "DataFuture"]
