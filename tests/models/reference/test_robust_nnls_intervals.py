"""Prediction intervals of RobustNNLS without pairs."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from robust_nnls_data import as_samples, make_bulk, make_mdata

from scdeconv import datasets, pp, tl
from scdeconv.models import NNLS, RobustNNLS


@pytest.fixture(scope="module")
def cohort():
    """Cells and bulk of different donors, and the fractions of the bulk."""
    cells, bulk = datasets.paired_cohort(n_donors=6, n_genes=200, cells_per_donor=(50, 100), n_bulk_only=2)
    bulk.obs["donor"] = [f"patient {number}" for number in range(bulk.n_obs)]
    return cells, bulk


@pytest.fixture(scope="module")
def mdata(cohort):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pp.pair(*cohort)


@pytest.fixture(scope="module")
def model(mdata):
    model = RobustNNLS(mdata)
    model.train()
    return model


def test_intervals_contain_the_estimate(model, cohort):
    fractions = model.predict(cohort[1])
    lower, upper = model.predict_interval(cohort[1], 0.9)
    assert model.held_out_ is None
    assert ((lower >= 0) & (lower <= fractions) & (fractions <= upper) & (upper <= 1)).all(axis=None)
    assert (upper - lower).to_numpy().mean() < 0.5


def test_bounds_do_not_depend_on_the_batch(model, cohort):
    lower, upper = model.predict_interval(cohort[1], 0.8)
    alone = model.predict_interval(cohort[1][[3]], 0.8)
    np.testing.assert_allclose(alone[0], lower.iloc[[3]], atol=1e-6)
    np.testing.assert_allclose(alone[1], upper.iloc[[3]], atol=1e-6)


def test_training_again_gives_the_same_bounds(mdata, model, cohort):
    again = RobustNNLS(mdata)
    again.train()
    pd.testing.assert_frame_equal(model.predict_interval(cohort[1])[0], again.predict_interval(cohort[1])[0])


def test_saved_model_gives_the_same_bounds(model, cohort, tmp_path):
    model.save(tmp_path / "model")
    loaded = RobustNNLS.load(tmp_path / "model")
    for first, second in zip(model.predict_interval(cohort[1]), loaded.predict_interval(cohort[1]), strict=True):
        pd.testing.assert_frame_equal(first, second)


def test_missing_genes_are_left_out_of_the_resamples(model, cohort):
    lower, upper = model.predict_interval(cohort[1][:, :150], 0.9)
    assert np.isfinite(lower).all(axis=None)
    assert (lower <= upper).all(axis=None)


def test_larger_platform_effect_gives_wider_intervals():
    widths = []
    for sd in (0.1, 0.6):
        signature, bulk, _, _ = make_bulk(0, shift_sd=sd)
        model = RobustNNLS(make_mdata(signature, bulk * 1e6))
        model.train()
        lower, upper = model.predict_interval(as_samples(bulk * 1e6), 0.9)
        widths.append((upper - lower).to_numpy().mean())
    assert widths[1] > 2 * widths[0]


def test_intervals_cover_the_true_fractions():
    """Generated data agree with the model, so that at least the promised share is covered."""
    inside = []
    for seed in range(3):
        signature, bulk, fractions, _ = make_bulk(seed, shift_sd=0.5, n_far=5)
        sizes = np.exp(np.random.default_rng(seed).normal(0, 0.05, len(signature)))[:, None]
        model = RobustNNLS(make_mdata(signature * sizes, bulk * 1e6))
        model.train()
        lower, upper = model.predict_interval(as_samples(bulk * 1e6), 0.9)
        inside.append(((lower <= fractions) & (fractions <= upper)).to_numpy().mean())
    assert np.mean(inside) > 0.85


def test_predict_writes_bounds_flags_and_their_origin(model, cohort):
    bulk = cohort[1].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tl.predict(bulk, model, coverage=0.9)
    assert {"fractions_lower", "fractions_upper"} <= set(bulk.obsm)
    assert bulk.uns["scdeconv"]["fractions"]["intervals"] == "resampled genes and reference"
    width = (bulk.obsm["fractions_upper"] - bulk.obsm["fractions_lower"]).mean(axis=1)
    typical = np.minimum(2 * 1.6448536 * model.predict(bulk).std(), 1).mean()
    np.testing.assert_array_equal(bulk.obsm["fractions_quality"]["wide_intervals"], width > typical)


def test_wide_intervals_are_reported(model, cohort):
    uniform = cohort[1].copy()
    uniform.X = uniform.X[:1].repeat(uniform.n_obs, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same = RobustNNLS(pp.pair(cohort[0], uniform))
        same.train()
    with pytest.warns(UserWarning, match=r"have intervals as wide as the spread of compositions"):
        tl.predict(uniform, same, coverage=0.9)


def test_levels_have_bounds_from_the_resamples(model, cohort):
    first, second, third = model.cell_types_[:3]
    found = model.estimate(cohort[1], coverage=0.9, groups={"two": [first, second], "one": [third]})
    np.testing.assert_allclose(found["by_level_lower"]["one"], found["lower"][third])
    both = found["by_level"]["two"]
    assert ((found["by_level_lower"]["two"] <= both) & (both <= found["by_level_upper"]["two"])).all()


def test_other_methods_name_those_with_intervals(mdata, cohort):
    model = NNLS(mdata)
    model.train()
    with pytest.raises(ValueError, match="use method='robust_nnls', which has intervals without pairs"):
        model.predict_interval(cohort[1])
