"""The release this package belongs to; peers of another release do not serve each other."""

from __future__ import annotations

from typing import Final

RELEASE: Final = "0.1.0"
