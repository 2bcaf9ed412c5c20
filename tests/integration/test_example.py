"""The example that analyzes the standard library: its parts, and the whole job as a user runs it."""

from __future__ import annotations

import ast
import csv
import doctest
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

from stdlib_analysis import circle, graph, source  # noqa: E402 - the example is no installed package
from stdlib_analysis.circle import places  # noqa: E402
from stdlib_analysis.communities import communities  # noqa: E402
from stdlib_analysis.graph import cycles, resolve  # noqa: E402
from stdlib_analysis.picture import draw  # noqa: E402
from stdlib_analysis.records import Edge, Import, Report  # noqa: E402
from stdlib_analysis.source import Survey, find_packages, measure_module  # noqa: E402
from stdlib_analysis.summary import sum_package, sum_report  # noqa: E402
from stdlib_analysis.tables import as_json, as_text, imports_csv, packages_csv  # noqa: E402

LIBRARY = {
    "alpha.py": "import beta\nimport sys\n\ndef one(n):\n    return 1 if n else 2\n",
    "beta.py": "def late():\n    import alpha\n",
    "gamma/__init__.py": "from . import inner\n",
    "gamma/inner.py": "from gamma import outer\nimport alpha\n\nclass Box:\n    def open(self):\n        pass\n",
    "gamma/outer.py": "import gamma.inner\n",
    "gamma/broken.py": "print 'python 2'\n",
    "no-module.py": "",
    "test/hidden.py": "",
}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    root = tmp_path / "library"
    for name, text in LIBRARY.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def report_of(root: Path) -> Report:
    packages = find_packages(str(root), ["test"])
    return sum_report(
        root.name,
        [
            sum_package(name, [measure_module(str(root), path) for path in paths], 100, 0.5)
            for name, paths in packages.items()
        ],
    )


def survey(text: str, module: str = "m", *, is_package: bool = False) -> Survey:
    found = Survey(module, is_package=is_package)
    found.visit(ast.parse(text))
    return found


@pytest.mark.parametrize(
    ("body", "complexity"),
    [
        ("pass", 1),
        ("if a: pass", 2),
        ("if a: pass\n elif b: pass\n else: pass", 3),
        ("return a and b and c or d", 4),
        ("return 1 if a else 2", 2),
        ("for a in b:\n  while c: pass", 3),
        ("try: pass\n except A: pass\n except B: pass\n else: pass", 3),
        ("return [a for a in b if c if d]", 4),
        ("match a:\n  case 1: pass\n  case 2 if b: pass", 3),
        ("with a: assert b", 1),
        ("return lambda: 1 if a else 2", 2),
    ],
)
def test_complexity_counts_decisions(body: str, complexity: int) -> None:
    (function,) = survey(f"def f():\n {body}\n").functions
    assert function.complexity == complexity


def test_nested_functions_count_for_themselves() -> None:
    found = survey("class A:\n def f(self):\n  if a: pass\n  def g():\n   if b: pass\n   if c: pass\nif d: pass\n")
    assert {function.name: function.complexity for function in found.functions} == {"m:A.f.g": 3, "m:A.f": 2}
    assert {function.name: function.lines for function in found.functions} == {"m:A.f.g": 3, "m:A.f": 5}
    assert found.classes == 1


def test_imports_are_absolute_and_know_whether_they_run_on_import() -> None:
    text = (
        "import os.path\nfrom . import sibling\nfrom ..other import thing\n"
        "def f():\n import late\n"
        "if TYPE_CHECKING:\n import hinted\n"
        "if __name__ == '__main__':\n import tool\n"
        "if sys.platform == 'win32':\n import windows\n"
    )
    imports = survey(text, "top.sub.module").imports
    assert imports == [
        Import("os.path"),
        Import("top.sub", "sibling"),
        Import("top.other", "thing"),
        Import("late", deferred=True),
        Import("hinted", deferred=True),
        Import("tool", deferred=True),
        Import("windows"),
    ]
    assert survey("from . import a", "top.sub", is_package=True).imports == [Import("top.sub", "a")]


