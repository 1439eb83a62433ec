from __future__ import annotations

import numpy as np
import pytest

from scdeconv._stats.calibration.repeats import average_by_code, average_repeats

DONORS = np.array(["b", "a", "b", "c", "a", "b"])
RUNS = np.array(["y", "x", "x", "y", "x", "y"])


def averaged(donors, batches=None, seed=0):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(len(donors), width)) for width in (7, 3, 7)]
    return arrays, average_repeats(*arrays, donors, batches)


def test_rows_are_means_in_order_of_appearance():
    arrays, found = averaged(DONORS)
    for given, name in zip(arrays, ("log", "fractions", "counting"), strict=True):
        expected = [given[donor == DONORS].mean(axis=0) for donor in ("b", "a", "c")]
        np.testing.assert_allclose(getattr(found, name), expected)
    assert found.donors.tolist() == [1, 0, 2]
    assert found.batches is None
    assert found.n_donors == 3
    np.testing.assert_array_equal(found.weights, 1)


def test_donor_has_a_row_in_each_batch():
    (log, *_), found = averaged(DONORS, RUNS)
    pairs = [("b", "y"), ("a", "x"), ("b", "x"), ("c", "y")]
    expected = [log[(donor == DONORS) & (run == RUNS)].mean(axis=0) for donor, run in pairs]
    np.testing.assert_allclose(found.log, expected)
    assert found.donors.tolist() == [1, 0, 1, 2]
    assert found.batches.tolist() == [1, 0, 0, 1]
    assert found.weights.tolist() == [0.5, 1, 0.5, 1]


def test_samples_without_repeats_are_unchanged():
    arrays, found = averaged(np.array([3, 1, 2]))
    np.testing.assert_array_equal(found.log, arrays[0])


@pytest.mark.parametrize("n_samples", [10, 1000])
def test_averaging_stores_one_number_per_sample(n_samples):
    assert average_by_code(np.arange(n_samples) // 2).nnz == n_samples
