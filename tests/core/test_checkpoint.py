"""Checkpoints: what is written when, what a crash costs, and what the next run finds."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowcore.dataflow import checkpoint
from flowcore.dataflow.checkpoint import CheckpointWriter, get_all_checkpoints, get_last_checkpoint, read_checkpoint
from flowcore.dataflow.errors import BadCheckpoint
from flowcore.dataflow.memoization import BasicMemoizer
from flowcore.errors import ConfigurationError

PATIENCE = 60
FIXTURES_ONCE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def double(x):
    return 2 * x


class Task:
    def __init__(self, *args):
        self.func, self.args, self.kwargs = double, args, {}
        self.memoize, self.ignore_for_cache = True, ()
        self.id, self.hashsum, self.from_memo = 0, None, None


class GoesAway:
    """Pickles, and does not unpickle."""

    def __reduce__(self):
        return exec, ("raise ImportError('gone')",)


@pytest.fixture
def run(tmp_path):
    """Start the memoizer of a new run under one folder."""
    started = []

    def run(**options):
        memoizer = BasicMemoizer(**options)
        folder = tmp_path / f"{len(started):03}"
        folder.mkdir()
        memoizer.start(folder, tmp_path)
        started.append(memoizer)
        return memoizer

    yield run
    for memoizer in started:
        memoizer.close()


@pytest.fixture
def wrote(monkeypatch):
    """Is set when a file of results is on the disk."""
    wrote = threading.Event()
    sync = CheckpointWriter.sync

    def noticed(writer):
        sync(writer)
        if writer.path.exists():
            wrote.set()

    monkeypatch.setattr(CheckpointWriter, "sync", noticed)
    return wrote


def tell(memoizer, *numbers):
    for number in numbers:
        task = Task(number)
        assert memoizer.check_memo(task) is None
        memoizer.update_memo_result(task, 2 * number)


def found(memoizer, *numbers):
    outcomes = [memoizer.check_memo(Task(number)) for number in numbers]
    return [outcome and outcome.result(0) for outcome in outcomes]


def written(folder, count):
    with_results = {f"hash{n}": {"n": n, "text": "x" * n} for n in range(count)}
    writer = CheckpointWriter(folder)
    for hashsum, result in with_results.items():
        writer.append(hashsum, result)
    writer.close()
    return with_results


def loaded(folder):
    return {hashsum: stored.load() for hashsum, stored in read_checkpoint(folder).items()}


def test_what_is_written_is_read(tmp_path):
    results = written(tmp_path / "000" / "checkpoint", 20)
    assert loaded(tmp_path / "000" / "checkpoint") == results
    assert loaded(tmp_path / "000") == results
    assert loaded(tmp_path / "000" / "checkpoint" / "tasks.pkl") == results


def test_a_writer_that_wrote_nothing_leaves_nothing(tmp_path):
    writer = CheckpointWriter(tmp_path / "checkpoint")
    writer.sync()
    writer.close()
    writer.close()
    assert list(tmp_path.iterdir()) == []


@settings(suppress_health_check=FIXTURES_ONCE)
@given(data=st.data())
def test_a_file_cut_anywhere_gives_the_whole_records_before_the_cut(tmp_path_factory, data, caplog):
    folder = tmp_path_factory.mktemp("cut")
    results = written(folder, 5)
    whole = (folder / "tasks.pkl").read_bytes()
    size = data.draw(st.integers(len(checkpoint.MAGIC), len(whole)))
    (folder / "tasks.pkl").write_bytes(whole[:size])
    caplog.clear()
    kept = loaded(folder)
    assert kept == {hashsum: results[hashsum] for hashsum in list(results)[: len(kept)]}
    assert len(caplog.records) <= 1
    if size == len(whole):
        assert len(kept) == 5


@settings(suppress_health_check=FIXTURES_ONCE)
@given(data=st.data())
def test_a_damaged_byte_never_gives_a_wrong_result(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    results = written(folder, 5)
    content = bytearray((folder / "tasks.pkl").read_bytes())
    place = data.draw(st.integers(len(checkpoint.MAGIC), len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    (folder / "tasks.pkl").write_bytes(content)
    assert loaded(folder).items() <= results.items()


def test_damage_is_warned_of_once(tmp_path, caplog):
    written(tmp_path, 5)
    with (tmp_path / "tasks.pkl").open("ab") as stream:
        stream.write(b"half a rec")
    assert len(read_checkpoint(tmp_path)) == 5
    (record,) = caplog.records
    assert "damaged" in record.getMessage()


@pytest.mark.parametrize("content", [b"", b"something else", pickle.dumps({"hash": 1})])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "tasks.pkl").write_bytes(content)
    with pytest.raises(BadCheckpoint, match="no checkpoint of flowcore"):
        read_checkpoint(tmp_path)


def test_a_missing_checkpoint_is_refused_by_name(tmp_path):
    with pytest.raises(BadCheckpoint, match="nowhere"):
        read_checkpoint(tmp_path / "nowhere")


def test_a_write_that_fails_half_way_is_taken_back(tmp_path, monkeypatch):
    writer = CheckpointWriter(tmp_path)
    writer.append("first", 1)

    def half(stream, content):
        stream.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write_all", half)
        with pytest.raises(OSError, match="No space"):
            writer.append("second", 2)
    writer.append("third", 3)
    writer.close()
    assert loaded(tmp_path) == {"first": 1, "third": 3}


def test_many_threads_may_write(tmp_path):
    writer = CheckpointWriter(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: writer.append(f"hash{n}", n), range(200)))
    writer.close()
    assert loaded(tmp_path) == {f"hash{n}": n for n in range(200)}


def test_results_that_only_cloudpickle_takes_are_kept_too(tmp_path):
    writer = CheckpointWriter(tmp_path)
    writer.append("function", lambda x: x + 1)
    writer.close()
    assert loaded(tmp_path)["function"](1) == 2


def test_checkpoints_are_listed_by_the_number_of_their_run(tmp_path):
    assert get_all_checkpoints(tmp_path / "none") == []
    assert get_last_checkpoint(tmp_path) == []
    for name in ("1000", "999", "000", "notes"):
        written(tmp_path / name / "checkpoint", 1)
    (tmp_path / "1001").mkdir()
    expected = [str(tmp_path / name / "checkpoint") for name in ("000", "999", "1000")]
    assert get_all_checkpoints(tmp_path) == expected
    assert get_last_checkpoint(str(tmp_path)) == expected[-1:]


def test_task_exit_writes_each_result_at_once(run, tmp_path):
    tell(run(checkpoint_mode="task_exit"), 1, 2)
    assert sorted(loaded(tmp_path / "000").values()) == [2, 4]


def test_dfk_exit_writes_at_the_end(run, tmp_path):
    memoizer = run(checkpoint_mode="dfk_exit")
    tell(memoizer, 1, 2)
    assert not (tmp_path / "000" / "checkpoint").exists()
    memoizer.close()
    assert sorted(loaded(tmp_path / "000").values()) == [2, 4]


def test_manual_writes_when_told_and_only_then(run, tmp_path):
    memoizer = run(checkpoint_mode="manual")
    tell(memoizer, 1)
    assert memoizer.checkpoint() == str(tmp_path / "000" / "checkpoint")
    assert memoizer.checkpoint() == str(tmp_path / "000" / "checkpoint")
    tell(memoizer, 2)
    memoizer.close()
    assert list(loaded(tmp_path / "000").values()) == [2]


def test_periodic_writes_from_time_to_time_and_at_the_end(run, tmp_path, wrote):
    memoizer = run(checkpoint_mode="periodic", checkpoint_period="00:00:00.02")
    tell(memoizer, 1)
    assert wrote.wait(PATIENCE)
    assert list(loaded(tmp_path / "000").values()) == [2]
    memoizer.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("flowcore-checkpoint")]


def test_periodic_writes_the_rest_at_the_end(run, tmp_path):
    memoizer = run(checkpoint_mode="periodic", checkpoint_period="10:00:00")
    tell(memoizer, 1)
    memoizer.close()
    assert list(loaded(tmp_path / "000").values()) == [2]


def test_without_a_mode_nothing_is_written_and_nothing_read(run, tmp_path):
    tell(run(checkpoint_mode="task_exit"), 1)
    second = run()
    assert found(second, 1) == [None]
    with pytest.raises(ConfigurationError, match="checkpoint_mode='manual'"):
        second.checkpoint()
    second.close()
    assert not (tmp_path / "001" / "checkpoint").exists()


def test_with_a_mode_the_results_of_all_earlier_runs_are_there(run):
    for number in (1, 2):
        memoizer = run(checkpoint_mode="task_exit")
        tell(memoizer, number)
        memoizer.close()
    assert found(run(checkpoint_mode="dfk_exit"), 1, 2, 3) == [2, 4, None]


def test_named_checkpoints_are_read_with_and_without_a_mode(run, tmp_path):
    tell(run(checkpoint_mode="task_exit"), 1)
    tell(run(checkpoint_mode="task_exit", checkpoint_files=[]), 2)
    second_only = [tmp_path / "001" / "checkpoint"]
    assert found(run(checkpoint_files=second_only), 1, 2) == [None, 4]
    assert found(run(checkpoint_files=second_only, checkpoint_mode="manual"), 1, 2) == [None, 4]
    assert found(run(checkpoint_files=get_all_checkpoints(tmp_path)), 1, 2) == [2, 4]


def test_a_named_checkpoint_that_is_bad_stops_the_run(tmp_path):
    memoizer = BasicMemoizer(checkpoint_files=[tmp_path / "nowhere"])
    with pytest.raises(BadCheckpoint, match="nowhere"):
        memoizer.start(tmp_path, tmp_path)


def test_an_earlier_run_with_a_bad_checkpoint_is_passed_over_with_a_warning(run, tmp_path, caplog):
    tell(run(checkpoint_mode="task_exit"), 1)
    bad = tmp_path / "077" / "checkpoint"
    bad.mkdir(parents=True)
    (bad / "tasks.pkl").write_bytes(b"of another kind")
    assert found(run(checkpoint_mode="dfk_exit"), 1) == [2]
    assert "077" in caplog.text


def test_only_successes_are_kept_for_the_next_run(run):
    first = run(checkpoint_mode="task_exit")
    task = Task(1)
    assert first.check_memo(task) is None
    first.update_memo_exception(task, ValueError("no"))
    first.close()
    assert found(run(checkpoint_mode="dfk_exit"), 1) == [None]


def test_a_result_found_in_a_checkpoint_is_one_object_and_not_written_again(run, tmp_path):
    first = run(checkpoint_mode="task_exit")
    task = Task(1)
    assert first.check_memo(task) is None
    first.update_memo_result(task, ["a list"])
    second = run(checkpoint_mode="task_exit")
    again = Task(1)
    outcome = second.check_memo(again)
    second.update_memo_result(again, outcome.result(0))
    assert outcome.result(0) is second.check_memo(Task(1)).result(0)
    assert not (tmp_path / "001" / "checkpoint").exists()


def test_a_result_that_does_not_pickle_costs_itself_and_a_warning(run, tmp_path, caplog):
    memoizer = run(checkpoint_mode="task_exit")
    task = Task(0)
    assert memoizer.check_memo(task) is None
    memoizer.update_memo_result(task, threading.Lock())
    tell(memoizer, 1)
    assert "lock" in caplog.text
    assert list(loaded(tmp_path / "000").values()) == [2]
    assert memoizer.check_memo(Task(0)) is not None


def test_a_result_that_cannot_be_read_back_is_computed_again(run, caplog):
    first = run(checkpoint_mode="task_exit")
    task = Task(1)
    assert first.check_memo(task) is None
    first.update_memo_result(task, GoesAway())
    first.close()
    second = run(checkpoint_mode="task_exit")
    assert found(second, 1) == [None]
    assert "computed again" in caplog.text
    tell(second, 1)
    assert found(second, 1) == [2]


def test_what_comes_after_close_is_not_written(run, tmp_path):
    memoizer = run(checkpoint_mode="task_exit")
    task = Task(1)
    assert memoizer.check_memo(task) is None
    memoizer.close()
    memoizer.update_memo_result(task, 2)
    assert not (tmp_path / "000" / "checkpoint").exists()


@pytest.mark.parametrize("mode", ["task_exit", "dfk_exit"])
def test_one_memoizer_serves_one_run_after_another(tmp_path, mode):
    memoizer = BasicMemoizer(checkpoint_mode=mode, checkpoint_files=[])
    for number in (1, 2):
        memoizer.start(tmp_path / f"00{number}", tmp_path)
        assert found(memoizer, 1, 2) == [None, None]
        tell(memoizer, number)
        assert found(memoizer, number) == [2 * number]
        memoizer.close()
        assert len(loaded(tmp_path / f"00{number}")) == 1


def test_one_memoizer_writes_from_time_to_time_in_a_second_run_too(tmp_path, wrote):
    memoizer = BasicMemoizer(checkpoint_mode="periodic", checkpoint_period=0.01)
    memoizer.start(tmp_path / "000", tmp_path)
    memoizer.close()
    memoizer.start(tmp_path / "001", tmp_path)
    tell(memoizer, 1)
    assert wrote.wait(PATIENCE)
    memoizer.close()


def test_a_memoizer_refuses_a_second_run_beside_the_first(run, tmp_path):
    memoizer = run(checkpoint_mode="task_exit")
    with pytest.raises(ConfigurationError, match="serves a run that is not over"):
        memoizer.start(tmp_path / "001", tmp_path)
    tell(memoizer, 1)
    assert len(loaded(tmp_path / "000")) == 1


def test_a_memoizer_for_whose_thread_there_was_no_room_can_be_started(tmp_path, monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    memoizer = BasicMemoizer(checkpoint_mode="periodic", checkpoint_period="00:00:10")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(threading.Thread, "start", refuse)
        memoizer.start(tmp_path / "000", tmp_path)
    memoizer.start(tmp_path / "000", tmp_path)
    tell(memoizer, 1)
    memoizer.close()
    assert len(loaded(tmp_path / "000")) == 1


def test_a_memoizer_whose_start_failed_can_be_started(tmp_path):
    memoizer = BasicMemoizer(checkpoint_files=[tmp_path / "000"])
    with pytest.raises(BadCheckpoint):
        memoizer.start(tmp_path / "001", tmp_path)
    written(tmp_path / "000", 3)
    memoizer.start(tmp_path / "001", tmp_path)
    memoizer.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"checkpoint_mode": "often"}, "one of 'task_exit'"),
        ({"checkpoint_mode": "periodic"}, "needs a checkpoint_period"),
        ({"checkpoint_mode": "periodic", "checkpoint_period": "soon"}, "a duration is written"),
        ({"checkpoint_mode": "periodic", "checkpoint_period": 0}, "longer than nothing"),
        ({"checkpoint_mode": "task_exit", "checkpoint_period": "00:30:00"}, "'periodic' only"),
        ({"checkpoint_files": "runinfo/000/checkpoint"}, "write \\['runinfo/000/checkpoint'\\]"),
        ({"checkpoint_files": [3]}, "list of checkpoint folders"),
        ({"checkpoint_files": 3}, "list of checkpoint folders"),
        ({"memoize": "no"}, "memoize='no': True or False is needed"),
        ({"memoize": None}, "memoize=None: True or False is needed"),
    ],
)
def test_options_that_cannot_work_are_refused_at_construction(options, said):
    with pytest.raises(ConfigurationError, match=said):
        BasicMemoizer(**options)


@pytest.mark.fault
def test_results_written_before_a_kill_are_there_afterwards(tmp_path):
    program = (
        "import sys, itertools, pathlib\n"
        "from flowcore.dataflow.checkpoint import CheckpointWriter\n"
        "writer = CheckpointWriter(pathlib.Path(sys.argv[1]))\n"
        "for n in itertools.count():\n"
        "    writer.append(f'hash{n}', n)\n"
        "    print(n, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) >= 50:
                break
        os.kill(process.pid, signal.SIGKILL)
        told = int((process.stdout.read().split() or [line])[-1])
    results = loaded(tmp_path)
    assert results == {f"hash{n}": n for n in range(len(results))}
    assert len(results) > told


def test_the_repr_of_a_memoizer_is_its_construction():
    text = "BasicMemoizer(checkpoint_files=('a',), checkpoint_period=1800.0, checkpoint_mode='periodic', memoize=True)"
    memoizer = BasicMemoizer(checkpoint_files=[Path("a")], checkpoint_period="30:00", checkpoint_mode="periodic")
    assert repr(memoizer) == text
