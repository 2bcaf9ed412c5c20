"""Blocks that end: tasks go where there is time for them, managers drain in time, and others take their place."""

from __future__ import annotations

import logging
import os
import resource
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowcore
import htex_tasks
from flowcore import Config, python_app
from flowcore.errors import InvalidResourceSpecification
from flowcore.executors.errors import BadStateException, ExecutorError
from flowcore.jobs.states import JobState
from flowcore.providers import LocalProvider
from flowcore.testing import tasks
from flowcore.testing.gate import Gate
from flowcore_htex import wire
from flowcore_htex.errors import VersionMismatch
from flowcore_htex.executor import HighThroughputExecutor
from flowcore_htex.log import Log
from flowcore_htex.matching import UNITS, RandomManagerSelector, Room, Rooms, fits, reserve
from flowcore_htex.peers import Manager
from flowcore_htex.pending import Pending
from flowcore_htex.registration import misfit
from flowcore_htex.walltime import ALMOST_OVER, margin, seconds_left, time_for_tasks, time_needed
from flowcore_htex.wire import Task
from htex_rig import Family, Script, registration
from nodes import Executors
from waiting import PATIENCE, eventually, until

BLOCK = "FLOWCORE_BLOCK_ID"
ENDED = f"ended: {ALMOST_OVER}"


@pytest.fixture
def start(tmp_path):
    with Executors(tmp_path) as executors:
        yield executors.start


@pytest.fixture
def gate():
    with Gate(PATIENCE) as gate:
        yield gate


class SixtySeconds(LocalProvider):
    """Says that a block lasts a minute."""

    @property
    def block_walltime(self):
        return 60.0


def lasting(seconds, **options):
    """Return a provider whose blocks are told that they last so long; nobody ends them."""
    return LocalProvider(worker_init=f"export FLOWCORE_BLOCK_END=$(($(date +%s) + {seconds}))", **options)


def short_at_first(flag, **options):
    """Return a provider whose blocks last 15 seconds, 10 of them for tasks, until there is the file; then an hour."""
    return lasting(f"$([ -e {flag} ] && echo 3600 || echo 15)", **options)


# -- how long there is time


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_longer_blocks_have_more_time_for_tasks_and_a_margin_within_bounds(one, other):
    shorter, longer = sorted((one, other))
    assert time_for_tasks(shorter) <= time_for_tasks(longer)
    assert 5 <= margin(shorter) <= margin(longer) <= 60
    assert margin(1000) == 10


@given(st.dictionaries(st.sampled_from(["walltime", "running_time_min", "cores"]), st.floats(0, 1e6)))
def test_a_task_needs_the_most_of_the_times_that_it_asks_for(need):
    assert time_needed(need) == max(need.get("walltime", 0), need.get("running_time_min", 0))


def test_the_end_of_a_block_is_relative_and_may_be_past():
    assert seconds_left({}, 100) is None
    assert seconds_left({"FLOWCORE_BLOCK_END": ""}, 100) is None
    assert seconds_left({"FLOWCORE_BLOCK_END": "160"}, 100) == 60
    assert seconds_left({"FLOWCORE_BLOCK_END": "60.5"}, 100) == -39.5


MALFORMED = ["soon", "nan", "inf", "-inf", "-5", "0", "1e999", "12:00"]


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_no_time_is_told_apart(text):
    with pytest.raises(ValueError, match=text.removeprefix("-")):
        seconds_left({"FLOWCORE_BLOCK_END": text}, 100)


@pytest.mark.parametrize("bent", [-1, "5", [], True])
def test_a_registration_with_a_bent_time_is_refused(bent):
    assert "seconds_left" in misfit(registration(seconds_left=bent))
    assert misfit(registration(seconds_left=None)) is None
    assert misfit(registration(seconds_left=7.5)) is None
    assert "drain_reason" in misfit(registration(drain_reason=5))


# -- which manager gets a task

seconds = st.one_of(st.just(float("inf")), st.floats(0, 1e5))
rooms = st.builds(Room, st.integers(0, 8), st.just(1000), st.just(1000), st.just(0), seconds)
needs = st.fixed_dictionaries({}, optional={"walltime": st.floats(0, 1e5), "running_time_min": st.floats(0, 1e5)})


@given(rooms, needs, st.integers(1, 8))
def test_a_task_fits_only_where_it_has_the_time_that_it_asks_for(room, need, slots):
    assert fits(room, need, slots) == (slots <= room.slots and time_needed(need) <= room.seconds)
    assert not fits(room, {**need, "walltime": 2e5}, slots) or room.seconds == float("inf")


