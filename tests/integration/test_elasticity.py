"""Blocks follow a bursty load, from none to three and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from bursts import bursts, watched
from flowcore.providers import LocalProvider


@pytest.mark.slow
def test_blocks_of_this_machine_follow_a_bursty_load_at_once(tmp_path: Path) -> None:
    provider = watched(LocalProvider)(init_blocks=0, max_blocks=3)
    bursts(provider, tmp_path)
    assert provider.asked == 9
