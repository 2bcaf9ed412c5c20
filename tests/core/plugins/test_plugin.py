"""The record that announces a component refuses what can never be imported."""

from __future__ import annotations

import doctest

import attrs
import pytest

from flowcore import builtin, discovery, hookspecs, plugin
from flowcore.plugin import Component


def test_a_component_knows_its_module_and_attribute():
    component = Component("AcmeExecutor", "acme.executor:Acme", companions=("Options",))
    assert (component.module, component.attribute, component.companions) == ("acme.executor", "Acme", ("Options",))


def test_a_component_is_frozen():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Component("A", "a:A").name = "B"


@pytest.mark.parametrize("target", ["", "a", "a:", ":A", "a.:A", "a b:A", "a:A.B", "a:A()", "a/b:A"])
def test_a_target_that_names_no_class_is_refused_with_the_right_form(target):
    with pytest.raises(ValueError, match=r"written 'package.module:Class'"):
        Component("A", target)


@pytest.mark.parametrize("name", ["", "A B", "a.b", "1A"])
def test_a_name_that_cannot_be_imported_is_refused(name):
    with pytest.raises(ValueError, match="the name users import"):
        Component(name, "a:A")


@pytest.mark.parametrize("values", [{"name": 3}, {"target": None}, {"summary": 3}, {"companions": "Options"}])
def test_a_value_of_the_wrong_type_is_refused(values):
    with pytest.raises(TypeError):
        Component(**({"name": "A", "target": "a:A"} | values))


def test_a_companion_that_is_no_name_is_refused():
    with pytest.raises(ValueError, match=r"a name in the component's module, not 'a\.b'"):
        Component("A", "a:A", companions=["a.b"])


def test_every_kind_of_component_has_its_hook():
    for hook in discovery.OFFERS.values():
        assert hasattr(hookspecs, hook)


def test_the_example_in_the_docstring_runs():
    assert doctest.testmod(plugin).failed == 0


def test_the_manifest_of_core_speaks_the_api_of_core():
    assert builtin.FLOWCORE_API == plugin.API_VERSION
