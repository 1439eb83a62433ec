"""Several processes save and load one model: readers see one whole model."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from scdeconv import pp, tl
from scdeconv.models import NNLS, load_model


@pytest.fixture(scope="module")
def pair_of_models(cohort):
    pairs = pp.pair(*cohort)
    return [tl.train(pairs, "nnls"), tl.train(pairs, "ridge")]


def child(function):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            function()
            code = 0
        finally:
            os._exit(code)
    return pid


def test_readers_see_one_whole_model(pair_of_models, tmp_path):
    folder = tmp_path / "model"
    pair_of_models[0].save(folder)

    def save(model):
        for _ in range(15):
            model.save(folder, overwrite=True)

    pids = [child(lambda model=model: save(model)) for model in pair_of_models]
    names = set()
    while pids:
        names.add(load_model(folder).method)
        pids = [pid for pid in pids if os.waitpid(pid, os.WNOHANG)[0] == 0]
    assert names <= {"nnls", "ridge"}
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.npz"]


def test_killed_save_leaves_one_whole_model(pair_of_models, tmp_path):
    folder, methods = tmp_path / "model", set()
    for step in range(1, 40):
        pair_of_models[0].save(folder, overwrite=True)
        count = 0

        def before(event, _, step=step):
            nonlocal count
            count += event in ("os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir")
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

        pid = child(lambda before=before: (sys.addaudithook(before), pair_of_models[1].save(folder, overwrite=True)))
        status = os.waitpid(pid, 0)[1]
        methods.add(load_model(folder).method)
        if status == 0:
            break
    assert methods == {"nnls", "ridge"}


def test_weights_of_another_training_are_refused(pair_of_models, tmp_path):
    for number, model in enumerate(pair_of_models):
        model.save(tmp_path / str(number))
    (tmp_path / "0" / "weights.npz").write_bytes((tmp_path / "1" / "weights.npz").read_bytes())
    with pytest.raises(ValueError, match=f"matches model.json in {tmp_path / '0'}"):
        NNLS.load(tmp_path / "0")


def test_home_is_expanded_in_save_and_load(pair_of_models, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    pair_of_models[0].save("~/model")
    assert load_model("~/model").method == "nnls"
    assert (tmp_path / "model" / "model.json").exists()
