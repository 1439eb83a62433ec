"""SIGINT and SIGTERM in the commands: exit codes, messages that are true, and what is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from scdeconv import cli, tl
from scdeconv._data.files import publish
from scdeconv.models import load_model

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
each_signal = pytest.mark.parametrize("number", CODES)
ENDLESS = ("--method", "simplednn", "--set", "max_epochs=1000000", "--set", "patience=1000000", "--set", "hidden=[4]")


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def started(*arguments):
    command = [sys.executable, "-m", "scdeconv.cli", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


@pytest.fixture
def at(monkeypatch):
    """Send a signal when a function is called, before or after its work."""

    def patch(owner, name, number, *, after=False):
        whole = getattr(owner, name)

        def function(*arguments, **options):
            if not after:
                signal.raise_signal(number)
            result = whole(*arguments, **options)
            if after:
                signal.raise_signal(number)
            return result

        monkeypatch.setattr(owner, name, function)

    return patch


@each_signal
def test_signal_while_computing_writes_nothing(laboratory, tmp_path, capsys, at, number):
    at(tl, "predict", number)
    assert run("predict", laboratory / "model", laboratory / "counts.tsv", "-o", tmp_path / "x.tsv") == CODES[number]
    assert capsys.readouterr().err.endswith("scdeconv predict: interrupted, nothing was written\n")
    assert not list(tmp_path.iterdir())


@each_signal
@pytest.mark.parametrize("after", [False, True])
def test_signal_while_publishing_is_too_late(laboratory, tmp_path, at, number, after):
    at(publish, "_exchange", number, after=after)
    assert run("predict", laboratory / "model", laboratory / "counts.tsv", "-o", tmp_path / "x.tsv") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tsv", "x_quality.tsv"]


@each_signal
def test_swallowed_signal_gives_its_exit_code(laboratory, tmp_path, capsys, monkeypatch, number):
    table = tl.benchmark

    def benchmark(mdata, **arguments):
        found = table(mdata, **arguments)
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            return found

    monkeypatch.setattr(tl, "benchmark", benchmark)
    arguments = ("benchmark", laboratory / "pairs.h5mu", "--method", "nnls", "--set", "cv=2", "--force", "-o")
    assert run(*arguments, tmp_path / "b.tsv") == CODES[number]
    assert "the results so far were written" in capsys.readouterr().err
    # a table that is there may be complete
    (tmp_path / "b.tsv").write_text("complete")
    assert run(*arguments, tmp_path / "b.tsv") == CODES[number]
    assert (tmp_path / "b.tsv").read_text() == "complete"
    assert (tmp_path / "b_interrupted.tsv").exists()


@each_signal
def test_signal_in_training_keeps_the_network(laboratory, tmp_path, number):
    process = started("train", laboratory / "pairs.h5mu", *ENDLESS, "-o", tmp_path / "model")
    while "training" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(2)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == CODES[number], said
    assert "interrupted, the results so far were written" in said
    assert load_model(tmp_path / "model").interrupted_


def test_interrupted_training_keeps_a_finished_model(laboratory, tmp_path, monkeypatch):
    train = tl.train

    def interrupted(mdata, method, **arguments):
        model = train(mdata, "calibrated_nnls")
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            return model

    folder = tmp_path / "model"
    load_model(laboratory / "model").save(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(tl, "train", interrupted)
    assert run("train", laboratory / "pairs.h5mu", "--force", "-o", folder) == 130
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert load_model(tmp_path / "model_interrupted").is_trained_


@each_signal
def test_signal_during_imports_leaves_no_trace(laboratory, tmp_path, number):
    process = started("train", laboratory / "pairs.h5mu", *ENDLESS, "-o", tmp_path / "model")
    # the line before the imports of the method
    process.stderr.readline()
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == CODES[number], said
    assert "Traceback" not in said


def test_ignored_signal_stays_ignored(laboratory, tmp_path):
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run("methods") == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)


def test_handlers_of_the_caller_are_restored(capsys):
    before = [signal.getsignal(number) for number in CODES]
    run("methods")
    assert [signal.getsignal(number) for number in CODES] == before


def test_sigterm_in_the_library_ends_the_script(laboratory):
    script = (
        "import os, signal, sys, threading\nfrom pathlib import Path\nfrom scdeconv import tl\n"
        "from scdeconv._data.modalities import read_mudata\nfrom scdeconv._nn import Plan\n"
        "step = Plan.training_step\n"
        "Plan.training_step = lambda *a: (os.kill(os.getpid(), signal.SIGTERM), step(*a))[1]\n"
        "tl.train(read_mudata(Path(sys.argv[1])), 'simplednn', max_epochs=1000, patience=1000)\nprint('went on')\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, laboratory / "pairs.h5mu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert "went on" not in done.stdout