def test_an_import_of_a_member_means_the_submodule_where_there_is_one() -> None:
    assert resolve(Import("xml", "dom"), {"xml", "xml.dom"}) == "xml.dom"
    assert resolve(Import("os", "sep"), {"os"}) == "os"


def test_modules_are_found_by_package_without_the_excluded(library: Path) -> None:
    gamma = ["gamma/__init__.py", "gamma/broken.py", "gamma/inner.py", "gamma/outer.py"]
    found = find_packages(str(library), ["test"])
    assert found == {"alpha": ["alpha.py"], "beta": ["beta.py"], "gamma": gamma}
    assert find_packages(str(library), ["test"], 2) == {"alpha": ["alpha.py"], "beta": ["beta.py"]}


def test_a_module_is_measured(library: Path) -> None:
    module = measure_module(str(library), "alpha.py")
    assert (module.name, module.lines, module.code, module.classes) == ("alpha", 5, 4, 0)
    assert module.bytes == len(LIBRARY["alpha.py"])
    assert [(function.name, function.line, function.complexity) for function in module.functions] == [
        ("alpha:one", 4, 2)
    ]


@pytest.mark.parametrize("content", [b"print 'two'\n", b"\xff\xfe\n", b"# coding: nonsense\n", b"a = '\0'\n"])
def test_what_is_no_python_is_a_result_with_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.py").write_bytes(content)
    module = measure_module(str(tmp_path), "bad.py")
    assert module.error
    assert module.functions == []


def test_cycles_are_found_but_deferred_imports_make_none(library: Path) -> None:
    report = report_of(library)
    assert report.cycles == [["gamma.inner", "gamma.outer"]]
    assert report.edges == [
        Edge("alpha", "beta", 1, deferred=False),
        Edge("beta", "alpha", 1, deferred=True),
        Edge("gamma", "alpha", 1, deferred=False),
    ]


@pytest.mark.parametrize("module", [circle, graph, source])
def test_the_examples_in_docstrings_hold(module: ModuleType) -> None:
    failed, tried = doctest.testmod(module)
    assert (failed, tried > 0) == (0, True)


def test_a_cycle_of_ten_thousand_modules_needs_no_recursion() -> None:
    graph = {str(number): [str((number + 1) % 10_000)] for number in range(10_000)}
    (found,) = cycles(graph)
    assert len(found) == 10_000


@given(st.dictionaries(st.sampled_from("abcdefg"), st.sets(st.sampled_from("abcdefgh"))))
def test_cycles_are_the_nodes_that_reach_each_other(graph: dict[str, set[str]]) -> None:
    reach = {node: _reachable(graph, node) for node in graph}
    expected = {
        frozenset(other for other in graph if other == node or (other in reach[node] and node in reach[other]))
        for node in graph
    }
    assert {frozenset(group) for group in cycles(graph)} == {group for group in expected if len(group) > 1}


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    todo = [start]
    while todo:
        fresh = graph.get(todo.pop(), set()) - found
        found |= fresh
        todo += fresh
    return found


def test_packages_that_import_each_other_are_a_community() -> None:
    pairs = ["ab", "bc", "ca", "xy", "yz", "zx", "cx"]
    edges = [Edge(pair[0], pair[1], 1, deferred=False) for pair in pairs]
    assert communities("abcxyzq", edges) == [["a", "b", "c"], ["x", "y", "z"], ["q"]]


def test_every_node_has_its_own_place_on_the_circle() -> None:
    found = places([["a", "b", "c"], ["d"]])
    angles = [place.angle for place in found.values()]
    assert angles == sorted(set(angles))
    assert max(angles) < 6.28
    assert found["b"].angle == found["b"].middle == found["a"].middle


def test_the_picture_is_well_formed_and_shows_every_package_and_every_import(library: Path) -> None:
    report = report_of(library)
    image = ET.fromstring(draw(report))
    words = [text.text for text in image.iter("{http://www.w3.org/2000/svg}text")]
    assert {"alpha", "beta", "gamma"} <= set(words)
    assert len(list(image.iter("{http://www.w3.org/2000/svg}path"))) == len(report.edges)


