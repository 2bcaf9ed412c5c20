"""The providers for PBS, Torque, LSF and HTCondor keep the contract of providers, as far as fake commands can tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.schedulers import fake_scheduler
from flowcore.providers import CondorProvider, LSFProvider, PBSProProvider, TorqueProvider
from flowcore.providers.batch import BatchProvider
from flowcore.testing.providers import ProviderConformance


class OnAFakeScheduler(ProviderConformance):
    provider_class: type[BatchProvider]

    @pytest.fixture(autouse=True)
    def _nothing_is_left(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        self._submitted = []
        family = self.provider_class.__name__.removesuffix("Provider").lower()
        with fake_scheduler(family, tmp_path / "fake", monkeypatch):
            yield

    def make_provider(self, tmp_path: Path, **options: Any) -> BatchProvider:
        return self.provider_class(script_dir=str(tmp_path / "scripts"), **options)


class TestPBSProProviderOnAFake(OnAFakeScheduler):
    provider_class = PBSProProvider


class TestTorqueProviderOnAFake(OnAFakeScheduler):
    provider_class = TorqueProvider


class TestLSFProviderOnAFake(OnAFakeScheduler):
    provider_class = LSFProvider


class TestCondorProviderOnAFake(OnAFakeScheduler):
    provider_class = CondorProvider
