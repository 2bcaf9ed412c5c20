"""Launchers that start copies on all nodes: where, with which options, in which environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from clusters.packages import give_up, require
from fakes.schedulers import put_command
from fakes.starters import put_starter
from flowcore.launchers import AprunLauncher, GnuParallelLauncher, JsrunLauncher, MpiExecLauncher, MpiRunLauncher
from flowcore.launchers.base import Launcher
from flowcore.launchers.spread import script

TIMEOUT = 60

# What an MPI's mpiexec is asked to do, told instead of done: its options, then the nodes in its file.
TELLING_MPIEXEC = """\
printf '%s\\n' "$(basename "$0")"
while [ "$1" != /bin/bash ] && [ "$1" != /usr/bin/bash ]; do
  case $1 in --hostfile) shift; sort "$1" | uniq -c | sed 's/^ *//' ;; *) printf '%s\\n' "$1" ;; esac
  shift
done
printf '%s\\n' "$1" "ppr ${PRTE_MCA_rmaps_default_mapping_policy-none}\""""

# A "remote" node is this machine, with nothing of the caller's environment but what sshd would set, and a name.
FAKE_SSH = """\
while [ "${1#-}" != "$1" ]; do case $1 in -l | -p | -o) shift ;; esac; shift; done
node=$1; shift
[ "$1" != -- ] || shift
cd /
exec env -i HOME="$HOME" PATH=/usr/bin:/bin SHELL=/bin/bash SSH_CONNECTION=x NODE="$node" /bin/bash -c "$*\""""


def run(text: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", "-s"],
        input=text,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
        env={**os.environ, **variables},
    )


def put(folder: Path, monkeypatch: pytest.MonkeyPatch, **commands: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in commands.items():
        put_command(folder, name, text)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def nodes(nodes_per_block: int, **variables: str) -> list[str]:
    """Return the nodes that a script finds."""
    text = f"flowcore_nodes_per_block={nodes_per_block}\n{script('nodes')}printf '%s\\n' \"${{flowcore_nodes[@]}}\""
    return run(text, **variables).stdout.split()


@pytest.fixture
def file_of_nodes(tmp_path: Path) -> str:
    path = tmp_path / "nodefile"
    path.write_text("n1\nn1\nn2\nn2\n\nn3\n")
    return str(path)


@pytest.mark.parametrize("variable", ["PBS_NODEFILE", "COBALT_NODEFILE", "LSB_DJOB_HOSTFILE"])
def test_the_nodes_are_those_of_the_file_once_each(variable: str, file_of_nodes: str) -> None:
    assert nodes(3, **{variable: file_of_nodes}) == ["n1", "n2", "n3"]


def test_the_nodes_are_those_of_a_grid_engine_file(tmp_path: Path) -> None:
    (tmp_path / "pe").write_text("n1 2 all.q@n1 <NULL>\nn2 1 all.q@n2 <NULL>\n")
    assert nodes(2, PE_HOSTFILE=str(tmp_path / "pe")) == ["n1", "n2"]


def test_the_nodes_are_those_that_a_fake_scontrol_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "bin", monkeypatch, scontrol='[ "$*" = "show hostnames n[1-2]" ] && printf "n1\\nn2\\n"')
    assert nodes(2, SLURM_JOB_NODELIST="n[1-2]") == ["n1", "n2"]


def test_fewer_nodes_than_there_should_be_get_more_copies(file_of_nodes: str) -> None:
    assert nodes(5, PBS_NODEFILE=file_of_nodes) == ["n1", "n2", "n3", "n1", "n2"]


def test_without_a_resource_manager_it_is_this_node() -> None:
    assert nodes(2) == ["localhost", "localhost"]


@pytest.mark.parametrize(
    ("launcher", "options"),
    [
        (MpiExecLauncher(debug=False), ["mpiexec", "--bind-to", "none", "-n", "6"]),
        (
            MpiExecLauncher(debug=False, bind_cmd="--cpu-bind", overrides="--ppn 2 -x 'a b'"),
            ["mpiexec", "--cpu-bind", "none", "--ppn", "2", "-x", "a b", "-n", "6"],
        ),
        (MpiExecLauncher(debug=False, bind_cmd=""), ["mpiexec", "-n", "6"]),
        (MpiRunLauncher(debug=False), ["mpirun", "-np", "6"]),
    ],
)
def test_a_fake_mpi_gets_its_options_and_the_nodes(
    launcher: Launcher, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_of_nodes: str
) -> None:
    put(tmp_path / "bin", monkeypatch, mpiexec=TELLING_MPIEXEC, mpirun=TELLING_MPIEXEC)
    done = run(launcher("exit 0", 2, 3), PBS_NODEFILE=file_of_nodes)
    assert done.stdout.splitlines() == [*options, "2 n1", "2 n2", "2 n3", "/bin/bash", "ppr ppr:2:node"]


def test_a_fake_mpirun_gets_the_overrides_and_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "bin", monkeypatch, mpirun=TELLING_MPIEXEC)
    launcher = MpiRunLauncher(debug=False, bash_location="/usr/bin/bash", overrides="-x A")
    told = run(launcher("exit 0", 1, 2)).stdout.splitlines()
    assert told == ["mpirun", "-np", "2", "2 localhost", "-x", "A", "/usr/bin/bash", "ppr none"]