@given(st.dictionaries(st.text(max_size=2), rooms, max_size=5), needs)
def test_no_manager_is_chosen_or_kept_free_for_a_task_that_it_has_no_time_for(free, need):
    for name in (Rooms(free).choose(b"", need, 1), reserve(free, free, need, 1)):
        assert name is None or free[name].seconds >= time_needed(need)


class Listener:
    """A peer that remembers the ids of the tasks it was sent."""

    def __init__(self):
        self.sent = []

    def queue(self, kind, head=b"", buffers=()):
        if kind == wire.TASKS:
            self.sent += wire.unpack_tasks(head)[0]

    def flush(self):
        pass


def manager(name, left, workers=1):
    info = registration(manager=name, block_id=name, worker_count=workers, seconds_left=left, draining=False)
    return Manager(Listener(), info, {"cores_per_worker": 1, "mem_per_worker": None, "accelerators": []})


def pending(*requests):
    waiting = Pending(RandomManagerSelector(), 0, Log(None, None))
    for tid, need in enumerate(requests, 1):
        if need:
            waiting.add_special(Task(tid, 1, b"", (), wire.pack_json(need)))
        else:
            waiting.add([Task(tid, 1, b"")])
    return waiting


def test_a_manager_reports_how_long_tasks_can_run():
    assert 900 < manager("m", 1000).report()["seconds_left"] <= 1000
    assert manager("m", 0).report()["seconds_left"] == 0
    assert manager("m", None).report()["seconds_left"] is None


def test_any_number_of_tasks_without_time_holds_up_no_other():
    known = {"m": manager("m", 1000, workers=3)}
    waiting = pending(*[{"walltime": 10_000}] * 500, {"walltime": 10}, {"running_time_min": 900.0, "cores": 1}, None)
    waiting.give_out(known, {})
    assert sorted(known["m"].peer.sent) == [501, 502, 503]
    assert len(waiting) == 500
    assert not waiting  # nothing here for the managers there are
    waiting.reconsider()
    assert waiting


def test_tasks_without_time_are_looked_at_again_when_another_manager_comes():
    known = {"m": manager("m", 100)}
    waiting = pending({"walltime": 1000}, {"walltime": 1000}, {"walltime": 1000})
    waiting.give_out(known, {})
    assert waiting.drop({2}) == {2}
    known["n"] = manager("n", 2000, workers=5)
    waiting.reconsider()
    waiting.give_out(known, {})
    assert known["n"].peer.sent == [1, 3]
    assert (known["m"].peer.sent, len(waiting)) == ([], 0)


def test_tasks_without_a_request_are_given_to_the_very_end():
    known = {"m": manager("m", 0.0)}
    waiting = pending(None)
    waiting.give_out(known, {})
    assert known["m"].peer.sent == [1]


@given(
    st.lists(st.tuples(st.integers(1, 3), st.none() | st.integers(1, 9)), min_size=1, max_size=4),
    st.lists(st.none() | st.fixed_dictionaries({"walltime": st.integers(1, 9)}, optional={"cores": st.integers(1, 3)})),
    st.randoms(use_true_random=False),
)
def test_every_task_runs_once_if_some_manager_has_room_and_time(sizes, requests, random):
    hour = 3600
    known = {
        f"m{n}": manager(f"m{n}", None if left is None else hour * (left + 0.5), workers)
        for n, (workers, left) in enumerate(sizes)
    }
    needs = [need and {**need, "walltime": hour * need["walltime"]} for need in requests]
    waiting = pending(*needs)
    feasible = [
        tid
        for tid, need in enumerate(needs, 1)
        if not need or any(fits(one.total, need, need.get("cores", 1)) for one in known.values())
    ]
    done = []
    while True:
        waiting.give_out(known, {})
        running = [(one, tid) for one in known.values() for tid in one.tasks]
        if not running:
            break
        for one, tid in running:
            assert time_needed(needs[tid - 1] or {}) <= one.seconds + 60
            assert one.used <= UNITS * one.workers
        one, tid = random.choice(running)
        one.answered(tid)
        done.append(tid)
    assert sorted(done) == feasible
    assert len(waiting) == len(needs) - len(feasible)


def test_a_cancelled_task_that_is_handed_back_is_not_queued_again():
    one = manager("m", 100, workers=3)
    for tid in (1, 2, 3):
        one.take(Task(tid, 1, b""), UNITS)
    one.cancelled |= {2}
    assert [task.tid for task in one.given_back([1, 2, 99])] == [1]
    assert (list(one.tasks), one.cancelled, one.used) == ([3], set(), UNITS)


