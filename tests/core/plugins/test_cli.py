"""`flowcore plugins` shows and checks what is installed, for people and for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from flowcore.cli import main


def _column(line, header, name):
    start = header.index(name)
    return line[start:].split("  ")[0].strip()


def test_the_table_shows_every_plugin_with_its_status_and_components(site, capsys):
    site.install_executor("acme", "AcmeExecutor")
    assert main(["plugins"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    [acme] = [line for line in lines if line.startswith("acme ")]
    shown = [_column(acme, header, name) for name in ("PLUGIN", "DISTRIBUTION", "VERSION", "STATUS", "COMPONENTS")]
    assert shown == ["acme", "flowcore-acme", "1.5", "active", "AcmeExecutor"]


def test_the_table_fits_into_the_terminal(site, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["plugins"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    listed = " ".join(line[header.index("COMPONENTS") :] for line in lines)
    assert "JsrunLauncher" in listed
    assert "LocalProvider, SlurmProvider" in listed


def test_the_table_gives_the_reason_below_a_plugin_that_is_not_active(site, capsys):
    site.install("acme", "import no_such_module_anywhere")
    assert main(["plugins"]) == 0
    lines = capsys.readouterr().out.splitlines()
    [number] = [n for n, line in enumerate(lines) if line.startswith("acme ")]
    assert "broken" in lines[number]
    assert lines[number + 1].strip().startswith("importing acme_manifest failed: ModuleNotFoundError")


def test_a_clash_is_shown_under_the_table(site, capsys):
    site.install_executor("one", "SameExecutor")
    site.install_executor("two", "SameExecutor")
    assert main(["plugins"]) == 0
    assert "2 plugins claim the executor name 'SameExecutor': one (flowcore-one 1.5), two" in capsys.readouterr().out


def test_first_party_plugins_that_are_absent_come_with_their_install_command(site, capsys, monkeypatch):
    monkeypatch.setattr("flowcore.discovery._entry_points", lambda: ([], []))
    assert main(["plugins"]) == 0
    assert "pip install 'flowcore[flux,htex,mpi,radical,threads,workqueue]'" in capsys.readouterr().out


def test_json_says_everything_the_table_says(site, capsys):
    site.install_executor("acme", "AcmeExecutor")
    site.install("bad", "FLOWCORE_API = 9")
    assert main(["plugins", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    plugins = {plugin["name"]: plugin for plugin in data["plugins"]}
    assert data["api"] == 1
    assert plugins["acme"] == {
        "name": "acme",
        "distribution": "flowcore-acme",
        "version": "1.5",
        "manifest": "acme_manifest",
        "status": "active",
        "reason": "",
        "components": [
            {
                "kind": "executor",
                "name": "AcmeExecutor",
                "target": "acme_executor:AcmeExecutor",
                "summary": "For a test.",
                "companions": [],
            }
        ],
    }
    assert plugins["bad"]["status"] == "incompatible"
    assert data["clashes"] == []


def test_a_check_of_one_sound_plugin_passes(site, capsys):
    site.install_executor("acme", "AcmeExecutor")
    assert main(["plugins", "check", "acme"]) == 0
    assert capsys.readouterr().out == "acme (flowcore-acme 1.5): ok: AcmeExecutor\n"


def test_every_first_party_plugin_passes_the_check(site, capsys):
    code = main(["plugins", "check"])
    assert code == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("class AcmeExecutor: ...", "not a subclass of flowcore.executors.base.Executor"),
        ("from flowcore.executors.base import Executor\nclass AcmeExecutor(Executor): ...", "an abstract class"),
    ],
)
def test_a_check_imports_every_component_and_fails_with_the_reason(site, capsys, source, reason):
    site.install_executor("acme", "AcmeExecutor")
    site.write("acme_executor", source)
    assert main(["plugins", "check", "acme"]) == 1
    told = capsys.readouterr().out
    assert told.startswith("acme (flowcore-acme 1.5): wrong\n  executor AcmeExecutor: acme_executor:AcmeExecutor: ")
    assert reason in told


def test_a_check_fails_for_a_companion_that_is_not_there(site, capsys):
    site.install_executor("acme", "AcmeExecutor")
    manifest = site.path / "acme_manifest.py"
    manifest.write_text(manifest.read_text().replace('"For a test."', '"For a test.", companions=["Missing"]'))
    assert main(["plugins", "check", "acme"]) == 1
    assert "has no attribute 'Missing'" in capsys.readouterr().out


def test_a_check_fails_for_plugins_that_are_not_active_and_for_clashes(site, capsys):
    site.install_executor("one", "SameExecutor")
    site.install_executor("two", "SameExecutor")
    site.install("bad", "import no_such_module_anywhere")
    site.install("new", "FLOWCORE_API = 9")
    assert main(["plugins", "check"]) == 1
    told = capsys.readouterr().out
    assert "  broken: importing bad_manifest failed" in told
    assert "  incompatible: it speaks plugin API 9" in told
    assert "2 plugins claim the executor name" in told


def test_a_disabled_plugin_is_skipped_unless_it_is_asked_for(site, capsys, monkeypatch):
    site.install("acme", "raise AssertionError")
    monkeypatch.setenv("FLOWCORE_DISABLE_PLUGINS", "acme")
    main(["plugins", "check"])
    assert "acme (flowcore-acme 1.5): skipped, it is disabled" in capsys.readouterr().out
    assert main(["plugins", "check", "acme"]) == 1


def test_a_check_of_an_unknown_plugin_fails_with_those_there_are(site, capsys):
    assert main(["plugins", "check", "nonesuch"]) == 1
    assert "no plugin named 'nonesuch' is installed; there are: core, flux, htex" in capsys.readouterr().out


def test_the_version_is_shown(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("flowcore 0.1.0 (Python ")


def test_no_command_shows_the_help(capsys):
    assert main([]) == 0
    assert "plugins" in capsys.readouterr().out


def test_a_line_that_makes_no_sense_ends_with_code_two(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["plugs"])
    assert ended.value.code == 2
    assert "invalid choice: 'plugs'" in capsys.readouterr().err


def test_the_module_runs_as_the_command_does(site):
    site.install("bad", "import no_such_module_anywhere")
    environment = os.environ | {"PYTHONPATH": str(site.path)}
    command = [sys.executable, "-m", "flowcore", "plugins", "check", "bad"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "bad (flowcore-bad 1.5): wrong" in done.stdout
    assert done.stderr == ""