def test_no_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require(["parallel"], ["parallel"])
    put(tmp_path / "bin", monkeypatch, mpiexec="exit 0")
    (tmp_path / "tmp").mkdir()
    for launcher in (MpiExecLauncher(), GnuParallelLauncher()):
        assert run(launcher("exit 0", 2, 1), TMPDIR=str(tmp_path / "tmp")).returncode == 0
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(("program", "launcher"), [("mpiexec", MpiExecLauncher()), ("parallel", GnuParallelLauncher())])
def test_a_script_told_to_end_before_it_starts_the_program_starts_nothing_and_leaves_no_file(
    program: str, launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mktemp = f'file=$({shutil.which("mktemp")} "$@"); kill -TERM "$SCRIPT"; echo "$file"'
    put(tmp_path / "bin", monkeypatch, mktemp=mktemp, **{program: "echo started"})
    (tmp_path / "tmp").mkdir()
    done = run("export SCRIPT=$$\n" + launcher("exit 0", 2, 1), TMPDIR=str(tmp_path / "tmp"))
    assert (done.returncode, done.stdout) == (143, "")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_exit_code_is_that_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "bin", monkeypatch, mpiexec="exit 42")
    assert run(MpiExecLauncher()("exit 0", 1, 1)).returncode == 42


@pytest.mark.parametrize(
    ("name", "launcher", "options"),
    [
        (
            "aprun",
            AprunLauncher(debug=False, overrides="-d 16 -cc none"),
            ["-n", "6", "-N", "2", "-d", "16", "-cc", "none"],
        ),
        ("jsrun", JsrunLauncher(debug=False, overrides="-c ALL_CPUS"), ["-n", "6", "-r", "2", "-c", "ALL_CPUS"]),
    ],
)
def test_a_fake_starter_gets_its_options(
    name: str, launcher: Launcher, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starter = put_starter(name, tmp_path / "bin", monkeypatch)
    done = run(launcher("echo here", 2, 3))
    assert (done.returncode, done.stdout.split()) == (0, ["here"] * 6), done.stderr
    assert starter.options() == options


def test_a_copy_ends_with_the_daemon_that_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `sh` stands for the daemon on the node, which starts each copy in a session of its own.
    up = tmp_path / "up"
    os.mkfifo(up)
    daemon = f'setsid "$@" & read -r _ < {up}; kill -KILL $$'
    put(tmp_path / "bin", monkeypatch, aprun=f"shift 4; setsid sh -c '{daemon}' sh \"$@\"")
    text = AprunLauncher(debug=False)(f"sleep 600 & trap 'echo told; exit 0' TERM; echo > {up}; wait; wait", 1, 1)
    assert text.count("read -rt 5 ") == 1  # what a copy has until it is killed: too little on a busy machine
    done = run(text.replace("read -rt 5 ", "read -rt 600 "))
    assert done.stdout == "told\n"


def test_the_job_s_environment_is_there_where_the_program_does_not_hand_it_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = "LANG=here PATH=/usr/bin:/bin"
    put(tmp_path / "bin", monkeypatch, jsrun=f'shift 4; exec env -i {here} "$@"')
    done = run(
        JsrunLauncher(debug=False)('printf "%s|" "$GREETING" "$LANG" "$PATH"', 1, 1),
        GREETING='it\'s\n "me" $HOME',
        LANG="C.UTF-8",
    )
    greeting, language, path, _ = done.stdout.split("|")
    assert (greeting, language) == ('it\'s\n "me" $HOME', "here")
    assert path == os.environ["PATH"]


def test_parallel_reaches_other_nodes_through_a_fake_ssh_with_the_job_s_environment_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_of_nodes: str
) -> None:
    require(["parallel"], ["parallel"])
    put(tmp_path / "bin", monkeypatch, ssh=FAKE_SSH)
    launcher = GnuParallelLauncher(debug=False)
    done = run(launcher('echo "$NODE $GREETING $PWD"', 2, 3), PBS_NODEFILE=file_of_nodes, GREETING="it's  $me")
    assert done.returncode == 0, done.stderr
    folder = Path.cwd()
    assert Counter(done.stdout.splitlines()) == {f"n{number} it's  $me {folder}": 2 for number in (1, 2, 3)}


def test_parallel_needs_no_ssh_for_this_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require(["parallel"], ["parallel"])
    put(tmp_path / "bin", monkeypatch, ssh="echo used >&2; exit 1")
    (tmp_path / "nodefile").write_text(f"{os.uname().nodename}\n")
    done = run(GnuParallelLauncher(debug=False)("echo here", 1, 1), PBS_NODEFILE=str(tmp_path / "nodefile"))
    assert (done.stdout, done.stderr) == ("here\n", "")


def test_one_failed_copy_fails_parallel_and_the_others_come_to_their_end(tmp_path: Path) -> None:
    require(["parallel"], ["parallel"])
    command = f"if mkdir {tmp_path}/taken 2>/dev/null; then exit 9; fi; sleep 0.3; echo ended"
    done = run(GnuParallelLauncher(debug=False)(command, 3, 1))
    assert (done.returncode, done.stdout) == (9, "ended\n" * 2)


def test_one_failed_copy_fails_a_real_mpiexec_and_the_others_come_to_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (Path(sys.executable).parent / "mpiexec").exists():
        give_up("there is no mpiexec beside the interpreter; `pip install mpich` brings one")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    command = f"if mkdir {tmp_path}/taken 2>/dev/null; then kill -KILL $BASHPID; fi; sleep 0.3; echo ended"
    done = run(MpiExecLauncher(debug=False)(command, 3, 1))
    assert (done.returncode, done.stdout) == (137, "ended\n" * 2)
