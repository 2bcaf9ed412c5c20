"""Cancellation: at once for whoever asks, and the task is stopped wherever it is."""

from __future__ import annotations

import os
import time
from concurrent.futures import CancelledError, wait
from pathlib import Path

import pytest

from flowcore.testing import tasks
from flowcore.testing.gate import Gate
from waiting import PATIENCE, until


def touch_and_nap(path, seconds):
    Path(path).write_text(str(os.getpid()))
    time.sleep(seconds)


def test_a_running_task_is_stopped_and_its_worker_replaced(rig, tmp_path):
    file = tmp_path / "started"
    future = rig.submit(touch_and_nap, str(file), 600)
    assert until(lambda: file.exists() and file.read_text() != "")
    pid = int(file.read_text())
    assert future.cancel()
    assert future.cancelled()
    with pytest.raises(CancelledError):
        future.result()
    assert until(lambda: pid not in rig.processes())
    assert rig.executor.outstanding() == 0
    assert until(lambda: rig.held() == 0)
    pids = {rig.run(os.getpid) for _ in range(20)}
    assert pid not in pids


def test_waiting_tasks_are_dropped(rig, tmp_path):
    with Gate(PATIENCE) as gate:
        running = [rig.submit(tasks.hold, gate.port) for _ in range(2)]
        gate.wait_for(2)
        waiting = [rig.submit(touch_and_nap, str(tmp_path / str(n)), 0) for n in range(50)]
        assert all(future.cancel() for future in waiting)
        assert until(lambda: rig.held() == 2)
    assert not wait(running, PATIENCE).not_done
    assert rig.run(pow, 2, 2) == 4
    assert not list(tmp_path.iterdir())
    assert until(lambda: rig.held() == 0)


def test_short_tasks_that_were_sent_ahead_can_be_cancelled(rig):
    def quick(seconds):
        time.sleep(seconds)
        return seconds

    assert not wait([rig.submit(quick, 0) for _ in range(200)], PATIENCE).not_done
    futures = [rig.submit(quick, 0.001 * (n % 2)) for n in range(400)]
    cancelled = [future for place, future in enumerate(futures) if place % 3 == 0 and future.cancel()]
    rest = [future for future in futures if future not in cancelled]
    assert not wait(rest, PATIENCE).not_done
    assert {future.exception() for future in rest} == {None}
    assert until(lambda: rig.held() == 0)


def test_a_task_that_a_manager_holds_in_advance_never_runs(start, tmp_path):
    rig = start(max_workers=1, prefetch_capacity=10)
    with Gate(PATIENCE) as gate:
        running = rig.submit(tasks.hold, gate.port)
        waiting = [rig.submit(touch_and_nap, str(tmp_path / str(n)), 0) for n in range(5)]
        assert until(lambda: rig.held() == 6)
        assert all(future.cancel() for future in waiting)
        assert until(lambda: rig.held() == 1)
        gate.wait_for(1)
    running.result(PATIENCE)
    assert until(lambda: rig.held() == 0)
    assert not list(tmp_path.glob("[0-9]"))


def test_cancelling_a_finished_task_changes_nothing(rig):
    future = rig.submit(pow, 2, 3)
    assert future.result(PATIENCE) == 8
    assert not future.cancel()
    assert future.result() == 8


def test_cancelling_twice_is_harmless(rig):
    future = rig.submit(time.sleep, 600)
    assert future.cancel()
    assert future.cancel()


def test_callbacks_learn_of_a_cancellation(rig):
    seen = []
    future = rig.submit(time.sleep, 600)
    future.add_done_callback(lambda done: seen.append(done.cancelled()))
    future.cancel()
    assert seen == [True]
