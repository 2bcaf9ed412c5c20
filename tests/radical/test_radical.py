"""RadicalPilotExecutor has the parameters it will have; ResourceConfig checks its own already."""

from __future__ import annotations

import inspect
import pickle
import re
import sys

import attrs
import pytest

from flowcore.errors import ConfigurationError, OptionalModuleMissing
from flowcore.executors.errors import UnsupportedFeatureError
from flowcore.executors.radical import RadicalPilotExecutor, ResourceConfig

PARAMETERS = {"label": "RadicalPilot", "resource_config": None, "bulk_mode": True, "launch_cmd": None}
RESOURCES = {"resource": "local.localhost", "walltime": 60, "cpus": 4, "gpus": 0, "project": None}


def test_names_order_and_defaults_are_those_of_the_specification():
    parameters = inspect.signature(RadicalPilotExecutor).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == PARAMETERS
    assert list(parameters) == list(PARAMETERS)


def test_without_the_engine_it_names_what_is_missing_and_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "radical", raising=False)
    with pytest.raises(OptionalModuleMissing) as caught:
        RadicalPilotExecutor(label="radical_pilot", resource_config=ResourceConfig(), bulk_mode=True)
    told = str(caught.value)
    assert told.startswith("executor 'radical_pilot' needs RADICAL-Pilot; `pip install radical.pilot` brings it")
    assert "missing: radical.pilot" in told


def test_with_the_engine_it_says_that_this_version_cannot_drive_it(monkeypatch, tmp_path):
    (tmp_path / "radical" / "pilot").mkdir(parents=True)
    for package in ("radical", "radical/pilot"):
        (tmp_path / package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnsupportedFeatureError, match=r"found the module radical.pilot, but this version of flowcore-"):
        RadicalPilotExecutor()
    sys.modules.pop("radical", None)


@pytest.mark.parametrize("value", ["local.localhost", {"cpus": 4}, ResourceConfig])
def test_what_is_no_resource_config_is_refused_first(value):
    with pytest.raises(ConfigurationError, match="resource_config takes a ResourceConfig"):
        RadicalPilotExecutor(resource_config=value)


def test_a_resource_config_has_the_names_of_the_specification():
    parameters = inspect.signature(ResourceConfig).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == RESOURCES


def test_the_example_of_the_specification_is_a_resource_config():
    config = ResourceConfig(resource="local.localhost", walltime=60, cpus=4, gpus=0, project="my_project")
    assert attrs.asdict(config) == RESOURCES | {"project": "my_project"}


def test_a_resource_config_is_frozen_compares_by_value_and_pickles():
    config = ResourceConfig(cpus=8)
    assert config == ResourceConfig(cpus=8) != ResourceConfig(cpus=9)
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.cpus = 9


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"resource": "localhost"}, "resource is written 'site.machine'"),
        ({"resource": None}, "resource is written 'site.machine'"),
        ({"walltime": 0}, "walltime=0): a whole number of minutes, 1 or more, is needed"),
        ({"walltime": "01:00:00"}, "walltime='01:00:00'): a whole number of minutes"),
        ({"cpus": 0}, "cpus=0): a whole number of cores, 1 or more"),
        ({"cpus": True}, "cpus=True): a whole number"),
        ({"cpus": 2.5}, "cpus=2.5): a whole number"),
        ({"gpus": -1}, "gpus=-1): a whole number of GPUs, 0 or more"),
        ({"project": ""}, "project is the name of an allocation"),
        ({"project": 3}, "project is the name of an allocation"),
    ],
)
def test_a_resource_that_cannot_be_is_refused_by_name(values, fault):
    with pytest.raises(ConfigurationError, match=re.escape(fault)):
        ResourceConfig(**values)