# -- requests that no block can meet


@pytest.mark.parametrize("key", ["walltime", "running_time_min"])
def test_a_task_that_asks_for_more_than_a_block_lasts_is_refused_at_once(start, key):
    executor = start(provider=SixtySeconds(init_blocks=0))
    for asked in ("00:02:00", 55.5):
        with pytest.raises(InvalidResourceSpecification) as caught:
            executor.submit(pow, {key: asked}, 2, 3)
        assert list(caught.value.invalid_keys) == [key]
        for words in (f"{key}={120 if asked == '00:02:00' else asked} s", "55 s", "60 s", "ask for less", "longer"):
            assert words in str(caught.value)
    assert executor.submit(pow, {key: 55}, 2, 3).result(PATIENCE) == 8


def test_through_the_kernel_an_app_that_asks_for_more_is_refused(tmp_path):
    executor = HighThroughputExecutor(max_workers=1, provider=SixtySeconds(init_blocks=0))
    with flowcore.load(Config(executors=[executor], run_dir=str(tmp_path), retries=2)):
        error = python_app(pow)(2, 3, resource_specification={"walltime": 3600}).exception(PATIENCE)
        assert isinstance(error, InvalidResourceSpecification)
        assert python_app(pow)(2, 3, resource_specification={"walltime": 30}).result(PATIENCE) == 8


def test_blocks_without_an_end_take_any_walltime(start):
    executor = start()
    assert executor.submit(pow, {"walltime": 1e6, "running_time_min": 1e7}, 2, 3).result(PATIENCE) == 8
    assert executor.connected_managers()[0]["seconds_left"] is None


def test_running_time_min_is_no_limit(start):
    executor = start(provider=lasting(3600))
    assert executor.submit(htex_tasks.nap, {"running_time_min": 0.1}, 0.5, "done").result(PATIENCE) == "done"


def test_a_request_that_three_blocks_had_no_time_for_fails(start):
    executor = start(provider=lasting(600, init_blocks=2, max_blocks=3))
    eventually(lambda: len(executor.connected_managers()) == 2)
    waiting = [executor.submit(pow, {"walltime": asked}, 2, 3) for asked in (599, 500)]
    assert waiting[1].result(PATIENCE) == 8
    assert not waiting[0].done()
    executor.scale_out(1)
    with pytest.raises(InvalidResourceSpecification, match="walltime=599 s is asked for"):
        waiting[0].result(PATIENCE)
    with pytest.raises(InvalidResourceSpecification, match="running_time_min=599 s"):
        executor.submit(pow, {"running_time_min": 599}, 2, 3)
    assert executor.submit(pow, {"walltime": 500}, 2, 3).result(PATIENCE) == 8


# -- what a manager finds


def test_a_manager_tells_how_long_tasks_can_run(start):
    executor = start(provider=lasting(1000))
    eventually(executor.connected_managers)
    (found,) = executor.connected_managers()
    assert 1000 - margin(1000) - PATIENCE < found["seconds_left"] <= 1000 - margin(1000)


@pytest.mark.parametrize("text", ["soon", "-5"])
def test_an_end_that_is_no_time_is_told_in_the_log_and_ignored(start, text):
    executor = start(provider=LocalProvider(worker_init=f"export FLOWCORE_BLOCK_END={text}"))
    assert executor.submit(pow, {"walltime": 1e6}, 2, 3).result(PATIENCE) == 8
    (log,) = Path(executor.logdir).glob("block-0/*/manager.log")
    assert "WARNING FLOWCORE_BLOCK_END cannot be understood" in log.read_text()


@pytest.mark.parametrize("left", [-100, 0, 3])
def test_a_block_that_is_over_before_it_begins_is_a_clear_error(start, left):
    executor = start(provider=lasting(left))
    try:
        error = executor.submit(pow, {}, 2, 3).exception(PATIENCE)
    except BadStateException as refused:
        error = refused
    assert isinstance(error, ExecutorError)
    for words in ("leaves no time for tasks", "FLOWCORE_BLOCK_END", "longer walltime", "MISSING"):
        assert words in str(error)


# -- the end of a block


FIRST_ENDS_WHEN = """
import os, time
from flowcore_htex import manager
keep_time = manager.Manager._keep_time
def keep(self):
    if self._settings["block_id"] == "0" and self._end_at is not None and os.path.exists({path!r}):
        self._end_at = time.monotonic()
    keep_time(self)
manager.Manager._keep_time = keep
manager.main()
"""
"""A manager for which the walltime of the first block is almost over when there is a file."""


