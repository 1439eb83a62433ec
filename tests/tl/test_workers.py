from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from joblib import Parallel, delayed

from scdeconv import tl
from scdeconv._data.modalities import read_mudata, write_mudata
from scdeconv.tl import _workers
from scdeconv.tl._folds import pack, unpack

SCRIPT = """
import importlib.util, os, sys, time
from joblib import Parallel, delayed

def work(caller, path):
    spec = importlib.util.spec_from_file_location("workers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.end_with(caller)
    os.write(1, f"{os.getpid()}\\n".encode())
    time.sleep(600)

Parallel(n_jobs=2)(delayed(work)(os.getpid(), sys.argv[1]) for _ in range(2))
"""


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the processes from /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_workers_end_with_a_killed_parent(number, tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, _workers.__file__],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path), "JOBLIB_TEMP_FOLDER": str(tmp_path)},
    )
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    assert all(map(is_alive, pids))
    parent.send_signal(number)
    parent.wait()
    try:
        end = time.monotonic() + 30
        while (any(map(is_alive, pids)) or any(tmp_path.iterdir())) and time.monotonic() < end:
            time.sleep(0.1)
        assert not any(map(is_alive, pids))
        assert not list(tmp_path.iterdir())
    finally:
        parent.stdout.close()
        for pid in filter(is_alive, pids):
            os.kill(pid, signal.SIGKILL)


def test_calling_process_is_not_watched():
    _workers.end_with(os.getpid())
    # a worker of another program, such as Dask
    _workers.end_with(0)
    assert os.getpid() not in _workers._watched


@pytest.mark.parametrize("kind", ["h5mu", "zarr", "backed"])
def test_data_of_a_file_reach_other_processes(kind, pairs, tmp_path):
    path = tmp_path / f"pairs.{'zarr' if kind == 'zarr' else 'h5mu'}"
    if kind == "zarr":
        with mudata.set_options(pull_on_update=False):
            pairs.write_zarr(path)
    else:
        write_mudata(pairs, path)
    with mudata.set_options(pull_on_update=False):
        mdata = mudata.read_h5mu(path, backed="r") if kind == "backed" else read_mudata(path)
    sent = unpack(pickle.loads(pickle.dumps(pack(mdata))))
    assert set(sent.mod) == set(pairs.mod)
    expected = tl.benchmark(pairs, ["nnls"], cv=2).drop(columns="seconds")
    pd.testing.assert_frame_equal(tl.benchmark(sent, ["nnls"], cv=2).drop(columns="seconds"), expected)


def test_lazy_data_reach_other_processes(pairs):
    da = pytest.importorskip("dask.array", reason="Dask is optional")
    lazy = pairs.copy()
    lazy["sc"].X = da.from_array(pairs["sc"].X.toarray(), chunks=(100, -1))
    sent = unpack(pickle.loads(pickle.dumps(pack(lazy))))
    np.testing.assert_array_equal(sent["sc"].X, pairs["sc"].X.toarray())


def test_packing_copies_no_matrix(pairs):
    modalities, _ = pack(pairs)
    assert np.shares_memory(modalities["sc"].X.data, pairs["sc"].X.data)


def predict(model, bulk):
    return model.predict(bulk).to_numpy()


@pytest.mark.parametrize("backend", ["threading", "multiprocessing"])
@pytest.mark.parametrize("method", ["simplednn", "calibrated_map"])
@pytest.mark.filterwarnings("ignore")
def test_model_predicts_the_same_in_workers(method, backend, pairs, cohort):
    short = {"max_epochs": 2} if method == "simplednn" else {}
    model = tl.train(pairs, method, **short)
    previous = torch.get_num_threads()
    # a process that used several threads before it forks
    torch.set_num_threads(2)
    try:
        alone = model.predict(cohort[1]).to_numpy()
        found = Parallel(n_jobs=2, backend=backend, timeout=60)(delayed(predict)(model, cohort[1]) for _ in range(4))
    finally:
        torch.set_num_threads(previous)
    assert all(np.array_equal(result, alone) for result in found)
