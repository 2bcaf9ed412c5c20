"""A million tasks at once: each costs a bounded number of bytes here and none elsewhere, and the run ends soon."""

from __future__ import annotations

import os
import time

import pytest

import htex_tasks as tasks
from flowcore.errors import ShutdownError
from flowcore.testing.gate import Gate
from flowcore.testing.tasks import hold
from htex_rig import Family, executors, memory
from waiting import PATIENCE

COUNT = 1_000_000
BYTES_EACH = 2200

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),  # two minutes where other tests run on the same cores, and it is the longest of them
    pytest.mark.skipif(
        os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 3 * COUNT * BYTES_EACH,
        reason="a million tasks need 2 GB of memory here, and others may want some too",
    ),
]


def test_a_million_tasks_are_accepted_at_a_bounded_cost_and_let_go_again(tmp_path):
    with executors(tmp_path) as start:
        executor = start()
        family = Family()
        executor.submit(tasks.nap, {}, 0).result(PATIENCE)
        before = memory(family.root)
        watched = {role: family.one(role) for role in ("interchange", "manager")}
        with Gate(PATIENCE) as gate:
            held = [executor.submit(hold, {}, gate.port) for _ in range(2)]
            gate.wait_for(2)
            futures = [executor.submit(tasks.nap, {}, 0.01, number) for number in range(COUNT)]
            used = (memory(family.root) - before) * 1e6 / COUNT
            assert used < BYTES_EACH  # the futures that the test keeps included
            assert executor.outstanding() == len(held) + COUNT
        assert [future.result(PATIENCE) for future in futures[:100]] == list(range(100))
        assert memory(watched["interchange"]) < 150
        assert memory(watched["manager"]) < 100
        began = time.thread_time()
        executor.shutdown()
        assert time.thread_time() - began < 60
        assert all(future.done() for future in futures)
        assert isinstance(futures[-1].exception(), ShutdownError)
        assert executor.outstanding() == 0