def manager_with_time(executor):
    """Return a manager with some time for tasks; where a machine was too slow for a short block it has another."""

    def found():
        executor.submit(pow, {}, 2, 3).result(PATIENCE)  # brings the next block if one has ended
        return [one for one in executor.connected_managers() if one["active"] and one["seconds_left"]]

    return until(found)[0]


def assert_ended_well(executor, block):
    eventually(lambda: executor.poll()[block].terminal)
    eventually(lambda: executor.status()[block].message == ENDED)  # another thread hears of it
    status = executor.status()[block]
    assert (status.state, status.exit_code) == (JobState.COMPLETED, 0)
    assert not executor.bad_state_is_set


def test_a_manager_drains_before_the_end(start, gate, tmp_path, caplog):
    caplog.set_level(logging.INFO, "flowcore")
    over, script = tmp_path / "over", tmp_path / "manager.py"
    script.write_text(FIRST_ENDS_WHEN.format(path=str(over)))
    executor = start(
        provider=lasting(3600, max_blocks=2),
        launch_cmd=f"{{python}} {script} --config {{config}} --block-id {{block_id}} {{debug}}",
        heartbeat_period=0.5,  # so often it looks for the file
        prefetch_capacity=3,
        block_error_handler=False,
        worker_debug=True,
    )
    held = [executor.submit(tasks.hold, {}, gate.port) for _ in range(3)]
    gate.wait_for(1)
    eventually(lambda: [one["tasks"] for one in executor.connected_managers()] == [3])
    over.touch()
    gate.wait_for(1)  # one that was handed back, in the next block, while the first still runs
    assert not any(future.done() for future in held)

    def managers():
        known = sorted(executor.connected_managers(), key=lambda one: one["block_id"])
        return [(one["block_id"], one["draining"], one["drain_reason"], one["tasks"]) for one in known]

    eventually(lambda: managers() == [("0", True, ALMOST_OVER, 1), ("1", False, None, 2)])
    assert executor.tally().draining == 1
    later = executor.submit(os.getenv, {}, BLOCK)
    gate.open()
    assert held[0].result(PATIENCE)
    assert held[1].result(PATIENCE)
    assert later.result(PATIENCE) == "1"
    assert_ended_well(executor, "0")
    about = f"executor {executor.label}: block 0"
    for line in (f"takes no more tasks: {ALMOST_OVER}", f"is COMPLETED ({ENDED}, exit code 0)"):
        # another thread writes it, once the state is known
        eventually(lambda line=line: f"{about} {line}" in [record.getMessage() for record in caplog.records])
    (log,) = Path(executor.logdir).glob("block-0/*/manager.log")
    assert "handing back 2 tasks" in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False], ids=["without a kernel", "with a kernel"])
def test_a_task_that_has_no_time_left_here_runs_in_the_next_block(start, tmp_path, alone):
    flag = tmp_path / "flag"
    options = {"provider": short_at_first(flag), "block_error_handler": False}
    if alone:
        executor = start(**options)
    else:
        executor = HighThroughputExecutor(max_workers=1, **options)
        flowcore.load(Config(executors=[executor], run_dir=str(tmp_path / "runs"), strategy_period=0.5, lost_retries=0))
    try:
        here = manager_with_time(executor)
        flag.touch()
        late = executor.submit(os.getenv, {"running_time_min": here["seconds_left"] + 1}, BLOCK)
        soon = executor.submit(os.getenv, {"running_time_min": 0.01}, BLOCK)
        assert soon.result(PATIENCE)
        assert late.result(PATIENCE) not in (here["block_id"], None)
        assert_ended_well(executor, here["block_id"])
    finally:
        if not alone:
            flowcore.clear(wait=False)


class Silent(LocalProvider):
    """Does not tell when a job has ended, and is rarely asked."""

    @property
    def status_polling_interval(self):
        return 600

    def watch(self, changed):
        pass


@pytest.mark.fault
@pytest.mark.parametrize("alone", [True, False], ids=["without a kernel", "with a kernel"])
def test_a_block_without_managers_is_asked_about_until_its_end_is_known(start, tmp_path, alone):
    if alone:
        executor = start(provider=Silent())
    else:
        executor = HighThroughputExecutor(max_workers=1, provider=Silent())
        flowcore.load(Config(executors=[executor], run_dir=str(tmp_path / "runs"), strategy_period=600))
    try:
        assert executor.submit(os.getenv, {}, BLOCK).result(PATIENCE) == "0"
        Family().kill("manager")
        eventually(lambda: not executor.connected_managers())
        assert executor.submit(os.getenv, {}, BLOCK).result(PATIENCE) == "1"
    finally:
        if not alone:
            flowcore.clear(wait=False)


