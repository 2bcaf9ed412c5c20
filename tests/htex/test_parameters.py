"""Each constructor parameter has a test that is named after it; bad values are refused where they are given."""

from __future__ import annotations
