"""What every test has: a folder of its own as working directory, and no run left loaded after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import flowcore


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cleared() -> Iterator[None]:
    """Forget whatever run the test has loaded, without waiting for its tasks."""
    yield
    flowcore.clear(wait=False)
