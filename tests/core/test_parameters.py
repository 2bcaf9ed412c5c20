"""What parameters are held against: a value that cannot be is refused by component, parameter and value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from flowcore import parameters
from flowcore.errors import ConfigurationError
from flowcore.launchers import SrunLauncher
from flowcore.parameters import Validator
from flowcore.providers import CondorProvider, LocalProvider, LSFProvider, PBSProProvider, SlurmProvider

CASES: dict[str, tuple[Validator, list[Any], list[Any]]] = {
    "a whole number, 1 or more, is needed": (
        parameters.whole(1),
        [1, 2, 10**9, np.int64(3)],
        [0, -1, 1.0, "1", None, True, np.int64(0), np.bool_(True)],
    ),
    "a number, 0 or more, is needed": (
        parameters.number(),
        [0, 0.0, 1, 2.5, float("inf"), np.float64(1)],
        [-1, -0.1, "1", None, True, float("nan"), 1j],
    ),
    "a number, from 0 to 1, is needed": (parameters.number(0, 1), [0, 0.5, 1], [1.1, -1, float("inf"), float("nan")]),
    "a number of seconds above 0 is needed": (
        parameters.positive("seconds"),
        [0.001, 1, 10**6],
        [0, -1, float("inf"), float("nan"), "1", True, None],
    ),
    "a number above 0 is needed": (parameters.positive(), [1], [0]),
    "one of 'a', 'b' is needed": (parameters.choice("a", "b"), ["a", "b"], ["c", "", None, ["a"], 5]),
    "True or False is needed": (parameters.flag(), [True, False], [0, 1, "True", None]),
    "a text is needed": (parameters.text(), ["", "x"], [None, 5, b"x", Path("x")]),
    "a text that can name a folder is needed": (parameters.label(), ["a", "a b"], ["", ".", "..", "a/b", None, 5]),
    "a path is needed": (parameters.path(), ["", "x", Path("x")], [None, 5, b"x"]),
    "a function is needed": (parameters.function(), [len, int, lambda: 1], [None, "len", 5]),
}


def holder(validator: Validator) -> Any:
    """Return a class with one parameter."""
    return attrs.make_class("Acme", {"size": attrs.field(validator=validator)})


@pytest.mark.parametrize("why", CASES)
def test_values_are_accepted_or_refused_in_words(why: str) -> None:
    validator, good, bad = CASES[why]
    kind = holder(validator)
    assert [kind(value).size for value in good] == good
    for value in bad:
        with pytest.raises(ConfigurationError) as caught:
            kind(value)
        assert str(caught.value) == f"Acme(size={value!r}): {why}"


def test_what_is_optional_may_be_none_and_nothing_else_that_is_wrong() -> None:
    kind = holder(parameters.optional(parameters.whole(1)))
    assert (kind(None).size, kind(1).size) == (None, 1)
    with pytest.raises(ConfigurationError):
        kind(0)


def test_a_parameter_goes_by_the_name_that_callers_give() -> None:
    kind = attrs.make_class("Acme", {"_size": attrs.field(validator=parameters.whole(1))})
    with pytest.raises(ConfigurationError, match=r"^Acme\(size=0\)"):
        kind(size=0)


REFUSED = [
    (LocalProvider, {"init_blocks": "1"}, "LocalProvider(init_blocks='1'): a whole number, 0 or more, is needed"),
    (LocalProvider, {"max_blocks": 2.5}, "LocalProvider(max_blocks=2.5): a whole number, 0 or more, is needed"),
    (LocalProvider, {"nodes_per_block": 0}, "LocalProvider(nodes_per_block=0): a whole number, 1 or more, is needed"),
    (LocalProvider, {"parallelism": 2}, "LocalProvider(parallelism=2): a number, from 0 to 1, is needed"),
    (LocalProvider, {"worker_init": None}, "LocalProvider(worker_init=None): a text is needed"),
    (LocalProvider, {"cmd_timeout": 0}, "LocalProvider(cmd_timeout=0): a number of seconds above 0 is needed"),
    (SlurmProvider, {"mem_per_node": "4GB"}, "SlurmProvider(mem_per_node='4GB'): a number of GB above 0 is needed"),
    (SlurmProvider, {"exclusive": 1}, "SlurmProvider(exclusive=1): True or False is needed"),
    (SlurmProvider, {"gpus_per_node": 0}, "SlurmProvider(gpus_per_node=0): a number from 1 on, or 'TYPE:NUMBER', is"),
    (PBSProProvider, {"cpus_per_node": 0}, "PBSProProvider(cpus_per_node=0): a whole number, 1 or more, is needed"),
    (LSFProvider, {"cores_per_block": 0}, "LSFProvider(cores_per_block=0): a whole number, 1 or more, is needed"),
    (CondorProvider, {"cmd_chunk_size": 0}, "CondorProvider(cmd_chunk_size=0): a whole number, 1 or more, is needed"),
    (LocalProvider, {"launcher": SrunLauncher}, "is no launcher\n  write launcher=SrunLauncher()"),
    (SlurmProvider, {"launcher": "srun"}, "launcher='srun' is no launcher\n  write launcher=SingleNodeLauncher()"),
]


@pytest.mark.parametrize(("kind", "options", "words"), REFUSED, ids=lambda value: str(value)[:40])
def test_providers_refuse_what_cannot_be_in_words(kind: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        kind(**options)
    assert words in str(caught.value)
    assert "Attribute(" not in str(caught.value)
