"""FluxExecutor has the parameters it will have, and says what is missing before it can run a task."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from flowcore.errors import OptionalModuleMissing
from flowcore.executors import FluxExecutor
from flowcore.executors.errors import ExecutorError, UnsupportedFeatureError

PARAMETERS = {
    "provider": None,
    "working_dir": None,
    "label": "FluxExecutor",
    "flux_executor_kwargs": {},
    "flux_path": None,
    "launch_cmd": None,
}


def test_names_order_and_defaults_are_those_of_the_specification():
    parameters = inspect.signature(FluxExecutor).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == PARAMETERS
    assert list(parameters) == list(PARAMETERS)


def test_without_flux_it_names_what_is_missing_and_where_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OptionalModuleMissing) as caught:
        FluxExecutor(label="cluster_flux")
    told = str(caught.value)
    assert told.startswith("executor 'cluster_flux' needs Flux, and there is no command 'flux'")
    assert "spack install flux-sched" in told
    assert "flux-core" in told.splitlines()[-1]
    assert isinstance(caught.value, ImportError)


def test_a_flux_path_that_is_no_command_is_named():
    with pytest.raises(OptionalModuleMissing, match="no command '/opt/none/flux'"):
        FluxExecutor(flux_path="/opt/none/flux")


def test_with_flux_it_says_that_this_version_cannot_drive_it(monkeypatch, tmp_path: Path):
    command = tmp_path / "flux"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UnsupportedFeatureError, match=r"found .*/flux, but this version of flowcore-flux cannot drive"
    ) as caught:
        FluxExecutor()
    assert isinstance(caught.value, ExecutorError)
