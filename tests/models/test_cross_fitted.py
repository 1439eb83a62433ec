"""Out-of-fold predictions and intervals of the cross-fitted methods."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdeconv import tl
from scdeconv.models import NNLS, Estimate, Ridge
from scdeconv.models.paired.ridge import RidgeState


@pytest.mark.parametrize("method", ["bisque", "calibrated_nnls", "ridge", "nnls", "mean_composition"])
def test_intervals_contain_the_estimate(method, pairs, cohort):
    model = tl.train(pairs, method)
    fractions = model.predict(cohort[1], in_sample=True)
    lower, upper = model.predict_interval(cohort[1], 0.9, in_sample=True)
    for bound in (lower, upper):
        assert bound.index.equals(fractions.index)
        assert bound.columns.equals(fractions.columns)
    assert (lower <= fractions + 1e-9).all(axis=None)
    assert (fractions <= upper + 1e-9).all(axis=None)
    expected = model.held_out_.intervals(fractions.to_numpy(), 0.9)
    np.testing.assert_array_equal(lower, expected[0])
    np.testing.assert_array_equal(upper, expected[1])
    assert len(model.held_out_.donors) == 10
    with pytest.raises(ValueError, match=r"at most 0.909, .* 10 held-out donors"):
        model.predict_interval(cohort[1], 0.95, in_sample=True)


def test_intervals_need_held_out_donors(pairs, cohort):
    model = NNLS(pairs)
    model.train(held_out=False)
    assert model.held_out_ is None
    with pytest.raises(ValueError, match="Expected a model with held-out donors, found one without"):
        model.predict_interval(cohort[1], in_sample=True)


def test_held_out_truth_is_the_measured_fractions(pairs):
    model = NNLS(pairs)
    model.train()
    measured = pairs["bulk"].obsm["measured_fractions"].dropna()
    pd.testing.assert_frame_equal(
        pd.DataFrame(model.held_out_.measured, measured.index, measured.columns), measured, check_names=False
    )
    np.testing.assert_allclose(model.held_out_.predicted.sum(axis=1), 1)


def test_members_of_held_out_donors_are_kept(pairs, monkeypatch):
    plain = RidgeState.estimate

    def with_members(state, expression):
        fractions = plain(state, expression).fractions
        return Estimate(fractions, np.stack([fractions, fractions[:, ::-1]]))

    monkeypatch.setattr(RidgeState, "estimate", with_members)
    model = Ridge(pairs)
    model.train()
    held_out = model.held_out_
    np.testing.assert_array_equal(held_out.members, [held_out.predicted, held_out.predicted[:, ::-1]])
