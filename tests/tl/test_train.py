from __future__ import annotations

import gc
import os
import re
import signal
import warnings
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from scdeconv import datasets, pp, tl
from scdeconv._nn import Plan
from scdeconv.models import _members, get_record
from scdeconv.models.paired import _starts
from scdeconv.models.paired import calibrated_map as _calibrated_map
from scdeconv.models.simulated import simulation_ridge as _simulation_ridge
from scdeconv.tl import _train

QUICK = {
    "residual_dnn": {"max_epochs": 2, "hidden": (4,), "n_members": 2, "simulate": 20},
    "simulation_ridge": {"n_simulated": 50},
    "scaden": {"max_steps": 2},
}
NAMES = list(tl.methods().index)


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_training_does_not_change_mdata(pairs, name, prepared, unchanged):
    if prepared:
        pp.augment(pairs, n_aug=3)
        pp.select_genes(pairs, 50)
        pp.simulate(pairs, 30)
    with unchanged(pairs):
        tl.train(pairs, name, **QUICK.get(name, {}))


@pytest.mark.parametrize(
    ("n_pairs", "with_reference", "without"),
    [(4, "ensemble", "ensemble"), (3, "calibrated_map", "ridge"), (2, "robust_nnls", "mean_composition")],
)
def test_default_depends_on_pairs_and_reference(pairs, n_pairs, with_reference, without):
    measured = pairs["bulk"].obsm["measured_fractions"]
    paired = pp.paired_donors(pairs)[n_pairs:]
    measured.loc[pairs["bulk"].obs["donor"].isin(paired).to_numpy()] = np.nan
    assert len(pp.paired_donors(pairs)) == n_pairs
    assert tl.default_method(pairs) == with_reference
    assert tl.train(pairs).method == with_reference
    assert tl.default_method(pp.pair(bulk=pairs["bulk"])) == without


def test_default_prints_weights_in_one_line(pairs, capsys):
    tl.train(pairs)
    (line,) = capsys.readouterr().out.splitlines()
    assert re.match(r"ensemble: 10 donors, 240 genes; weights calibrated_map 0\.\d+, ridge .*out-of-fold RMSE ", line)


def test_genes_are_selected_unless_already_selected(pairs):
    assert len(tl.train(pairs, "nnls").genes_) == 200
    pp.select_genes(pairs, 33)
    assert len(tl.train(pairs, "nnls").genes_) == 33


@pytest.mark.parametrize("name", NAMES)
def test_methods_set_their_genes_per_type(pairs, name, monkeypatch):
    asked = []
    monkeypatch.setattr(_train, "select_genes", lambda mdata, n_genes: asked.append(n_genes))
    tl.train(pairs, name, **QUICK.get(name, {}))
    narrow, wide = (
        ("nnls", "bisque", "mean_composition", "ridge", "simplednn"),
        ("calibrated_map", "residual_dnn", "ensemble", "calibrated_nnls", "simulation_ridge"),
    )
    own = ("scaden", "music", "bayesprism")
    # e.g. Scaden, which selects genes itself
    assert asked == ([] if get_record(name).selects_genes else [get_record(name).n_genes(pairs)])
    assert name not in narrow or asked == [200]
    # all genes, because fewer than 100 per type are there
    assert name not in (*wide, "robust_nnls") or asked == [pairs["bulk"].n_vars]
    assert name not in own or asked == []


def test_arguments_reach_the_constructor_and_train(pairs):
    model = tl.train(
        pairs, "residual_dnn", hidden=(6, 5), dropout=0.0, n_members=3, simulate=9, max_epochs=1, refit=False, seed=7
    )
    assert model.parameters_["hidden"] == [6, 5]
    assert model.parameters_["n_members"] == 3
    assert model.parameters_["simulate"] == 9
    assert len(model.history["train_loss"]) == 1
    assert model.seed_ == 7


