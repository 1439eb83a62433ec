"""The file of a search: whole after a kill, one user at a time."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys

import pytest

from scdeconv import datasets, pp, tl
from scdeconv._data.files import published_paths
from scdeconv.tl._tuning.study import sole_user


@pytest.fixture(scope="module")
def mdata():
    return pp.pair(*datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100)))


def tune(mdata, study):
    return tl.tune(mdata, "ridge", {"n_genes": [50, 100]}, n_trials=1, cv=2, study=study)


def test_killed_start_leaves_no_study_without_tables(mdata, tmp_path):
    study = tmp_path / "study.db"
    # the writes of SQLite are no events of Python: kill in each call of its connection
    for step in (1, 20, 60):
        pid = os.fork()
        if pid == 0:
            count = 0

            def before(event, _, step=step):
                nonlocal count
                count += event in ("sqlite3.connect", "os.rename", "os.mkdir")
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)

            try:
                sys.addaudithook(before)
                tune(mdata, study)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert len(tune(mdata, study).trials) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["study.db"]
        study.unlink()


def test_second_search_in_a_file_is_refused(mdata, tmp_path):
    with sole_user(tmp_path / "study.db"), pytest.raises(BlockingIOError, match="found one in use"):
        tune(mdata, tmp_path / "study.db")
    assert not list(tmp_path.iterdir())


def test_written_study_is_told(mdata, tmp_path):
    with published_paths() as paths:
        tune(mdata, tmp_path / "study.db")
    assert set(paths) == {tmp_path / "study.db"}
    with sqlite3.connect(tmp_path / "study.db") as connection:
        assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
