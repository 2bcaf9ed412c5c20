"""GridEngineProvider keeps its contract, on a real Grid Engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clusters.grid_engine import GridEngineCell
from flowcore.providers.base import Provider
from flowcore.providers.grid_engine import GridEngineProvider
from flowcore.testing.providers import ProviderConformance

pytestmark = pytest.mark.slow


class TestGridEngineProvider(ProviderConformance):
    @pytest.fixture(autouse=True)
    def _nothing_is_left(self, cell: GridEngineCell) -> Iterator[None]:
        self._submitted = []
        yield
        cell.clear()

    def make_provider(self, tmp_path: Path, **options: Any) -> Provider:
        return GridEngineProvider(script_dir=str(tmp_path / "scripts"), **options)