@pytest.mark.parametrize(("name", "known"), [("residual_dnn", "hidden"), ("scaden", "max_steps"), ("nnls", "held_out")])
def test_unknown_argument_is_refused_with_known_names(pairs, name, known, monkeypatch):
    monkeypatch.setattr(pp, "select_genes", lambda *args, **kwargs: pytest.fail("computed"))
    with pytest.raises(TypeError, match=rf"Expected arguments of \w+: .*{known}.*, found \['hiden'\]"):
        tl.train(pairs, name, hiden=(3,))


def test_unknown_method_is_refused_with_the_known_names(pairs):
    with pytest.raises(ValueError, match=r"Expected method to be one of \[.*'mean_composition', .*found 'simple_dnn'"):
        tl.train(pairs, "simple_dnn")


@pytest.mark.parametrize("arguments", [{"method": "residual_dnn"}, {"method": "scaden", "train_on": "pairs"}])
def test_too_few_pairs_are_refused_with_advice(pairs, arguments):
    pairs["bulk"].obsm["measured_fractions"].iloc[2:] = np.nan
    n_pairs = len(pp.paired_donors(pairs))
    assert n_pairs < 3
    with pytest.raises(ValueError, match=rf"at least 3 paired donors .*found {n_pairs}\. .*method='nnls'"):
        tl.train(pairs, **arguments)


def test_three_pairs_are_enough(pairs):
    measured = pairs["bulk"].obsm["measured_fractions"]
    measured.loc[measured.dropna().index[3:]] = np.nan
    assert tl.train(pairs, "residual_dnn", **QUICK["residual_dnn"]).method == "residual_dnn"


