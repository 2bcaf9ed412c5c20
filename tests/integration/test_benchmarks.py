"""The benchmarks themselves: they run, with few tasks, on the flowcore that is installed here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from marked import Marked

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import plot  # noqa: E402 - the benchmarks are no installed package
from bounds import Reach, Times, ratio  # noqa: E402
from report import number  # noqa: E402
from rows import ROWS  # noqa: E402

ROUNDS = [{"flowcore": 100.0, "parsl": 10.0}, {"flowcore": 80.0, "parsl": 20.0}, {"flowcore": 90.0, "parsl": 3.0}]


def run(script: str, *arguments: str, folder: Path) -> str:
    """Run one of the commands; whatever processes it starts have ended with it."""
    marked = Marked()
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments],
        cwd=folder,
        env=marked.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert marked.gone(within=60) == {}
    return done.stdout


@pytest.mark.slow
def test_every_quick_row_gives_all_its_figures_and_loses_no_result(tmp_path: Path) -> None:
    rows = [row for row in ROWS if row.quick and row.name != "installed"]
    names = ",".join(row.name for row in rows)
    found = tmp_path / "figures.json"
    text = run(
        "compare.py",
        "--quick",
        "--here",
        "--systems",
        "flowcore",
        "--rows",
        names,
        "--json",
        str(found),
        folder=tmp_path,
    )
    record: dict[str, Any] = json.loads(found.read_text())
    assert set(record) == {row.name for row in rows}
    for row in rows:
        (one,) = record[row.name]
        figures = one["flowcore"]["figures"]
        assert all(figures[figure.key] is not None for figure in row.figures), (row.name, one)
        assert figures.get("lost", 0) == 0
        assert all(figure.label in text for figure in row.figures)


@pytest.mark.slow
def test_the_interchange_serves_a_few_fake_managers_of_every_kind(tmp_path: Path) -> None:
    found, picture = tmp_path / "scaling.json", tmp_path / "scaling.svg"
    run(
        "scaling.py",
        *("--managers", "1", "3", "--workers", "2", "--tasks", "300", "--paced-tasks", "200"),
        *("--json", str(found), "--plot", str(picture)),
        folder=tmp_path,
    )
    figures = json.loads(found.read_text())
    assert sorted((one["managers"], one["answers"]) for one in figures) == [
        (count, way) for count in (1, 3) for way in ("one-by-one", "paced", "together")
    ]
    assert all(one["tasks_per_s"] > 0 and one["broker_us"] > 0 for one in figures)
    assert ET.parse(picture).getroot().tag.endswith("svg")


@pytest.mark.slow
def test_the_breakdown_names_all_four_roles(tmp_path: Path) -> None:
    text = run("breakdown.py", "--tasks", "200", "--rounds", "1", folder=tmp_path)
    assert all(role in text for role in ("client", "interchange", "manager", "workers"))


def test_a_ratio_is_the_median_of_the_rounds_ratios_whichever_way_is_better() -> None:
    assert ratio(ROUNDS, "parsl", more=True) == 10.0
    assert ratio(ROUNDS, "parsl", more=False) == 0.1
    assert ratio(ROUNDS, "ray", more=True) is None


def test_bounds_are_met_missed_or_unknown() -> None:
    assert Times(10).met(ROUNDS, more=True) is True
    assert Times(11).met(ROUNDS, more=True) is False
    assert Times(1, "ray").met(ROUNDS, more=True) is None
    assert Reach(90).met(ROUNDS, more=True) is True
    assert Reach(90).met(ROUNDS, more=False) is True
    assert Reach(89).met(ROUNDS, more=False) is False


def test_nothing_against_nothing_is_a_draw_and_something_against_nothing_is_not() -> None:
    assert ratio([{"flowcore": 0.0, "parsl": 0.0}], "parsl", more=False) == 1.0
    assert ratio([{"flowcore": 0.0, "parsl": 9.0}], "parsl", more=False) == float("inf")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (float("inf"), "never"), (0.0, "0"), (0.0512, "0.0512"), (12.345, "12.3"), (12345.6, "12,346")],
)
def test_numbers_have_three_digits_that_count(value: float | None, text: str) -> None:
    assert number(value) == text


def test_the_plot_is_well_formed_with_one_round_and_with_several() -> None:
    one = {"answers": "together", "managers": 10, "tasks_per_s": 40_000.0, "broker_us": 3.0, "io_us": 0.2}
    other = {**one, "answers": "paced", "managers": 1000, "broker_us": 80.0}
    for found in ([one], [one, one, other]):
        root = ET.fromstring(plot.scaling(found))
        assert root.attrib["viewBox"]