def test_an_empty_library_still_gives_a_report(tmp_path: Path) -> None:
    report = report_of(tmp_path)
    assert "0 packages" in as_text(report)
    ET.fromstring(draw(report))


def test_the_texts_hold_what_was_found(library: Path) -> None:
    report = report_of(library)
    text = as_text(report)
    assert "gamma.inner, gamma.outer" in text
    assert "gamma/broken.py: line 1: Missing parentheses" in text
    assert [row["name"] for row in csv.DictReader(packages_csv(report).splitlines())] == ["gamma", "alpha", "beta"]
    assert imports_csv(report).splitlines()[1:] == ["alpha,beta,1,False", "beta,alpha,1,True", "gamma,alpha,1,False"]
    data = json.loads(as_json(report))
    assert data["popular"][0] == {"name": "alpha", "modules": 2, "packages": 2}


def run_example(*arguments: str, cwd: Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "analyze_stdlib.py"), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {} if path is None else {"PATH": path}
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def check_whole_job(*options: str, cwd: Path) -> int:
    """Run the example, check all that it left behind, and return how many modules it measured."""
    done = run_example("--workers", "2", *options, cwd=cwd)
    assert done.returncode == 0, done.stderr
    output = cwd / "stdlib-report"
    data = json.loads((output / "report.json").read_text())
    modules: int = sum(package["modules"] for package in data["packages"])
    assert all(package["compressed"] > 0 for package in data["packages"])
    with (output / "packages.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = [package["name"] for package in data["packages"]]
    assert [row["name"] for row in rows] == names
    assert (output / "imports.csv").read_text().startswith("importer,imported,modules,deferred\n")
    words = {text.text for text in ET.parse(output / "imports.svg").iter("{http://www.w3.org/2000/svg}text")}
    assert set(names) <= words
    assert (output / "report.txt").read_text() in done.stdout
    assert "Largest packages" in done.stdout
    # find, analyze and conclude; two for each package; one for each module; five files
    tasks = 3 + 2 * len(names) + modules + 5
    assert done.stdout.splitlines()[-1].startswith(f"{tasks:,} tasks in ")
    assert f"{tasks:,} of {tasks:,} tasks" in done.stderr
    assert "\r" not in done.stderr
    return modules


@pytest.mark.slow
def test_the_whole_job_runs_on_threads(tmp_path: Path) -> None:
    assert check_whole_job("--executor", "threads", "--limit", "40", cwd=tmp_path) == 40


@pytest.mark.slow
def test_the_whole_job_runs_on_htex_for_the_whole_library(tmp_path: Path) -> None:
    assert check_whole_job(cwd=tmp_path) > 300


def test_quiet_prints_one_line_and_broken_files_are_reported(library: Path, tmp_path: Path) -> None:
    options = ["--executor", "threads", "--root", str(library), "--output", "out", "--quiet"]
    done = run_example(*options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert "gamma/broken.py" in json.loads((tmp_path / "out/report.json").read_text())["errors"]


def test_a_tool_that_is_missing_is_named_in_the_error(library: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "bash", "cat", "wc"):
        (tools / name).symlink_to(shutil.which(name) or name)
    done = run_example("--executor", "threads", "--root", str(library), "--quiet", cwd=tmp_path, path=str(tools))
    assert done.returncode == 1
    assert "exit code 127" in done.stderr
    assert "gzip: command not found" in done.stderr


def test_an_output_folder_that_cannot_be_made_is_exit_code_1(library: Path, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    done = run_example("--executor", "threads", "--root", str(library), "--output", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("analyze_stdlib: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["--workers", "0"], ["--limit", "many"], ["--root", "nowhere"]])
def test_bad_arguments_are_refused_before_anything_runs(tmp_path: Path, arguments: list[str]) -> None:
    done = run_example(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert arguments[0] in done.stderr
    assert list(tmp_path.iterdir()) == []
