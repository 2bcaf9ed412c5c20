"""LocalProvider, and the provider with faults, keep the contract of providers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flowcore.launchers.simple import SimpleLauncher
from flowcore.providers.base import Provider
from flowcore.providers.local import LocalProvider
from flowcore.testing.faults import FaultyProvider
from flowcore.testing.providers import ProviderConformance


class TestLocalProvider(ProviderConformance):
    def make_provider(self, tmp_path: Path, **options: Any) -> Provider:
        return LocalProvider(script_dir=str(tmp_path / "scripts"), **options)


class TestLocalProviderWithSimpleLauncher(ProviderConformance):
    def make_provider(self, tmp_path: Path, **options: Any) -> Provider:
        return LocalProvider(script_dir=str(tmp_path / "scripts"), launcher=SimpleLauncher(), **options)


class TestFaultyProvider(ProviderConformance):
    def make_provider(self, tmp_path: Path, **options: Any) -> Provider:
        return FaultyProvider(script_dir=str(tmp_path / "scripts"), **options)
