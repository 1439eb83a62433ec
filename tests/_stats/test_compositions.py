from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import softmax

from scdeconv._stats.compositions import without_common_level
from scdeconv.pp import centred_log_ratio


def test_centred_log_ratio_equals_log_over_geometric_mean_and_softmax_undoes_it():
    fractions = np.random.default_rng(0).dirichlet(np.ones(5), size=7)
    ratios = centred_log_ratio(fractions, floor=0.0)
    geometric_mean = np.prod(fractions, axis=1, keepdims=True) ** (1 / 5)
    np.testing.assert_allclose(ratios, np.log(fractions / geometric_mean), rtol=1e-10)
    np.testing.assert_allclose(softmax(ratios, axis=1), fractions, rtol=1e-10)


def test_centred_log_ratio_raises_small_fractions_to_the_floor():
    np.testing.assert_allclose(
        centred_log_ratio(np.array([[0.0, 0.005, 0.995]]), floor=0.01),
        centred_log_ratio(np.array([[0.01, 0.01, 0.995]]), floor=0.0),
    )


def test_centred_log_ratio_keeps_the_names_of_a_table_and_what_is_not_known():
    fractions = pd.DataFrame({"B": [0.2, 0.0, np.nan], "T": [0.8, 1.0, np.nan]}, index=["s1", "s2", "s3"])
    before = fractions.copy()
    ratios = centred_log_ratio(fractions)
    pd.testing.assert_frame_equal(fractions, before)
    expected = pd.DataFrame(centred_log_ratio(fractions.to_numpy(), 1e-3), fractions.index, fractions.columns)
    pd.testing.assert_frame_equal(ratios, expected)
    assert ratios.loc["s2", "T"] == np.log(1 / 1e-3) / 2
    assert ratios.loc["s3"].isna().all()


def test_covariance_without_common_level_is_that_of_centred_rows():
    values = np.random.default_rng(0).normal(size=(30, 4)) @ np.random.default_rng(1).normal(size=(4, 4))
    centred = values - values.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(without_common_level(np.cov(values.T)), np.cov(centred.T))
