"""What a user gives is never shell text: commands are lists of words, and nothing asks for the class of a component."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import flowcore
from fakes.schedulers import put_command
from flowcore.launchers import SimpleLauncher
from flowcore.providers import (
    CondorProvider,
    GridEngineProvider,
    LSFProvider,
    PBSProProvider,
    SlurmProvider,
    TorqueProvider,
)
from flowcore.providers.batch import BatchProvider

SUBMIT = {
    SlurmProvider: ("sbatch", "Submitted batch job 7"),
    GridEngineProvider: ("qsub", "7"),
    PBSProProvider: ("qsub", "7.head"),
    TorqueProvider: ("qsub", "7.head"),
    LSFProvider: ("bsub", "Job <7> is submitted to queue <q>."),
    CondorProvider: ("condor_submit", "1 job(s) submitted to cluster 7."),
}
FOLDER = "it's $(touch pwned) `touch pwned`; touch pwned & #"

SOURCE = Path(flowcore.__file__).parent
BASES = {"Provider", "Launcher", "Executor", "BlockExecutor"}
"""Contracts, not components: they may be asked for where something else is refused."""


@pytest.mark.parametrize("kind", SUBMIT, ids=lambda kind: kind.__name__)
def test_a_path_arrives_as_one_word_and_is_run_by_nobody(
    kind: type[BatchProvider], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, answer = SUBMIT[kind]
    (tmp_path / "bin").mkdir()
    put_command(tmp_path / "bin", command, f'printf "%s\\n" "$#" "${{@: -1}}" > {tmp_path}/words\necho "{answer}"')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    # Grid Engine, PBS and LSF have no way to write a space in a line of a script, and the provider says so.
    name = FOLDER if kind in {SlurmProvider, CondorProvider} else FOLDER.replace(" ", "_")
    provider = kind(script_dir=str(tmp_path / name), launcher=SimpleLauncher())
    provider.submit("exit 0", 1, "job")
    count, path = (tmp_path / "words").read_text().splitlines()
    assert int(count) <= 2
    assert path.startswith(str(tmp_path / name))
    assert not (tmp_path / "pwned").exists()
    assert not Path("pwned").exists()


@pytest.mark.parametrize("kind", SUBMIT, ids=lambda kind: kind.__name__)
def test_commands_are_lists_of_words(kind: type[BatchProvider]) -> None:
    words = kind().cancel_command(["7", "8; touch pwned"])
    assert {"7", "8; touch pwned"} <= set(words)


def test_core_hands_no_text_to_a_shell_and_asks_for_no_class_of_a_component() -> None:
    assert [
        f"{path.relative_to(SOURCE)}:{call.lineno}: {ast.unparse(call)}"
        for path in sorted(SOURCE.rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and (_hands_text_to_a_shell(call) or _asked_for(call) - BASES)
    ] == []


def _hands_text_to_a_shell(call: ast.Call) -> bool:
    return any(word.arg == "shell" and ast.unparse(word.value) != "False" for word in call.keywords)


def _asked_for(call: ast.Call) -> set[str]:
    """Return the components for whose class a call asks."""
    if not (isinstance(call.func, ast.Name) and call.func.id in {"isinstance", "issubclass"}):
        return set()
    return set(re.findall(r"\b\w*(?:Provider|Launcher|Executor)\b", ast.unparse(call.args[1])))
