"""WorkQueueExecutor has the parameters it will have, and says what is missing before it can run a task."""

from __future__ import annotations

import importlib
import inspect
import sys

import pytest

from flowcore.errors import ConfigurationError, OptionalModuleMissing
from flowcore.executors import WorkQueueExecutor
from flowcore.executors.errors import UnsupportedFeatureError

PARAMETERS = {
    "label": "WorkQueue",
    "port": 9123,
    "project_name": None,
    "env": None,
    "shared_fs": True,
    "use_cache": True,
    "init_command": "",
    "worker_executable": None,
    "container_image": None,
    "autolabel": True,
    "autocategory": True,
    "should_transfer_worker_stdout": False,
    "worker_options": None,
    "factory_options": None,
}


@pytest.fixture
def without_bindings(monkeypatch):
    """Hide the bindings where the machine has them."""
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if not folder.endswith("dist-packages")])
    for name in ("work_queue", "ndcctools", "ndcctools.work_queue"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()


def test_names_order_and_defaults_are_those_of_the_specification():
    parameters = inspect.signature(WorkQueueExecutor).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == PARAMETERS
    assert list(parameters) == list(PARAMETERS)


def test_without_work_queue_it_names_what_is_missing_and_where_to_get_it(without_bindings):
    with pytest.raises(OptionalModuleMissing) as caught:
        WorkQueueExecutor(project_name="mine")
    told = str(caught.value)
    assert told.startswith("executor 'WorkQueue' needs the Python bindings of Work Queue, a part of CCTools")
    assert "conda install -c conda-forge ndcctools" in told
    assert "missing: ndcctools.work_queue, work_queue" in told


@pytest.mark.parametrize("module", ["work_queue", "ndcctools.work_queue"])
def test_with_work_queue_it_says_that_this_version_cannot_drive_it(monkeypatch, tmp_path, without_bindings, module):
    file = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnsupportedFeatureError, match=f"found the module {module}, but this version of flowcore-work"):
        WorkQueueExecutor()
    sys.modules.pop("ndcctools", None)


@pytest.mark.parametrize("port", [-1, 65536, "9123", 1.5, True, None])
def test_a_port_that_is_none_is_refused_first(port):
    with pytest.raises(ConfigurationError, match="port is a number from 0"):
        WorkQueueExecutor(port=port)