def test_training_prints_one_line_without_warnings(pairs, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tl.train(pairs, "residual_dnn", **QUICK["residual_dnn"])
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 1
    assert err == ""


@pytest.mark.parametrize(
    ("name", "module"),
    [("residual_dnn", _starts), ("calibrated_map", _calibrated_map), ("simulation_ridge", _simulation_ridge)],
)
def test_training_uses_the_batches_of_calibrate(pairs, name, module, monkeypatch):
    pairs["bulk"].obs["run"] = ["first", "second"] * (pairs["bulk"].n_obs // 2)
    pp.calibrate(pairs, batch_key="run")
    fit_calibration, seen = module.fit_calibration, set()
    monkeypatch.setattr(
        *(module, "fit_calibration"),
        lambda *args, **kwargs: (seen.add(kwargs.get("batch_key")), fit_calibration(*args, **kwargs))[1],
    )
    tl.train(pairs, name, **QUICK.get(name, {}))
    assert seen == {"run"}


@pytest.mark.parametrize("name", ["residual_dnn", "scaden"])
def test_history_has_one_frame_per_loss(pairs, name):
    history = tl.train(pairs, name, **QUICK[name]).history
    assert set(history) <= {"train_loss", "validation_loss", "best_epoch", "confirmed"}
    for key, frame in history.items():
        assert isinstance(frame, pd.DataFrame)
        assert list(frame.columns) == [key]
        assert frame.index.name == "epoch"


@pytest.mark.parametrize("name", ["residual_dnn", "scaden"])
def test_training_data_are_released_with_the_model(pairs, name):
    """scvi-tools would keep every object that was ever registered."""
    model = tl.train(pairs, name, **QUICK[name])
    registered = weakref.ref(model.adata)
    del model
    gc.collect()
    assert registered() is None


def test_trained_network_can_be_trained_again(pairs):
    model = tl.train(pairs, "residual_dnn", **QUICK["residual_dnn"])
    model.train(max_epochs=1)
    np.testing.assert_allclose(model.predict(pairs["bulk"]).sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("residual_dnn", {"max_epochs": 10**6, "patience": 10**6, "hidden": (4,), "simulate": 20}),
        ("scaden", {"max_steps": 10**6}),
    ],
)
def test_ctrl_c_keeps_a_usable_model(pairs, name, arguments, interrupt_after, monkeypatch, tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    on_fit_start = Plan.on_fit_start
    monkeypatch.setattr(Plan, "on_fit_start", lambda self: (interrupt_after(0.5), on_fit_start(self))[1])
    pp.simulate(pairs, 40)
    model = tl.train(pairs, name, **arguments)
    assert model.interrupted_
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(model.history["train_loss"]) > 0
    fractions = model.predict(pairs["bulk"])
    np.testing.assert_allclose(fractions.sum(axis=1), 1, rtol=1e-6)
    model.save(tmp_path / "model")
    assert type(model).load(tmp_path / "model").predict(pairs["bulk"]).equals(fractions)


def test_ctrl_c_keeps_the_best_weights(pairs, monkeypatch):
    fit, calls = _members.fit, []

    def interrupt_late(module, data, loss, **arguments):
        def counting(logits, fractions):
            calls.append(1)
            if len(calls) == 40:
                os.kill(os.getpid(), signal.SIGINT)
            return loss(logits, fractions)

        plan = fit(module, data, counting, **arguments)
        calls.append((arguments["validation"], loss))
        return plan

    monkeypatch.setattr(_members, "fit", interrupt_late)
    pp.select_genes(pairs, 100)
    settings = {"loss": "cross_entropy", "learning_rate": 0.01, "max_epochs": 10**6, "patience": 10**6, "hidden": (4,)}
    model = tl.train(pairs, "simplednn", **settings)
    validation, loss = calls[-1]
    with torch.no_grad():
        losses = loss(model.module(validation.x), validation.targets.mean(dim=1))
    kept = float((losses * validation.weights).sum() / validation.weights.sum())
    history = model.history["validation_loss"]["validation_loss"]
    assert model.interrupted_
    assert 0 < model.best_epoch_ < history.index[-1]
    assert kept == pytest.approx(history.min(), rel=1e-6)


@pytest.mark.parametrize(("method", "curves"), [("simplednn", ()), ("residual_dnn", ("confirmed",))])
def test_epoch_zero_can_be_the_best(pairs, method, curves):
    # the weights do not change
    model = tl.train(pairs, method, max_epochs=1, learning_rate=1e-12, patience=1)
    assert list(model.history)[-1 - len(curves) :] == ["best_epoch", *curves]
    assert model.best_epoch_ == 0


def test_no_gain_over_mean_composition_is_reported(cohort):
    cells, bulk = cohort
    rng = np.random.default_rng(0)
    noise = AnnData(rng.poisson(50, bulk.shape).astype(np.float32), obs=bulk.obs, var=bulk.var)
    with pytest.warns(UserWarning, match="not better than the mean composition") as seen:
        tl.train(pp.pair(cells, noise), "calibrated_nnls")
    assert seen[-1].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tl.train(pp.pair(cells, bulk), "calibrated_nnls")
        tl.train(pp.pair(cells, bulk), "mean_composition")


def test_without_reference_more_genes_are_selected(pairs, monkeypatch):
    asked = []
    monkeypatch.setattr(_train, "select_genes", lambda mdata, n_genes: asked.append(n_genes))
    large = pp.pair(*datasets.paired_cohort(n_donors=4, n_genes=800, n_cell_types=4, cells_per_donor=(20, 40)))
    for mdata in (large, pp.pair(bulk=large["bulk"])):
        tl.train(mdata, "ridge")
    assert asked == [50 * 4, 150 * 4]


def test_network_gets_more_genes_with_more_pairs():
    record = get_record("simplednn")
    for n_pairs, per_type in ((4, 50), (25, 50), (30, 60), (80, 150)):
        cohort = datasets.paired_cohort(
            n_donors=n_pairs, n_genes=800, n_cell_types=4, cells_per_donor=(9, 10), n_bulk_only=0, n_reference_only=0
        )
        assert record.n_genes(pp.pair(*cohort)) == per_type * 4
