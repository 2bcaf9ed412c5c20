"""The configurations on the pages about providers are valid, and their scripts can be shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flowcore import Config
from flowcore.executors.block import BlockExecutor

PAGES = sorted((Path(__file__).parents[2] / "docs" / "providers").glob("*.md"))


def configuration(page: Path) -> Config:
    """Return what the first Python block of a page defines, after trying those that follow it."""
    namespace: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(block, namespace)
    config = namespace["config"]
    assert isinstance(config, Config)
    return config


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "index"], ids=lambda page: page.stem)
def test_the_configuration_of_a_page_makes_a_script(page: Path) -> None:
    executors = configuration(page).executors
    assert executors
    for executor in executors:
        assert isinstance(executor, BlockExecutor)
        assert "exit 0" in executor.provider.script("exit 0")


def test_the_index_names_every_page() -> None:
    index = next(page for page in PAGES if page.stem == "index").read_text()
    assert all(f"({page.name})" in index for page in PAGES if page.stem != "index")
