"""Blocks of an executor without a kernel: another one takes the place of one that ended, refused at first or not."""

from __future__ import annotations

import pytest

import htex_tasks as tasks
from flowcore.providers import LocalProvider
from flowcore.providers.errors import SubmitException
from htex_rig import Family, executors, outcomes

pytestmark = pytest.mark.fault


class RefusesTheSecond(LocalProvider):
    """Refuses one submission, the second."""

    times = 0

    def submit(self, command, tasks_per_node, job_name="flowcore"):
        self.times += 1
        if self.times == 2:
            raise SubmitException(job_name, "not now")
        return super().submit(command, tasks_per_node, job_name)


def test_a_replacement_that_is_refused_is_tried_again(tmp_path):
    with executors(tmp_path) as start:
        provider = RefusesTheSecond()
        executor = start(max_workers=1, provider=provider, block_error_handler=False)
        assert outcomes([executor.submit(pow, {}, 2, 5)]) == [32]
        Family().kill("manager")
        assert outcomes([executor.submit(tasks.nap, {}, 0, "done") for _ in range(3)])[-1] == "done"
        assert provider.times == 3
