"""GridEngineProvider where the real one cannot be made to do it: commands that answer as it was seen to, by chance."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.schedulers import put_command
from flowcore.jobs.states import JobState
from flowcore.providers import GridEngineProvider

PART = """\
==============================================================
qname        all.q
hostname     n2
jobnumber    7
granted_pe   mpi
failed       0
exit_status  0
"""
"""What the accounts say of a part of a job, on another node, that ended well; the script's own part is told later."""


@pytest.mark.parametrize(("cancelled", "state"), [(True, JobState.CANCELLED), (False, JobState.COMPLETED)])
def test_a_deleted_job_is_cancelled_though_a_part_of_it_ended_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cancelled: bool, state: JobState
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    (tmp_path / "accounts").write_text(PART)
    for name, script in (
        ("qsub", "echo 7"),
        ("qstat", "echo '<job_info/>'"),
        ("qdel", "exit 0"),
        ("qacct", f"cat {tmp_path}/accounts"),
    ):
        put_command(folder, name, script)
    provider = GridEngineProvider(script_dir=str(tmp_path / "scripts"))
    job_id = provider.submit("sleep 600", 1, "job")
    if cancelled:
        assert provider.cancel([job_id]) == [True]
    (status,) = provider.status([job_id])
    assert status.state is state
