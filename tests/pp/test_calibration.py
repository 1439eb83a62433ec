"""The tables of a calibration."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdeconv._stats.calibration.fit import calibration_without_pairs
from scdeconv._stats.calibration.platform_calibration import PlatformCalibration
from scdeconv.pp import Calibration

GENES, TYPES = pd.Index([f"G{i}" for i in range(12)]), ["B", "NK", "T", "Mono"]


def make_arrays(n_batches=0):
    rng = np.random.default_rng(0)
    arrays = vars(calibration_without_pairs(rng.gamma(4, 250, (4, 12)), np.arange(1.0, 5), np.array([1e3, 1e6])))
    batches = {"batches": np.array(["a", "b", "c"])[:n_batches], "batch_shift": rng.normal(size=(n_batches, 12))}
    return PlatformCalibration(**{**arrays, **batches, "repeatability": np.full(12, 0.5), "n_donors": 5})


@pytest.mark.parametrize("n_batches", [0, 3])
def test_tables_contain_the_arrays_by_name(n_batches):
    arrays = make_arrays(n_batches)
    calibration = Calibration.from_arrays(arrays, GENES, TYPES)
    np.testing.assert_array_equal(calibration.genes["shift_sd"], arrays.shift_sd)
    np.testing.assert_array_equal(calibration.cell_types["cell_size_umi"], arrays.cell_size_umi)
    assert list(calibration.genes.index) == list(calibration.batch_shift.index) == list(GENES)
    assert list(calibration.cell_types.index) == TYPES
    assert list(calibration.batch_shift) == list("abc")[:n_batches]
    for name, value in vars(calibration.to_arrays()).items():
        np.testing.assert_array_equal(value, getattr(arrays, name), err_msg=name)


@pytest.mark.parametrize("n_batches", [0, 3])
def test_draws_equal_those_of_the_arrays(n_batches):
    arrays = make_arrays(n_batches)
    calibration = Calibration.from_arrays(arrays, GENES, TYPES)
    drawn = [source.draw_compositions(20, 0.2, np.random.default_rng(0)) for source in (arrays, calibration)]
    np.testing.assert_array_equal(*drawn)
    bulk = [source.draw_bulk(drawn[0], np.random.default_rng(1)) for source in (arrays, calibration)]
    np.testing.assert_array_equal(*bulk)


def test_stored_calibration_can_be_read_back(mdata):
    calibration = Calibration.from_arrays(make_arrays(), GENES, TYPES)
    with pytest.raises(
        KeyError, match=r"Expected a calibration in mdata.uns\['scdeconv'\].*Call pp.calibrate\(mdata\)"
    ):
        Calibration.of(mdata)
    mdata.uns["scdeconv"] = {"calibration": calibration.to_dict()}
    assert vars(Calibration.of(mdata)) == vars(calibration)


def test_representation_shows_the_sizes():
    calibration = Calibration.from_arrays(make_arrays(), GENES, TYPES)
    assert repr(calibration) == "Calibration: 5 donors, 12 genes, 4 cell types; median repeatability 0.50"
