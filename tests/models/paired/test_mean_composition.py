from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdeconv import tl
from scdeconv.models import MeanComposition


def test_prediction_is_the_mean_of_donor_means(pairs):
    bulk = pairs["bulk"]
    donors = bulk.obs["donor"].to_numpy().copy()
    donors[1] = donors[2] = donors[0]
    bulk.obs["donor"] = donors
    bulk.obsm["measured_fractions"].iloc[5] = np.nan
    measured = bulk.obsm["measured_fractions"]
    by_donor = [
        np.nanmean(measured[donors == donor], axis=0)
        for donor in dict.fromkeys(donors)
        if measured[donors == donor].notna().any(axis=None)
    ]
    expected = np.mean(by_donor, axis=0)
    predicted = tl.train(pairs, "mean_composition").predict(bulk, in_sample=True)
    np.testing.assert_allclose(predicted, np.tile(expected, (bulk.n_obs, 1)))


def test_prediction_does_not_read_expression(pairs):
    model = tl.train(pairs, "mean_composition")
    other = pairs["bulk"].copy()
    other.X = np.random.default_rng(0).poisson(100, other.shape)
    pd.testing.assert_frame_equal(model.predict(other, in_sample=True), model.predict(pairs["bulk"], in_sample=True))


def test_one_paired_donor_is_enough(pairs):
    bulk = pairs["bulk"]
    bulk.obsm["measured_fractions"].iloc[1:] = np.nan
    first = bulk.obsm["measured_fractions"].iloc[0]
    assert first.notna().all()
    np.testing.assert_allclose(tl.train(pairs, "mean_composition").predict(bulk, in_sample=True).iloc[3], first)


def test_no_paired_donor_is_refused(pairs):
    pairs["bulk"].obsm["measured_fractions"].iloc[:] = np.nan
    with pytest.raises(ValueError, match="Expected at least 1 paired donors for method 'mean_composition', found 0"):
        tl.train(pairs, "mean_composition")
    with pytest.raises(ValueError, match="Expected samples with measured fractions, found none"):
        MeanComposition(pairs).train()
