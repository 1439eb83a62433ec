"""ResidualDNN: base estimates, training data, and when the correction is used."""

from __future__ import annotations

import json
import warnings
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.special import softmax
from sklearn.linear_model import Ridge

from scdeconv import pp, tl
from scdeconv._nn import LOSSES, BatchedLinear, Plan
from scdeconv._stats.expression import LEVEL, log_shares
from scdeconv._stats.ridge import FLOOR, LEAST_SD, PENALTIES
from scdeconv.models import PairedData, ResidualDNN, SimpleDNN, load_model
from scdeconv.models.paired import _starts, ridge
from scdeconv.pp import fit_calibration

SMALL = {"hidden": (8,), "n_members": 2}
# the weights do not change: the best epoch is 0
UNTRAINED = {"max_epochs": 1, "learning_rate": 1e-9}
ON_PAIRS = {"base": "ridge", "simulate": None}
CASES = [ON_PAIRS, {"simulate": 20}]
NOT_USED = "correction not confirmed by held-out donors: not used"


@pytest.mark.parametrize("arguments", CASES)
def test_sample_without_counts_is_no_pair(empty_sample_pairs, arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        model = tl.train(empty_sample_pairs, "residual_dnn", max_epochs=2, **SMALL, **arguments)
    fractions = model.predict(empty_sample_pairs["bulk"])
    assert list(fractions.isna().all(axis=1)) == [True] + [False] * (len(fractions) - 1)


# the base


def closed_form(expression, fractions, donors, new):
    """The ridge solution in scikit-learn, its penalty by explicit refits without each donor."""
    expression, new = np.asarray(expression, dtype=float), np.asarray(new, dtype=float)
    scaled = [np.log1p(10 * x.shape[1] * x / x.sum(axis=1, keepdims=True)) for x in (expression, new)]
    x, x_new = ((values - scaled[0].mean(axis=0)) / (scaled[0].std(axis=0) + 0.1) for values in scaled)
    logs = np.log(np.maximum(fractions, 0.01))
    y = logs - logs.mean(axis=1, keepdims=True)
    unit = ((x - x.mean(axis=0)) ** 2).sum() / len(x)

    def error(penalty):
        predicted = np.empty_like(y)
        for donor in np.unique(donors):
            out = donors == donor
            predicted[out] = Ridge(alpha=penalty * unit).fit(x[~out], y[~out]).predict(x[out])
        return np.mean((softmax(predicted, axis=1) - fractions) ** 2)

    best = min(PENALTIES, key=error)
    return softmax(Ridge(alpha=best * unit).fit(x, y).predict(x_new), axis=1)


def known_arrays(mdata, genes):
    """Expression, fractions and donors of the pairs, and the expression of all samples."""
    bulk = mdata["bulk"][:, genes]
    measured = bulk.obsm["measured_fractions"]
    known = measured.notna().all(axis=1).to_numpy()
    return bulk.X[known], measured.to_numpy()[known], bulk.obs["donor"].to_numpy()[known].astype(str), bulk.X


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(("name", "arguments"), [("residual_dnn", {**UNTRAINED, **ON_PAIRS}), ("ridge", {})])
def test_epoch_0_on_ridge_equals_the_closed_form(pairs, repeated_pairs, several, name, arguments):
    data = repeated_pairs if several else pairs
    pp.select_genes(data, 60)
    model = tl.train(data, name, **arguments)
    expected = closed_form(*known_arrays(data, model.genes_))
    assert getattr(model, "best_epoch_", 0) == 0
    np.testing.assert_allclose(model.predict(data["bulk"], in_sample=True), expected, atol=2e-5)
    assert (FLOOR, LEVEL, LEAST_SD) == (0.01, 10, 0.1)


def test_each_ridge_base_leaves_held_out_donors_out(pairs, fits):
    pp.select_genes(pairs, 60)
    model = tl.train(pairs, "residual_dnn", **UNTRAINED, refit=False, **ON_PAIRS)
    expression, fractions, donors, new = known_arrays(pairs, model.genes_)
    assert len(model.state_.bases) == 5
    for base, held in zip(model.state_.bases, fits[0]["validation"].weights.numpy() > 0, strict=True):
        expected = closed_form(expression[~held], fractions[~held], donors[~held], new)
        np.testing.assert_allclose(base.predict(new.astype(float)), expected, atol=1e-5)
    scale = log_shares(expression.astype(float)).std(axis=0) + LEAST_SD
    np.testing.assert_allclose(fits[0]["module"].scale, scale, rtol=1e-6)


def test_ridge_base_sees_only_the_training_rows(repeated_pairs, fits, donors_of_rows, monkeypatch):
    seen, fit_log_ratios = [], ridge.fit_log_ratios
    monkeypatch.setattr(
        *(ridge, "fit_log_ratios"),
        lambda x, fractions, groups, *more: (seen.append(groups), fit_log_ratios(x, fractions, groups, *more))[1],
    )
    donors = donors_of_rows(repeated_pairs)
    tl.train(repeated_pairs, "residual_dnn", max_epochs=1, refit=False, **ON_PAIRS, **SMALL)
    n_members = len(fits[0]["data"].weights)
    for groups, weights in zip(seen[:n_members], fits[0]["data"].weights.numpy(), strict=True):
        assert list(groups) == list(donors[weights > 0])


def test_epoch_0_equals_calibrated_map(pairs):
    model = tl.train(pairs, "residual_dnn", **UNTRAINED, simulate=20)
    calibration = fit_calibration(PairedData(pairs, model.genes_), (), batch_key=None)
    counts = pairs["bulk"][:, model.genes_].X.astype(float)
    expected = softmax(calibration.model().solve(log_shares(counts), counts.sum(axis=1)), axis=1)
    assert model.best_epoch_ == 0
    np.testing.assert_allclose(model.predict(pairs["bulk"], in_sample=True), expected, atol=2e-5)


def test_each_calibrated_base_leaves_held_out_donors_out(repeated_pairs, fits, donors_of_rows):
    model = tl.train(repeated_pairs, "residual_dnn", **UNTRAINED, refit=False, simulate=20)
    donors = donors_of_rows(repeated_pairs)
    counts = repeated_pairs["bulk"][:, model.genes_].X.astype(float)
    x = log_shares(counts), counts.sum(axis=1)
    data = PairedData(repeated_pairs, model.genes_)
    held = fits[0]["validation"].weights.numpy() > 0
    assert len(model.state_.bases) == len(held) == 5
    for base, left_out in zip(model.state_.bases, held, strict=True):
        calibration = fit_calibration(data, set(donors[left_out]), batch_key=None)
        np.testing.assert_allclose(base.log_ratios(counts), calibration.model().solve(*x), rtol=1e-6, atol=1e-9)
    mean = np.mean([softmax(base.log_ratios(counts), axis=1) for base in model.state_.bases], axis=0)
    np.testing.assert_allclose(model.predict(repeated_pairs["bulk"], in_sample=True), mean, atol=1e-6)


# training data of the network


def test_simulated_bulk_leaves_held_out_donors_out(repeated_pairs, fits, donors_of_rows, monkeypatch):
    """The members share the simulated bulk of the refit, which uses all donors."""
    drawn = {}

    def recording(data, without, **kwargs):
        calibration = fit_calibration(data, without, **kwargs)

        def draw_bulk(fractions, rng):
            expression = type(calibration).draw_bulk(calibration, fractions, rng)
            drawn.setdefault(frozenset(without), []).append((log_shares(expression), fractions))
            return expression

        object.__setattr__(calibration, "draw_bulk", draw_bulk)
        return calibration

    monkeypatch.setattr(_starts, "fit_calibration", recording)
    # keep the first epoch for any validation loss, which causes a refit
    end = Plan.on_fit_end
    monkeypatch.setattr(Plan, "on_fit_end", lambda self: (end(self), setattr(self, "best_epoch", 1))[0])
    donors = donors_of_rows(repeated_pairs)
    pp.select_genes(repeated_pairs, 60)
    model = tl.train(repeated_pairs, "residual_dnn", max_epochs=2, simulate=20, **SMALL)
    assert model.best_epoch_ == 1
    first, refit = fits
    for member, held in enumerate(first["validation"].weights.numpy() > 0):
        ((x, fractions),) = drawn[frozenset(donors[held])]
        np.testing.assert_allclose(first["data"].x[member, len(donors) :], x, rtol=1e-6)
        np.testing.assert_allclose(first["data"].targets[member, len(donors) :, 0], fractions, rtol=1e-6)
    ((x, _),) = drawn[frozenset()]
    for member in range(2):
        np.testing.assert_allclose(refit["data"].x[member, len(donors) :], x, rtol=1e-6)


def test_pair_has_the_weight_of_ten_simulations(repeated_pairs, fits, donors_of_rows):
    donors = donors_of_rows(repeated_pairs)
    tl.train(repeated_pairs, "residual_dnn", max_epochs=1, simulate=20, **SMALL)
    data, held = fits[0]["data"], fits[0]["validation"].weights > 0
    assert data.x.shape[:2] == data.weights.shape == (5, len(donors) + 20)
    real, simulated = data.weights[:, : len(donors)], data.weights[:, len(donors) :]
    assert (simulated == 1).all()
    assert not real[held].any()
    of_rows = real.max(dim=0).values
    assert of_rows.mean().item() == pytest.approx(10, rel=1e-6)
    assert (real[~held] == of_rows.expand(5, -1)[~held]).all()
    for member in range(5):
        np.testing.assert_array_equal(data.x[member, : len(donors)], fits[0]["validation"].x)


def test_training_arguments_reach_the_training_loop(pairs, fits):
    arguments = {"learning_rate": 0.02, "weight_decay": 0.3, "patience": 4, "batch_size": 5}
    tl.train(pairs, "residual_dnn", max_epochs=6, simulate=20, **arguments, **SMALL)
    assert {name: fits[0]["arguments"][name] for name in arguments} == arguments
    # 10 rows and 20 simulated samples in batches of 5 are six steps an epoch
    assert fits[0]["arguments"]["max_steps"] == 36


@pytest.mark.parametrize("loss", LOSSES)
def test_named_loss_is_minimised(pairs, fits, loss):
    tl.train(pairs, "residual_dnn", loss=loss, max_epochs=1, **ON_PAIRS, **SMALL)
    assert fits[0]["loss"] is LOSSES[loss]


def test_no_hidden_layer_is_a_linear_model(pairs, fits):
    tl.train(pairs, "residual_dnn", hidden=(), n_members=2, max_epochs=1, **ON_PAIRS)
    assert sum(isinstance(layer, BatchedLinear) for layer in fits[0]["module"].perceptrons) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "kl"}, r"Expected loss to be one of \['cross_entropy', 'mse', 'l1'\], found 'kl'"),
        ({"dropout": (0.1, 0.2, 0.3)}, "Expected one dropout rate for each of 2 hidden layers, found 3"),
        ({"base": "nnls"}, r"Expected base to be one of \['calibrated_map', 'ridge'\], found 'nnls'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResidualDNN(**arguments)


def test_anndata_without_reference_is_refused(bulk_with_truth):
    ResidualDNN.setup_anndata(bulk_with_truth)
    with pytest.raises(
        TypeError, match=r"Expected mdata to be a MuData of scdeconv.pp.pair, or None, found an AnnData"
    ):
        ResidualDNN(bulk_with_truth)


def test_former_arguments_name_the_new_methods(pairs):
    with pytest.raises(TypeError, match=r"found \['start_from_solution'\].*'residual_dnn'.*'simplednn'"):
        tl.train(pairs, "residual_dnn", start_from_solution=True)


# the correction


@pytest.fixture(scope="module")
def unconfirmed(cohort):
    """A correction trained for one tiny step: the gain is below its standard error."""
    with redirect_stdout(StringIO()) as printed:
        mdata = pp.pair(*cohort)
        model = tl.train(mdata, "residual_dnn", max_epochs=1, learning_rate=1e-9, simulate=20, **SMALL)
    return mdata, model, printed.getvalue()


def test_unconfirmed_correction_gives_the_base_estimates(unconfirmed):
    mdata, model, _ = unconfirmed
    expected = tl.train(mdata, "calibrated_map", held_out=False).predict(mdata["bulk"], in_sample=True)
    assert (model.predict(mdata["bulk"], in_sample=True) - expected).abs().max(axis=None) < 1e-6
    assert model.best_epoch_ == 0
    quality = tl.train(mdata, "calibrated_map").quality(mdata["bulk"])["noise"]
    pd.testing.assert_series_equal(model.quality(mdata["bulk"])["noise"], quality, rtol=1e-6)


def test_unconfirmed_correction_is_not_stored(unconfirmed, tmp_path):
    mdata, model, _ = unconfirmed
    assert model.state_.networks is None
    assert model.module is None
    assert len(model.state_.bases) == 1
    model.save(tmp_path / "model")
    with np.load(tmp_path / "model" / "weights.npz") as file:
        assert not [name for name in file.files if "networks" in name or "perceptrons" in name]
    assert json.loads((tmp_path / "model" / "model.json").read_text())["state"]["networks"] is None
    loaded = load_model(tmp_path / "model")
    pd.testing.assert_frame_equal(
        loaded.predict(mdata["bulk"], in_sample=True), model.predict(mdata["bulk"], in_sample=True), check_exact=True
    )


def test_printed_line_says_the_correction_is_unused(unconfirmed):
    _, model, printed = unconfirmed
    assert printed.splitlines()[-1] == f"residual_dnn: {model.summary_}"
    assert model.summary_.endswith(f"; {NOT_USED}")
    assert "20 simulated, 240 genes, 2 members, best epoch 0" in model.summary_


@pytest.fixture(scope="module")
def misleading():
    """Pairs with permuted profiles: the network improves on the base estimates."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(60, 0.5), 3)
    fractions = rng.dirichlet(np.full(3, 1.5), 30)
    genes = pd.DataFrame(index=[f"G{i}" for i in range(60)])
    names, types = [f"D{i}" for i in range(30)], ["B cell", "Monocyte", "T cell"]
    bulk = AnnData(rng.poisson(1e5 * fractions @ shares), obs=pd.DataFrame({"donor": names}, index=names), var=genes)
    bulk.obsm["measured_fractions"] = pd.DataFrame(fractions, index=names, columns=types)
    profiles = AnnData(1e4 * rng.dirichlet(np.full(60, 0.5), 3), obs=pd.DataFrame(index=types), var=genes)
    with redirect_stdout(StringIO()):
        return pp.pair(bulk=bulk, profiles=profiles)


CONFIRMED = {"simulate": None, "hidden": (8,), "n_members": 3, "learning_rate": 0.01, "max_epochs": 60}


@pytest.fixture(scope="module")
def confirmed(misleading):
    with redirect_stdout(StringIO()):
        return tl.train(misleading, "residual_dnn", **CONFIRMED)


def test_confirmed_correction_changes_the_estimates(confirmed, misleading):
    assert confirmed.best_epoch_ > 0
    assert NOT_USED not in confirmed.summary_
    base = tl.train(misleading, "calibrated_map")
    assert (
        confirmed.predict(misleading["bulk"], in_sample=True) - base.predict(misleading["bulk"], in_sample=True)
    ).abs().max(axis=None) > 0.01
    assert confirmed.held_out_.errors()[0] < base.held_out_.errors()[0]


def test_confirmed_correction_survives_save_and_load(confirmed, misleading, tmp_path, global_state_untouched):
    confirmed.save(tmp_path / "model")
    with global_state_untouched():
        loaded = ResidualDNN.load(tmp_path / "model")
    bulk = misleading["bulk"]
    assert loaded.state_.networks is not None
    pd.testing.assert_frame_equal(
        loaded.predict(bulk, in_sample=True), confirmed.predict(bulk, in_sample=True), check_exact=True
    )
    for first, second in zip(
        loaded.predict_interval(bulk, in_sample=True), confirmed.predict_interval(bulk, in_sample=True), strict=True
    ):
        pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_refit_shares_one_base_between_members(confirmed):
    assert len(confirmed.state_.bases) == 1
    assert {len(array) for name, array in confirmed.state_.networks.weights.items() if "weight" in name} == {3}


def test_without_refit_each_member_keeps_its_base(misleading):
    model = tl.train(misleading, "residual_dnn", refit=False, **CONFIRMED)
    assert model.best_epoch_ > 0
    assert len(model.state_.bases) == 3
    expression = misleading["bulk"][:, model.genes_].X.astype(float)
    members = model.state_.members(expression)
    assert np.abs(np.diff(members, axis=0)).max() > 1e-3
    np.testing.assert_allclose(model.predict(misleading["bulk"], in_sample=True), members.mean(axis=0), atol=1e-9)


def test_ctrl_c_in_refit_keeps_held_out_networks(misleading, interrupt_fit, tmp_path):
    modules = interrupt_fit(refit_only=True)
    model = tl.train(misleading, "residual_dnn", **CONFIRMED)
    assert model.interrupted_
    assert len(modules) == 2
    # each of five folds holds out different donors
    assert len(model.state_.bases) == 5
    for name, array in modules[0].state_dict().items():
        np.testing.assert_array_equal(model.state_.networks.weights[name], array)
    model.save(tmp_path / "model")
    loaded = ResidualDNN.load(tmp_path / "model")
    assert loaded.interrupted_
    assert loaded.predict(misleading["bulk"], in_sample=True).equals(model.predict(misleading["bulk"], in_sample=True))


def test_interrupted_model_can_be_saved_and_loaded(pairs, interrupt_fit, tmp_path):
    interrupt_fit()
    model = tl.train(pairs, "residual_dnn", **ON_PAIRS, **SMALL)
    assert model.interrupted_
    model.save(tmp_path / "model")
    assert (
        ResidualDNN.load(tmp_path / "model")
        .predict(pairs["bulk"], in_sample=True)
        .equals(model.predict(pairs["bulk"], in_sample=True))
    )


# randomness


def test_seed_determines_the_fractions(misleading, global_state_untouched):
    with global_state_untouched():
        first, again, other = (
            tl.train(misleading, "residual_dnn", seed=seed, **{**CONFIRMED, "max_epochs": 30, "simulate": 20})
            for seed in (3, 3, 4)
        )
    bulk = misleading["bulk"]
    assert first.best_epoch_ > 0
    pd.testing.assert_frame_equal(
        first.predict(bulk, in_sample=True), again.predict(bulk, in_sample=True), check_exact=True
    )
    assert not first.predict(bulk, in_sample=True).equals(other.predict(bulk, in_sample=True))
    assert (first.seed_, other.seed_) == (3, 4)


def test_seed_and_sizes_may_be_numpy_integers(pairs, tmp_path):
    sizes = {"seed": np.int64(3), "n_members": np.int64(2), "hidden": np.array([4]), "simulate": np.int64(20)}
    model = tl.train(pairs, "residual_dnn", max_epochs=1, **sizes)
    model.save(tmp_path / "model")
    assert (
        ResidualDNN.load(tmp_path / "model")
        .predict(pairs["bulk"], in_sample=True)
        .equals(model.predict(pairs["bulk"], in_sample=True))
    )
    with pytest.raises(ValueError, match=r"Expected a saved SimpleDNN in .*, found ResidualDNN"):
        SimpleDNN.load(tmp_path / "model")


def test_few_held_out_donors_give_no_quality(pairs):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        model = tl.train(pairs, "residual_dnn", n_members=1, refit=False, max_epochs=1, simulate=20)
    assert len(set(model.held_out_.donors)) == 2
    assert list(model.quality(pairs["bulk"])) == ["few_reads"]
