from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import softmax

from scdeconv._stats.compositions import to_fractions, without_common_level
from scdeconv.pp import centred_log_ratio


def test_softmax_inverts_centred_log_ratio():
    fractions = np.random.default_rng(0).dirichlet(np.ones(5), size=7)
    ratios = centred_log_ratio(fractions, floor=0.0)
    geometric_mean = np.prod(fractions, axis=1, keepdims=True) ** (1 / 5)
    np.testing.assert_allclose(ratios, np.log(fractions / geometric_mean), rtol=1e-10)
    np.testing.assert_allclose(softmax(ratios, axis=1), fractions, rtol=1e-10)


def test_small_fractions_are_clipped_to_the_floor():
    np.testing.assert_allclose(
        centred_log_ratio(np.array([[0.0, 0.005, 0.995]]), floor=0.01),
        centred_log_ratio(np.array([[0.01, 0.01, 0.995]]), floor=0.0),
    )


def test_centred_log_ratio_keeps_names_and_nan():
    fractions = pd.DataFrame({"B": [0.2, 0.0, np.nan], "T": [0.8, 1.0, np.nan]}, index=["s1", "s2", "s3"])
    before = fractions.copy()
    ratios = centred_log_ratio(fractions)
    pd.testing.assert_frame_equal(fractions, before)
    expected = pd.DataFrame(centred_log_ratio(fractions.to_numpy(), 1e-3), fractions.index, fractions.columns)
    pd.testing.assert_frame_equal(ratios, expected)
    assert ratios.loc["s2", "T"] == np.log(1 / 1e-3) / 2
    assert ratios.loc["s3"].isna().all()


def test_covariance_equals_that_of_the_rows():
    values = np.random.default_rng(0).normal(size=(30, 4)) @ np.random.default_rng(1).normal(size=(4, 4))
    centred = values - values.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(without_common_level(np.cov(values.T)), np.cov(centred.T))


def test_fractions_are_amounts_over_their_sum(unchanged):
    amounts = np.random.default_rng(0).gamma(1, 100, (6, 4))
    with unchanged({"amounts": amounts}):
        found = to_fractions(amounts)
    for row, sample in zip(found, amounts, strict=True):
        np.testing.assert_allclose(row, [value / sum(sample) for value in sample])
    np.testing.assert_allclose(to_fractions(found), found)


def test_negative_amounts_are_clipped_before_the_sum():
    np.testing.assert_allclose(
        to_fractions(np.array([[-5.0, 1.0, 3.0], [2.0, -1e-9, 0.0]])), [[0, 0.25, 0.75], [1, 0, 0]]
    )


def test_rows_of_zeros_become_uniform():
    np.testing.assert_array_equal(to_fractions(np.array([[0.0] * 4, [-1.0, -2.0, 0.0, -0.5]])), np.full((2, 4), 0.25))


def test_rows_with_nan_stay_nan():
    found = to_fractions(np.array([[np.nan] * 3, [1.0, np.nan, 2.0], [1.0, 1.0, 2.0]]))
    assert np.isnan(found[:2]).all()
    np.testing.assert_allclose(found[2], [0.25, 0.25, 0.5])


def test_tiny_and_huge_amounts_keep_their_ratios():
    ratios = np.array([[1.0, 3.0]])
    for scale in (1e-300, 1e300):
        np.testing.assert_allclose(to_fractions(scale * ratios), ratios / 4)
