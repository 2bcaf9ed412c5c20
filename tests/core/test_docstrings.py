"""The examples in docstrings hold."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("core/src", "plugins/*/src") for path in sorted(ROOT.glob(f"{folder}/**/*.py"))]
WITH_EXAMPLES = [path for path in SOURCES if ">>> " in path.read_text(encoding="utf-8")]


def _name(path: Path) -> str:
    below = path.relative_to(next(parent for parent in path.parents if parent.name == "src"))
    return ".".join(below.with_suffix("").parts)


@pytest.mark.parametrize("module", [_name(path) for path in WITH_EXAMPLES])
def test_the_examples_of_a_module_hold(module: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(module))
    assert tried > 0
    assert failed == 0
