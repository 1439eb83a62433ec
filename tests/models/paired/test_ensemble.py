"""WeightedEnsemble: weights, out-of-fold predictions, intervals and files."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from scdeconv import datasets, pp, tl
from scdeconv.models import WeightedEnsemble
from scdeconv.models.paired import ensemble
from scdeconv.models.paired.ensemble import weigh, weighted_out_of_fold

N_DONORS, N_TYPES = 9, 4
MEMBERS = ("calibrated_map", "ridge", "simplednn")
DONORS = np.array(list("abcdefghi"))


def draw(seed, sds, n_donors=N_DONORS):
    """True fractions, and members with the given errors."""
    rng = np.random.default_rng(seed)
    measured = rng.dirichlet([4, 2, 1, 1], n_donors)
    noisy = np.maximum(measured + rng.normal(size=(len(sds), *measured.shape)) * np.reshape(sds, (-1, 1, 1)), 0.001)
    return measured, noisy / noisy.sum(axis=2, keepdims=True)


def loop_weights(measured, predicted, donors):
    """The rule of the docstring, with the t test of SciPy."""
    names = sorted(set(donors))
    errors = [
        [np.mean([(member[i] - measured[i]) ** 2 for i in np.flatnonzero(donors == name)]) for name in names]
        for member in predicted
    ]
    best = min(errors, key=np.mean)
    found = [0.5 if each is best else ttest_rel(each, best, alternative="greater").pvalue for each in errors]
    return np.array(found) / sum(found)


# the weights


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sds", [(0.05, 0.06), (0.02, 0.05, 0.1), (0.3, 0.3, 0.3, 0.3)])
def test_weights_are_p_values_of_paired_tests(seed, sds):
    measured, predicted = draw(seed, sds)
    donors = np.array(list("aabcddefg"))
    weights = weigh(measured, predicted, donors)
    np.testing.assert_allclose(weights, loop_weights(measured, predicted, donors))
    assert weights.sum() == pytest.approx(1)


def test_clearly_best_member_gets_nearly_all():
    weights = weigh(*draw(0, (0.02, 0.3)), DONORS)
    assert weights[0] > 0.95


def test_equal_members_get_equal_weights():
    measured, predicted = draw(0, (0.1,))
    np.testing.assert_allclose(weigh(measured, np.repeat(predicted, 4, axis=0), DONORS), 0.25)


def test_member_order_does_not_change_weights():
    measured, predicted = draw(2, (0.02, 0.05, 0.1))
    expected = weigh(measured, predicted, DONORS)
    for order in permutations(range(3)):
        np.testing.assert_allclose(weigh(measured, predicted[list(order)], DONORS), expected[list(order)])


def test_weights_of_a_donor_ignore_its_own_errors():
    measured, predicted = draw(3, (0.05, 0.06))
    found = weighted_out_of_fold(measured, predicted, DONORS)
    other = measured.copy()
    other[0] = other[0][::-1]
    np.testing.assert_array_equal(weighted_out_of_fold(other, predicted, DONORS)[0], found[0])
    assert np.abs(weighted_out_of_fold(other, predicted, DONORS)[1:] - found[1:]).max() > 0


# the model


@pytest.fixture(scope="module")
def trained(cohort):
    with redirect_stdout(StringIO()) as printed:
        model = tl.train(pp.pair(*cohort), "ensemble", seed=3)
    return model, printed.getvalue()


@pytest.fixture(scope="module")
def alone(cohort):
    """The members, trained on their own with the genes of the ensemble."""
    with redirect_stdout(StringIO()):
        mdata = pp.pair(*cohort)
        pp.select_genes(mdata, WeightedEnsemble.record.n_genes(mdata))
        seeds = {"simplednn": {"seed": 3}}
        return {name: tl.train(mdata, name, **seeds.get(name, {})) for name in MEMBERS}


@pytest.fixture
def model(trained):
    return trained[0]


@pytest.fixture(scope="module")
def without_reference(cohort):
    cells, bulk = cohort
    measured = pp.pair(cells, bulk)["bulk"].obsm["measured_fractions"]
    alone = bulk.copy()
    alone.obsm["measured_fractions"] = measured
    return pp.pair(bulk=alone)


def test_network_is_left_out_if_ridge_is_worse(pairs, monkeypatch):
    # the p value of ridge is at most 0.5
    monkeypatch.setattr(ensemble, "SIGNIFICANT", 0.9)
    model = tl.train(pairs, "ensemble")
    assert [type(state).__name__ for state in model.state_.members] == ["CalibratedMAPState", "RidgeState"]


def test_weights_come_from_out_of_fold_predictions(model, alone):
    tables = [member.held_out_ for member in alone.values()]
    predicted = np.stack([table.predicted for table in tables])
    donors = tables[0].donors
    np.testing.assert_allclose(model.state_.weights, loop_weights(tables[0].measured, predicted, donors))
    for donor in donors:
        others = donors != donor
        weights = loop_weights(tables[0].measured[others], predicted[:, others], donors[others])
        expected = np.tensordot(weights, predicted[:, ~others], axes=1)
        np.testing.assert_allclose(model.held_out_.predicted[~others], expected)


def test_prediction_is_the_weighted_mean_of_members(model, alone, cohort):
    members = [member.predict(cohort[1], in_sample=True) for member in alone.values()]
    expected = sum(weight * member for weight, member in zip(model.state_.weights, members, strict=True))
    pd.testing.assert_frame_equal(model.predict(cohort[1], in_sample=True), expected)


def test_network_and_ridge_are_combined_without_reference(without_reference, cohort):
    model = tl.train(without_reference, "ensemble", seed=3)
    assert [type(state).__name__ for state in model.state_.members] == ["RidgeState", "SimpleDNNState"]
    members = [tl.train(without_reference, name, **seed) for name, seed in (("ridge", {}), ("simplednn", {"seed": 3}))]
    found = [member.predict(cohort[1], in_sample=True) for member in members]
    expected = sum(weight * member for weight, member in zip(model.state_.weights, found, strict=True))
    pd.testing.assert_frame_equal(model.predict(cohort[1], in_sample=True), expected)
    rmse, of_mean = model.held_out_.errors()
    assert rmse < 0.9 * of_mean


def test_weights_are_printed_on_one_line(trained):
    model, printed = trained
    shown = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(MEMBERS, model.state_.weights, strict=True))
    line = f"ensemble: 10 donors, 240 genes; weights {shown}; {model.held_out_.describe()}"
    assert printed.splitlines()[-1] == line


def test_saved_model_gives_the_same_predictions(model, cohort, tmp_path):
    model.save(tmp_path / "model")
    loaded = WeightedEnsemble.load(tmp_path / "model")
    bulk = cohort[1]
    pd.testing.assert_frame_equal(loaded.predict(bulk, in_sample=True), model.predict(bulk, in_sample=True))
    pd.testing.assert_frame_equal(loaded.quality(bulk), model.quality(bulk))
    for bound, again in zip(
        model.predict_interval(bulk, 0.9, in_sample=True),
        loaded.predict_interval(bulk, 0.9, in_sample=True),
        strict=True,
    ):
        pd.testing.assert_frame_equal(again, bound)
    np.testing.assert_array_equal(loaded.state_.weights, model.state_.weights)
    assert repr(loaded) == repr(model)
    loaded.save(tmp_path / "again")
    pd.testing.assert_frame_equal(
        WeightedEnsemble.load(tmp_path / "again").predict(bulk, in_sample=True), model.predict(bulk, in_sample=True)
    )
    with pytest.raises(RuntimeError, match="Expected training data, found a loaded model"):
        loaded.train()


def test_bounds_contain_the_estimate(model, cohort):
    fractions = model.predict(cohort[1], in_sample=True)
    lower, upper = model.predict_interval(cohort[1], 0.9, in_sample=True)
    assert ((lower <= fractions + 1e-12) & (fractions <= upper + 1e-12)).all(axis=None)


def test_data_and_global_state_are_unchanged(pairs, unchanged, global_state_untouched):
    with unchanged(pairs), global_state_untouched():
        tl.train(pairs, "ensemble")


def test_three_pairs_are_refused():
    pairs = pp.pair(*datasets.paired_cohort(n_donors=3, n_genes=300, cells_per_donor=(50, 100)))
    with pytest.raises(ValueError, match=r"Expected at least 4 paired donors .*found 3"):
        tl.train(pairs, "ensemble")
    WeightedEnsemble.setup_mudata(pairs)
    with pytest.raises(ValueError, match=r"Expected at least 4 paired donors .*Use method='calibrated_map'"):
        WeightedEnsemble(pairs).train()


def test_four_pairs_are_enough():
    cells, bulk = datasets.paired_cohort(n_donors=4, n_genes=300, cells_per_donor=(50, 100))
    model = tl.train(pp.pair(cells, bulk), "ensemble")
    np.testing.assert_allclose(model.predict(bulk, in_sample=True).sum(axis=1), 1)
