"""The folder of a run's keys: nobody else's, and nobody else's to look into."""

from __future__ import annotations

import os

import pytest

from flowcore.executors.errors import ExecutorError
from flowcore_htex.curve import prepare_folder
from htex_rig import executors


@pytest.mark.skipif(os.getuid() != 0, reason="giving a folder away needs root")
def test_a_folder_of_somebody_else_is_refused_though_it_is_private(tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    with executors(tmp_path) as start, pytest.raises(ExecutorError, match=r"belongs to user 65534(.|\n)*cert_dir="):
        start(cert_dir=folder)
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_a_link_is_judged_by_what_it_leads_to(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    with pytest.raises(PermissionError, match="chmod 700"):
        prepare_folder(tmp_path / "link")


def test_a_new_folder_is_private_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        folder = prepare_folder(tmp_path / "a" / "keys")
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
