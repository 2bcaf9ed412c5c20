"""What becomes of plugins: the good ones work whatever the bad ones do, and each failure is told by name."""

from __future__ import annotations

import pickle
import sys
import threading

import pytest

from flowcore import registry
from flowcore.discovery import Status
from flowcore.executors.base import Executor
from flowcore.plugin_errors import (
    ComponentBroken,
    ComponentClash,
    PluginBroken,
    PluginDisabled,
    PluginError,
    PluginIncompatible,
    PluginNotFound,
)

HEAD = "from flowcore.plugin import Component, hookimpl\nFLOWCORE_API = 1\n"
HOOK = HEAD + "@hookimpl\ndef flowcore_executors():\n    "

BAD_MANIFESTS = {
    "missing import": ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module"),
    "syntax error": ("def broken(:", "SyntaxError"),
    "ends the script": ("import sys; sys.exit('no licence')", "SystemExit: no licence"),
    "raises": ("1 / 0", "ZeroDivisionError"),
    "states no API": ("X = 1", "does not state FLOWCORE_API; it begins with FLOWCORE_API = 1"),
    "API is no number": ("FLOWCORE_API = '1'", "FLOWCORE_API = '1', which is no whole number"),
    "hook raises": (HOOK + "raise KeyError('acme')", "flowcore_executors raised: KeyError"),
    "hook raises after a yield": (HOOK + "yield Component('A', 'a:A')\n    1 / 0", "raised: ZeroDivisionError"),
    "hook ends the script": (HOOK + "raise SystemExit", "flowcore_executors raised: SystemExit"),
    "bad component": (HOOK + "yield Component('A', 'no target')", "written 'package.module:Class', not 'no target'"),
    "yields a string": (HOOK + "yield 'a:A'", "yielded 'a:A', which is no Component"),
    "returns a string": (HOOK + "return 'a:A'", "gave 'a:A'; it yields Component records"),
    "returns a component": (HOOK + "return Component('A', 'a:A')", "it yields Component records"),
    "returns a number": (HOOK + "return 3", "gave 3; it yields Component records"),
    "yields one twice": (HOOK + "yield Component('A', 'a:A')\n    yield Component('A', 'a:B')", "yielded 'A' twice"),
    "wrong arguments": (HEAD + "@hookimpl\ndef flowcore_executors(pool): yield", "its hooks do not fit"),
    "unknown hook": (HEAD + "@hookimpl\ndef flowcore_executor(): yield", "unknown hook 'flowcore_executor'"),
    "unmarked hook": (HEAD + "def flowcore_executors(): yield", "flowcore_executors lacks the decorator @hookimpl"),
    "asks for a component": (HEAD + "from flowcore.executors import ThreadPoolExecutor", "while plugins are being"),
}