@pytest.mark.fault
def test_a_manager_that_drains_goes_on_draining_when_the_interchange_dies(start, gate):
    patient = "import flowcore_htex.interchange as i; i._RECOVERY = 60; i.main()"
    executor = start(drain_period=0.5, interchange_launch_cmd=[sys.executable, "-c", patient])
    held = executor.submit(tasks.hold, {}, gate.port)
    gate.wait_for(1)
    draining = until(lambda: [one for one in executor.connected_managers() if one["draining"] and one["tasks"]])
    block = draining[0]["block_id"]
    Family().kill("interchange")
    eventually(lambda: [one["draining"] for one in executor.connected_managers()] == [True])
    gate.open()
    assert held.result(PATIENCE)
    assert executor.submit(os.getenv, {}, BLOCK).result(PATIENCE) != block
    assert executor.status()[block].message == "ended: its drain_period is over"


@pytest.mark.parametrize("event", ["registered", "refused"])
def test_what_a_manager_said_counts_although_it_is_heard_after_the_end_of_its_block(start, monkeypatch, event):
    monkeypatch.setattr("flowcore_htex.client._ANSWER", PATIENCE)
    code = "import flowcore_htex.manager as m; m.main()"
    if event == "refused":
        code = f"import flowcore_htex.version as v; v.RELEASE = '9.9.9'; {code}"
    command = f'{{python}} -c "{code}" --config {{config}} --block-id {{block_id}}'
    executor = start(launch_cmd=command, drain_period=0.01, provider=LocalProvider(init_blocks=0))
    hear = executor._client._changed

    def hear_late(record):
        if record["event"] == event:
            until(lambda: all(job.status.terminal for job in executor.provider._jobs.values()))
            until(lambda: executor.status()["0"].terminal, 0.5)
        hear(record)

    monkeypatch.setattr(executor._client, "_changed", hear_late)
    executor.scale_out(1)
    eventually(lambda: executor.status()["0"].terminal)
    if event == "registered":
        assert executor.status()["0"].state is JobState.COMPLETED
        assert not executor.bad_state_is_set
    else:
        eventually(lambda: executor.bad_state_is_set)
        assert isinstance(executor.executor_exception, VersionMismatch)


# -- managers of nobody, and too many of them


def knock(path, **changes):
    """Come as a manager, and return the connection."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(str(path))
    sock.sendall(b"".join(_parts(wire.REGISTER, wire.pack_json(registration(**changes)))))
    return sock


def _parts(kind, head):
    return wire.prefix(kind, len(head), 0), head


def test_a_stranger_who_is_refused_does_no_harm_to_an_executor_without_blocks(start):
    executor = start(provider=LocalProvider(init_blocks=0))
    refused = knock(executor._settings["socket"], protocol=99)
    with refused:
        assert wire.parse_prefix(refused.recv(wire.PREFIX_SIZE))[0] == wire.REFUSED
    executor.connected_managers()  # has gone to the interchange and back, behind what it told of the stranger
    assert not executor.bad_state_is_set
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
one = executor(heartbeat_threshold=600)
flowcore.load(Config(executors=[one]))
nap(0).result()
say(one._settings["socket"])
say(one.logdir)
sys.stdin.readline()
time.sleep(600)
"""


@pytest.fixture
def limited(tmp_path):
    scripts = []

    def start(soft, hard):
        scripts.append(Script(tmp_path, LIMITED.format(soft=soft, hard=hard)))
        return scripts[-1]

    yield start
    for script in scripts:
        assert script.close() == {}


def test_the_interchange_opens_as_many_files_as_it_may(limited):
    run = limited(100, 700)
    assert run.line()
    limits = resource.prlimit(run.family.one("interchange"), resource.RLIMIT_NOFILE)
    assert limits == (700, 700)


def test_connections_that_come_close_to_the_limit_are_told_of_in_the_log(limited):
    run = limited(64, 64)
    path, logdir = run.line(), run.line()
    log = Path(logdir, "interchange.log")
    come = []
    try:
        come += [knock(path, manager=f"stranger-{number}") for number in range(30)]
        assert until(lambda: log.read_text().count("manager stranger-") == 30)
        assert "nearly all" not in log.read_text()
        come += [knock(path, manager=f"stranger-{number}") for number in range(30, 52)]
        assert until(lambda: "nearly all of 64 open files are in use" in log.read_text())
        assert log.read_text().count("nearly all") == 1
    finally:
        for sock in come:
            sock.close()
