"""`from flowcore.executors import X`, and what it says where there is no X."""

from __future__ import annotations

import importlib
import sys

import pytest

import flowcore.executors
import flowcore.launchers
import flowcore.providers
from flowcore.plugin_errors import ComponentBroken, PluginDisabled, PluginError, PluginNotFound


def test_a_name_gives_the_class_itself():
    from flowcore.executors import ThreadPoolExecutor
    from flowcore_threads.executor import ThreadPoolExecutor as there

    assert ThreadPoolExecutor is there


def test_a_third_party_name_works_as_ours_do(site):
    site.install_executor("acme", "AcmeExecutor")
    from flowcore.executors import AcmeExecutor

    assert AcmeExecutor.__module__ == "acme_executor"
    assert "AcmeExecutor" in dir(flowcore.executors)


def test_an_absent_plugin_gives_an_import_error_with_the_install_command(site, monkeypatch):
    monkeypatch.setattr("flowcore.discovery._entry_points", lambda: ([], []))
    site.discover()
    with pytest.raises(ImportError) as caught:
        from flowcore.executors import HighThroughputExecutor  # noqa: F401
    assert str(caught.value).splitlines()[1] == "pip install 'flowcore[htex]'"
    assert isinstance(caught.value, PluginNotFound)


def test_a_provider_that_does_not_exist_gives_an_import_error_with_those_that_do():
    with pytest.raises(ImportError, match=r"no provider named 'NoProvider' is installed\n  there are: .*LocalProvider"):
        from flowcore.providers import NoProvider  # noqa: F401


def test_a_disabled_plugin_says_so_in_the_import_statement(site, monkeypatch):
    monkeypatch.setenv("FLOWCORE_DISABLE_PLUGINS", "threads")
    site.discover()
    with pytest.raises(PluginDisabled, match="FLOWCORE_DISABLE_PLUGINS names it"):
        from flowcore.executors import ThreadPoolExecutor  # noqa: F401


@pytest.mark.parametrize("package", [flowcore.executors, flowcore.providers, flowcore.launchers])
@pytest.mark.parametrize("name", ["__wrapped__", "_repr_html_", "no_such_thing"])
def test_an_unknown_attribute_is_an_attribute_error(package, name):
    assert not hasattr(package, name)
    with pytest.raises(AttributeError, match=name):
        getattr(package, name)


@pytest.mark.parametrize(
    ("package", "names"),
    [
        (flowcore.executors, {"Executor", "ThreadPoolExecutor", "MPIExecutor", "ResourceConfig"}),
        (flowcore.providers, {"Provider", "LocalProvider"}),
        (flowcore.launchers, {"Launcher", "SimpleLauncher", "SingleNodeLauncher", "WrappedLauncher"}),
    ],
    ids=["executors", "providers", "launchers"],
)
def test_dir_lists_what_can_be_imported_and_no_machinery(package, names):
    listed = {name for name in dir(package) if not name.startswith("__")}
    assert names <= listed
    assert not listed & {"Any", "TYPE_CHECKING", "ComponentNames", "annotations"}


def test_the_modules_of_the_package_stay_importable():
    from flowcore.executors import base, errors

    assert base is sys.modules["flowcore.executors.base"]
    assert errors is sys.modules["flowcore.executors.errors"]
    assert importlib.import_module("flowcore.executors.block").__name__ == "flowcore.executors.block"


def test_a_plugins_public_module_is_importable_under_the_package():
    from flowcore.executors.radical import RadicalPilotExecutor, ResourceConfig
    from flowcore_radical import executor

    assert RadicalPilotExecutor is executor.RadicalPilotExecutor
    assert ResourceConfig is executor.ResourceConfig
    assert sys.modules["flowcore.executors.radical"] is executor
    assert executor.__spec__.name == executor.__name__ == "flowcore_radical.executor"


def test_the_errors_of_lost_tasks_are_importable_under_the_package():
    from flowcore.executors import htex
    from flowcore.executors.errors import TaskLost

    lost = [name for name in htex.__all__ if name.endswith("Lost")]
    assert lost == ["InterchangeLost", "ManagerLost", "WorkerLost"]
    assert all(issubclass(getattr(htex, name), TaskLost) for name in lost)


def test_a_companion_is_importable_from_the_package():
    from flowcore.executors import ResourceConfig
    from flowcore_radical.resource_config import ResourceConfig as there

    assert ResourceConfig is there


def test_a_third_party_public_module_is_importable_as_module_and_as_name(site):
    site.install_executor("acme", "AcmeExecutor")
    from flowcore.executors import acme

    assert acme.Options.__module__ == "acme_executor"
    assert importlib.import_module("flowcore.executors.acme") is acme
    del sys.modules["flowcore.executors.acme"]


def test_the_public_module_of_an_absent_plugin_names_the_install_command(site, monkeypatch):
    monkeypatch.setattr("flowcore.discovery._entry_points", lambda: ([], []))
    monkeypatch.delitem(sys.modules, "flowcore.executors.radical", raising=False)
    monkeypatch.delattr(flowcore.executors, "radical", raising=False)
    site.discover()
    with pytest.raises(ImportError) as caught:
        importlib.import_module("flowcore.executors.radical")
    assert str(caught.value).splitlines() == [
        "no plugin named 'radical' is installed",
        "pip install 'flowcore[radical]'",
    ]


def test_a_public_module_that_cannot_be_imported_says_why_and_is_not_half_there(site):
    site.install_executor("acme", "AcmeExecutor")
    site.write("acme_executor", "import no_such_module_anywhere")
    with pytest.raises(PluginError, match=r"flowcore.executors.acme stands for acme_executor.*no_such_module"):
        importlib.import_module("flowcore.executors.acme")
    assert "flowcore.executors.acme" not in sys.modules
    with pytest.raises(ComponentBroken):
        from flowcore.executors import AcmeExecutor  # noqa: F401


def test_a_module_nobody_has_is_an_import_error():
    with pytest.raises(ImportError, match="no executor named 'vine' is installed"):
        importlib.import_module("flowcore.executors.vine")


def test_a_star_import_brings_the_components():
    names: dict[str, object] = {}
    exec("from flowcore.executors import *", names)
    assert {"Executor", "ThreadPoolExecutor", "RadicalPilotExecutor"} <= names.keys()


def test_loading_the_package_again_leaves_one_finder():
    finders = [finder for finder in sys.meta_path if type(finder).__name__ == "ComponentNames"]
    importlib.reload(flowcore.launchers)
    again = [finder for finder in sys.meta_path if type(finder).__name__ == "ComponentNames"]
    assert len(again) == len(finders) == 3
