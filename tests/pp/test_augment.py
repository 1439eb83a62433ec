from __future__ import annotations

import numpy as np
import pytest

from scdeconv import pp

COUNTS = np.array([57, 23, 0, 9, 1])


def test_paired_samples_get_draws_and_others_nan(make_inputs):
    mdata = pp.pair(*make_inputs(bulk_donors=("D1", "B1", "D2", "D1", "D3")))
    before = mdata["bulk"].X.copy()
    pp.augment(mdata, n_aug=12, aug_ratio=0.6)
    augmented = mdata["bulk"].obsm["augmented_fractions"]
    assert augmented.shape == (5, 12, 3)
    assert augmented.dtype == np.float32
    assert np.isnan(augmented[1]).all()
    known = augmented[[0, 2, 3, 4]]
    np.testing.assert_allclose(known.sum(axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose(known * 15, np.rint(known * 15), atol=1e-5)
    # the first donor has no cell of the last type
    assert (augmented[[0, 3], :, 2] == 0).all()
    assert not np.array_equal(augmented[0], augmented[3])
    np.testing.assert_array_equal(mdata["bulk"].X, before)
    assert mdata.uns["scdeconv"]["augment"] == {"n_aug": 12, "aug_ratio": 0.6, "seed": 0}


def test_all_cells_give_the_measured_composition(mdata):
    pp.augment(mdata, n_aug=2, aug_ratio=1.0)
    expected = mdata["bulk"].obsm["measured_fractions"].to_numpy()
    for draw in range(2):
        np.testing.assert_allclose(mdata["bulk"].obsm["augmented_fractions"][:, draw], expected, rtol=1e-6)


def test_same_seed_same_draws_and_global_state_untouched(mdata):
    state = np.random.get_state()[1].copy()
    draws = []
    for seed in (5, 5, 6):
        pp.augment(mdata, n_aug=10, seed=seed)
        draws.append(mdata["bulk"].obsm["augmented_fractions"])
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2], equal_nan=True)
    assert np.array_equal(state, np.random.get_state()[1])


def test_fractions_without_counted_cells_cannot_be_augmented(reference_inputs):
    mdata = pp.pair(**reference_inputs)
    with pytest.raises(
        KeyError, match="number of cells of each type.*measured_cells.*found none.*Pass cells to pp.pair"
    ):
        pp.augment(mdata)
    assert "augmented_fractions" not in mdata["bulk"].obsm


def test_mix_is_recorded_also_without_cells(mdata, reference_inputs):
    pp.augment(mdata, n_aug=2, mix=1.5)
    assert mdata.uns["scdeconv"]["augment"] == {"n_aug": 2, "aug_ratio": 0.8, "seed": 0, "mix": 1.5}
    without_cells = pp.pair(**reference_inputs)
    pp.augment(without_cells, mix=2)
    assert without_cells.uns["scdeconv"]["augment"]["mix"] == 2
    assert "augmented_fractions" not in without_cells["bulk"].obsm


def test_negative_mix_is_refused(mdata):
    with pytest.raises(ValueError, match="Expected mix to be a number of at least 0, or None, found -1"):
        pp.augment(mdata, mix=-1)