@pytest.mark.parametrize(("manifest", "reason"), BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_a_bad_manifest_breaks_its_own_plugin_and_no_other(site, manifest, reason):
    site.install("bad", manifest)
    site.install_executor("good", "GoodExecutor")
    bad = site.plugin("bad")
    assert bad.status is Status.BROKEN
    assert reason in bad.reason
    assert (bad.distribution, bad.version) == ("flowcore-bad", "1.5")
    assert registry.current().load("executor", "GoodExecutor", Executor).label == "acme"
    assert {p.name for p in registry.current().plugins if p.status is Status.ACTIVE} >= {"core", "threads", "good"}


@pytest.mark.parametrize(("stated", "remedy"), [(2, "flowcore"), (0, "flowcore-new")])
def test_a_plugin_of_another_api_is_incompatible_and_its_hooks_are_not_called(site, stated, remedy):
    site.install("new", HOOK.replace("FLOWCORE_API = 1", f"FLOWCORE_API = {stated}") + "raise AssertionError")
    new = site.plugin("new")
    assert new.status is Status.INCOMPATIBLE
    told = f"it speaks plugin API {stated}, this flowcore speaks 1: pip install --upgrade {remedy}"
    assert new.reason == told


@pytest.mark.parametrize("value", ["no module:", "", "a-b"])
def test_a_malformed_entry_point_breaks_its_own_plugin(site, value):
    site.announce(f"[flowcore]\nbad = {value}\n", "bad")
    assert site.plugin("bad").status is Status.BROKEN
    assert site.plugin("threads").status is Status.ACTIVE


def test_an_unreadable_entry_points_file_is_reported_and_hurts_nobody_else(site):
    site.announce("[flowcore]\nthis is no entry point\n", "flowcore-garbled")
    site.announce("[console_scripts]\nneither is this\n", "unrelated")
    garbled = site.plugin("flowcore-garbled")
    assert garbled.status is Status.BROKEN
    assert garbled.reason.startswith("its entry_points.txt cannot be read")
    assert "threads" in {plugin.name for plugin in registry.current().plugins}
    assert "unrelated" not in {plugin.name for plugin in registry.current().plugins}


def test_a_distribution_without_metadata_still_has_a_working_plugin(site):
    site.install_executor("bare", "BareExecutor")
    (site.path / "flowcore_bare-1.5.dist-info" / "METADATA").unlink()
    assert site.plugin("bare").status is Status.ACTIVE


def test_discovery_imports_manifests_and_no_component(site):
    site.install_executor("acme", "AcmeExecutor")
    assert site.plugin("acme").status is Status.ACTIVE
    assert "acme_executor" not in sys.modules
    assert registry.current().load("executor", "AcmeExecutor", Executor) is sys.modules["acme_executor"].AcmeExecutor


def test_a_disabled_plugin_is_not_imported_and_says_so_when_asked(site, monkeypatch):
    site.install("acme", "raise AssertionError")
    monkeypatch.setenv("FLOWCORE_DISABLE_PLUGINS", "threads, acme")
    assert site.plugin("acme").status is Status.DISABLED
    assert "acme_manifest" not in sys.modules
    with pytest.raises(PluginDisabled, match=r"'ThreadPoolExecutor' comes from plugin threads .* which is disabled"):
        registry.current().load("executor", "ThreadPoolExecutor", Executor)


def test_the_reason_of_a_broken_plugin_surfaces_in_the_error_of_its_component(site):
    site.install("acme", HOOK + "yield Component('AcmeExecutor', 'a:A')\n    raise OSError('no device')")
    site.discover()
    with pytest.raises(PluginBroken) as caught:
        registry.current().load("executor", "AcmeExecutor", Executor)
    assert "'AcmeExecutor' comes from plugin acme (flowcore-acme 1.5), which is broken" in str(caught.value)
    assert "OSError: no device" in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_broken_plugin_that_offered_nothing_is_mentioned_beside_an_unknown_name(site):
    site.install("acme", "import no_such_module_anywhere")
    site.discover()
    with pytest.raises(PluginNotFound, match=r"(?s)no executor named 'AcmeExecutor'.*acme \(.*\) is broken: importing"):
        registry.current().load("executor", "AcmeExecutor", Executor)


def test_an_incompatible_plugin_says_so_when_its_first_party_name_is_asked_for(site, monkeypatch):
    monkeypatch.setitem(registry.FIRST_PARTY, "AcmeExecutor", "acme")
    site.install("acme", "FLOWCORE_API = 7")
    site.discover()
    with pytest.raises(PluginIncompatible, match="speaks plugin API 7"):
        registry.current().load("executor", "AcmeExecutor", Executor)


def test_of_two_plugins_with_one_name_nobody_wins_and_other_names_work(site):
    site.install_executor("one", "SameExecutor")
    site.install_executor("two", "SameExecutor")
    site.install_executor("three", "OtherExecutor")
    found = site.discover()
    with pytest.raises(ComponentClash) as caught:
        found.load("executor", "SameExecutor", Executor)
    assert "one (flowcore-one 1.5), two (flowcore-two 1.5)" in str(caught.value)
    assert "SameExecutor" not in found.names("executor")
    assert [clash.wanted for clash in found.clashes()] == ["SameExecutor"]
    assert found.load("executor", "OtherExecutor", Executor).label == "acme"


def test_disabling_one_of_two_clashing_plugins_ends_the_clash(site, monkeypatch):
    site.install_executor("one", "SameExecutor")
    site.install_executor("two", "SameExecutor")
    monkeypatch.setenv("FLOWCORE_DISABLE_PLUGINS", "one")
    assert site.discover().load("executor", "SameExecutor", Executor).__module__ == "two_executor"


def test_one_plugin_name_in_two_distributions_gives_two_plugins(site):
    site.install_executor("acme", "FirstExecutor", distribution="acme-first")
    site.install_executor("acme", "SecondExecutor", distribution="acme-second")
    found = site.discover()
    assert [p.distribution for p in found.plugins if p.name == "acme"] == ["acme-first", "acme-second"]
    assert {"FirstExecutor", "SecondExecutor"} <= set(found.names("executor"))
    with pytest.raises(ComponentClash, match="2 plugins claim the plugin name 'acme'"):
        found.public_module("executor", "acme")


BAD_CLASSES = {
    "import fails": ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such"),
    "ends the script": ("raise SystemExit(3)", "SystemExit: 3"),
    "not there": ("X = 1", "has no attribute 'AcmeExecutor'"),
    "no executor": ("class AcmeExecutor: ...", "not a subclass of flowcore.executors.base.Executor"),
    "an instance": ("AcmeExecutor = 3", "not a subclass"),
    "abstract": (
        "from flowcore.executors.base import Executor\nclass AcmeExecutor(Executor): ...",
        "an abstract class, without outstanding, shutdown, start, submit",
    ),
}


@pytest.mark.parametrize(("source", "reason"), BAD_CLASSES.values(), ids=BAD_CLASSES)
def test_a_component_whose_class_is_bad_says_where_and_why(site, source, reason):
    site.install_executor("acme", "AcmeExecutor")
    site.write("acme_executor", source)
    site.discover()
    with pytest.raises(ComponentBroken) as caught:
        registry.current().load("executor", "AcmeExecutor", Executor)
    fault, _, where = str(caught.value).partition("\n")
    assert fault == "executor 'AcmeExecutor' of plugin acme (flowcore-acme 1.5) is broken"
    assert "acme_executor:AcmeExecutor: " in where
    assert reason in where


def test_a_companion_is_imported_from_the_module_of_its_component(site):
    site.install_executor("acme", "AcmeExecutor")
    offer = "yield Component('AcmeExecutor', 'acme_executor:AcmeExecutor', companions=['Options'])"
    site.write("acme_manifest", HOOK + offer)
    found = site.discover()
    assert found.load("executor", "Options", Executor).__name__ == "Options"
    assert {"AcmeExecutor", "Options"} <= set(found.names("executor"))


@pytest.mark.parametrize(("name", "extra"), registry.FIRST_PARTY.items())
def test_an_absent_first_party_plugin_names_its_install_command(name, extra):
    error = registry.Registry([]).absence("executor", name)
    assert str(error).splitlines() == [
        f"no executor named {name!r} is installed",
        f"pip install 'flowcore[{extra}]'",
    ]
    assert isinstance(error, ImportError)


def test_a_misspelt_name_is_told_the_right_one():
    with pytest.raises(PluginNotFound, match="did you mean 'ThreadPoolExecutor'"):
        registry.current().load("executor", "ThreadpoolExecuter", Executor)


@pytest.mark.parametrize(
    "error",
    [
        PluginNotFound("executor", "X", "htex"),
        PluginBroken("X", "acme (acme 1)", "why"),
        ComponentClash("executor", "X", ("one", "two")),
        ComponentBroken("executor", "X", "acme (acme 1)", "a:X", "why"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling_with_their_text(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_a_plugin_installed_later_is_found_by_a_new_discovery_only(site):
    before = registry.current()
    site.install_executor("late", "LateExecutor")
    assert registry.current() is before
    assert "LateExecutor" not in before.names("executor")
    assert "LateExecutor" in registry.rediscover().names("executor")


def test_threads_that_ask_at_once_share_one_discovery(site):
    site.install("acme", HEAD + "import builtins\nbuiltins.acme_imports = getattr(builtins, 'acme_imports', 0) + 1")
    together = threading.Barrier(8)
    found = []

    def ask() -> None:
        together.wait(60)
        found.append(registry.current())

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_an_error_of_discovery_itself_leaves_the_registry_usable(site, monkeypatch):
    def fail() -> None:
        raise PluginError("for once")

    monkeypatch.setattr(registry, "discover", fail)
    with pytest.raises(PluginError, match="for once"):
        registry.current()
    monkeypatch.undo()
    assert "ThreadPoolExecutor" in registry.current().names("executor")
