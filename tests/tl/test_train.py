from __future__ import annotations

import gc
import os
import signal
import time
import warnings
import weakref

import numpy as np
import pandas as pd
import pytest
import torch

from scdeconv import pp, tl
from scdeconv.models import SimpleDNN, _simplednn
from scdeconv.nn._training import Plan

QUICK = {"simplednn": {"max_epochs": 2, "hidden": (4,), "n_members": 2}, "scaden": {"max_steps": 2}}
NAMES = list(tl.methods().index)


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_mdata_is_left_bit_for_bit_unchanged_uns_included(pairs, name, prepared, unchanged):
    if prepared:
        pp.augment(pairs, n_aug=3)
        pp.select_genes(pairs, 50)
        pp.simulate(pairs, 30)
    with unchanged(pairs):
        tl.train(pairs, name, **QUICK.get(name, {}))


def test_simplednn_is_the_default_with_pairs_and_nnls_without(pairs, capsys):
    assert tl.train(pairs, **QUICK["simplednn"]).method == "simplednn"
    pairs["bulk"].obsm["measured_fractions"].iloc[2:] = np.nan
    assert tl.train(pairs).method == "nnls"
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("simplednn: 10 donors, 200 genes, 2 members, best epoch ")
    assert lines[1] == "nnls: 4 profiles, 200 genes"


def test_genes_are_selected_unless_they_are_already(pairs):
    assert len(tl.train(pairs, "nnls").genes_) == 200
    pp.select_genes(pairs, 33)
    assert len(tl.train(pairs, "nnls").genes_) == 33


def test_arguments_reach_the_constructor_and_train(pairs):
    model = tl.train(pairs, "simplednn", hidden=(6, 5), dropout=0.0, n_members=3, max_epochs=1, refit=False, seed=7)
    assert model.parameters_["hidden"] == [6, 5]
    assert model.parameters_["n_members"] == 3
    assert len(model.history["train_loss"]) == 1
    assert model.seed_ == 7


@pytest.mark.parametrize(("name", "known"), [("simplednn", "hidden"), ("scaden", "max_steps"), ("nnls", r"\[\]")])
def test_unknown_argument_is_refused_with_the_known_names_before_any_computing(pairs, name, known, monkeypatch):
    monkeypatch.setattr(pp, "select_genes", lambda *args, **kwargs: pytest.fail("computed"))
    with pytest.raises(TypeError, match=rf"Expected arguments of \w+: .*{known}.*, found \['hiden'\]"):
        tl.train(pairs, name, hiden=(3,))


def test_unknown_method_is_refused_with_the_known_names(pairs):
    with pytest.raises(ValueError, match=r"Expected a method out of \['mean_composition', .*found 'simple_dnn'"):
        tl.train(pairs, "simple_dnn")


@pytest.mark.parametrize("arguments", [{"method": "simplednn"}, {"method": "scaden", "train_on": "pairs"}])
def test_too_few_pairs_are_refused_with_the_way_out(pairs, arguments):
    pairs["bulk"].obsm["measured_fractions"].iloc[2:] = np.nan
    n_pairs = len(pp.paired_donors(pairs))
    assert n_pairs < 3
    with pytest.raises(ValueError, match=rf"at least 3 paired donors .*found {n_pairs}\. .*method='nnls'"):
        tl.train(pairs, **arguments)


def test_three_pairs_are_enough(pairs):
    measured = pairs["bulk"].obsm["measured_fractions"]
    measured.loc[measured.dropna().index[3:]] = np.nan
    assert tl.train(pairs, **QUICK["simplednn"]).method == "simplednn"


def test_training_says_one_line_and_warns_of_nothing(pairs, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # mudata announces its next defaults where it copies
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"mudata")
        tl.train(pairs, **QUICK["simplednn"])
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 1
    assert err == ""


@pytest.mark.parametrize("name", ["simplednn", "scaden"])
def test_history_is_a_dict_of_one_column_frames_indexed_by_epoch(pairs, name):
    history = tl.train(pairs, name, **QUICK[name]).history
    assert set(history) <= {"train_loss", "validation_loss"}
    for key, frame in history.items():
        assert isinstance(frame, pd.DataFrame)
        assert list(frame.columns) == [key]
        assert frame.index.name == "epoch"


@pytest.mark.parametrize("name", ["simplednn", "scaden"])
def test_training_data_are_freed_with_the_model(pairs, name):
    """scvi-tools would keep every object that was ever registered."""
    model = tl.train(pairs, name, **QUICK[name])
    registered = weakref.ref(model.adata)
    del model
    gc.collect()
    assert registered() is None


def test_trained_network_can_be_trained_again(pairs):
    model = tl.train(pairs, **QUICK["simplednn"])
    model.train(max_epochs=1)
    np.testing.assert_allclose(model.predict(pairs["bulk"]).sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("simplednn", {"max_epochs": 10**6, "patience": 10**6, "hidden": (4,)}),
        ("scaden", {"max_steps": 10**6}),
    ],
)
def test_ctrl_c_ends_training_quickly_and_keeps_a_usable_model(
    pairs, name, arguments, interrupt_after, monkeypatch, tmp_path
):
    handler = signal.getsignal(signal.SIGINT)
    on_fit_start = Plan.on_fit_start
    monkeypatch.setattr(Plan, "on_fit_start", lambda self: (interrupt_after(0.5), on_fit_start(self))[1])
    pp.simulate(pairs, 40)
    start = time.perf_counter()
    model = tl.train(pairs, name, **arguments)
    assert 0.5 < time.perf_counter() - start < 10
    assert model.interrupted_
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(model.history["train_loss"]) > 0
    fractions = model.predict(pairs["bulk"])
    np.testing.assert_allclose(fractions.sum(axis=1), 1, rtol=1e-6)
    model.save(tmp_path / "model")
    assert type(model).load(tmp_path / "model").predict(pairs["bulk"]).equals(fractions)


def test_ctrl_c_keeps_the_best_weights_so_far(pairs, monkeypatch):
    fit, calls = _simplednn.fit, []

    def interrupt_late(module, data, loss, **arguments):
        def counting(logits, fractions):
            calls.append(1)
            if len(calls) == 400:
                os.kill(os.getpid(), signal.SIGINT)
            return loss(logits, fractions)

        plan = fit(module, data, counting, **arguments)
        calls.append((plan, data, loss))
        return plan

    monkeypatch.setattr(_simplednn, "fit", interrupt_late)
    model = tl.train(pairs, linear_start=False, learning_rate=0.01, max_epochs=10**6, patience=10**6, hidden=(4,))
    plan, data, loss = calls[-1]
    with torch.no_grad():
        losses = loss(model.module(data.x), data.targets.mean(dim=1))
    kept = float((losses * data.validation).sum() / data.validation.sum())
    history = model.history["validation_loss"]["validation_loss"]
    assert model.interrupted_
    assert 0 < model.best_epoch_ < history.index[-1]
    assert kept == pytest.approx(history.min(), rel=1e-6)


def test_epoch_zero_counts_as_a_result(pairs):
    model = tl.train(pairs, "simplednn", max_epochs=0)
    assert isinstance(model, SimpleDNN)
    assert list(model.history) == ["validation_loss"]
    assert list(model.history["validation_loss"].index) == [0]
