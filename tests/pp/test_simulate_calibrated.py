"""Bulk simulated from a calibration."""

from __future__ import annotations

import numpy as np
import pytest

from scdeconv import pp
from scdeconv._stats.calibration.platform_calibration import INFLATION
from scdeconv._stats.expression import log_shares
from scdeconv.pp import Calibration


@pytest.fixture
def calibrated(pairs):
    pp.calibrate(pairs)
    return pairs


def fractions_of(mdata):
    return mdata["simulated"].obsm["measured_fractions"]


def test_missing_calibration_is_refused(pairs):
    with pytest.raises(KeyError, match=r"Expected a calibration .*Call pp.calibrate\(mdata\) first"):
        pp.simulate(pairs, 10, calibration=True)
    assert "simulated" not in pairs.mod


def test_simulated_bulk_depends_on_the_seed_only(calibrated):
    drawn = []
    for seed in (3, 3, 4):
        pp.simulate(calibrated, 30, calibration=True, seed=seed)
        drawn.append((calibrated["simulated"].X.copy(), fractions_of(calibrated).copy()))
    np.testing.assert_array_equal(drawn[0][0], drawn[1][0])
    assert drawn[0][1].equals(drawn[1][1])
    assert (drawn[0][0] != drawn[2][0]).mean() > 0.9
    assert not drawn[0][1].equals(drawn[2][1])


def test_fractions_sum_to_one(calibrated):
    pp.simulate(calibrated, 50, calibration=True)
    fractions = fractions_of(calibrated)
    assert fractions.shape == (50, 4)
    assert list(fractions.columns) == list(calibrated["profiles"].obs["cell_type"])
    assert (fractions >= 0).all(axis=None)
    np.testing.assert_allclose(fractions.sum(axis=1), 1)


def test_simulated_bulk_has_genes_and_unit_of_bulk(calibrated):
    pp.simulate(calibrated, 200, calibration=True)
    simulated = calibrated["simulated"]
    assert simulated.X.dtype == np.float32
    assert list(simulated.var_names) == list(calibrated["bulk"].var_names)
    assert set(simulated.obs["donor"]) == {"calibration"}
    np.testing.assert_array_equal(simulated.X, np.rint(simulated.X))
    totals, real = np.log(simulated.X.sum(axis=1)), np.log(calibrated["bulk"].X.sum(axis=1))
    assert np.median(totals) == pytest.approx(np.median(real), abs=0.5)
    assert real.min() - 2.5 < np.quantile(totals, 0.01) < np.quantile(totals, 0.99) < real.max() + 2.5


def test_mean_log_expression_is_the_calibrated_centre(calibrated):
    pp.simulate(calibrated, 4000, calibration=True)
    mean = log_shares(calibrated["simulated"].X.astype(float)).mean(axis=0)
    centre = Calibration.of(calibrated).centre
    assert np.corrcoef(mean, centre)[0, 1] > 0.98
    difference = mean - centre
    assert np.abs(difference - difference.mean()).mean() < 0.1
    assert abs(difference.mean()) < 0.2
    # the reference alone has a large error
    profiles = log_shares(Calibration.of(calibrated).profiles.mean(axis=0, keepdims=True))[0]
    assert np.corrcoef(profiles, centre)[0, 1] < 0.9


def test_compositions_are_wider_than_those_of_donors(calibrated):
    pp.simulate(calibrated, 5000, calibration=True)
    logs = np.log(fractions_of(calibrated).to_numpy()[:4500])
    ratios = logs - logs.mean(axis=1, keepdims=True)
    calibration = Calibration.of(calibrated)
    np.testing.assert_allclose(ratios.mean(axis=0), calibration.cell_types["mean_log_ratio"], atol=0.05)
    np.testing.assert_allclose(np.cov(ratios.T), INFLATION * calibration.covariance, atol=0.1)
    # the tenth by Scaden's rule leaves types out
    assert (fractions_of(calibrated).to_numpy()[4500:] == 0).any()


def test_expression_follows_the_composition(calibrated):
    """The fraction of each type correlates with the expression of its markers in bulk."""
    pp.simulate(calibrated, 1000, calibration=True)
    log = log_shares(calibrated["simulated"].X.astype(float))
    profiles = Calibration.of(calibrated).profiles
    shares = profiles / profiles.sum(axis=1, keepdims=True)
    for row, name in enumerate(fractions_of(calibrated)):
        rival = np.delete(shares, row, axis=0).max(axis=0)
        markers = np.argsort(shares[row] / rival)[-5:]
        fraction = np.log(fractions_of(calibrated)[name] + 1e-3)
        assert np.corrcoef(log[:, markers].mean(axis=1), fraction)[0, 1] > 0.3, name


def test_given_calibration_equals_the_stored_one(calibrated, pairs):
    calibration = pp.calibrate(pairs, batch_key="batch")
    pp.simulate(pairs, 20, calibration=calibration, seed=1)
    given = pairs["simulated"].X.copy()
    pp.simulate(pairs, 20, calibration=True, seed=1)
    np.testing.assert_array_equal(pairs["simulated"].X, given)


def test_given_calibration_is_stored(pairs):
    calibration = pp.calibrate(pairs)
    del pairs.uns["scdeconv"]["calibration"], pairs.uns["scdeconv"]["calibrate"]
    pp.simulate(pairs, 10, calibration=calibration)
    np.testing.assert_array_equal(Calibration.of(pairs).centre, calibration.centre)
    assert pairs.uns["scdeconv"]["simulate"] == {"n_samples": 10, "calibration": True, "seed": 0}


def test_bad_number_is_refused(calibrated):
    with pytest.raises(ValueError, match="Expected n_samples"):
        pp.simulate(calibrated, 0, calibration=True)


def test_bulk_of_a_reference_alone_can_be_simulated(reference_inputs):
    """Without pairs: no shift, and wide uncertainty."""
    mdata = pp.pair(**reference_inputs)
    mdata["bulk"].obsm["measured_fractions"].iloc[:] = np.nan
    assert pp.calibrate(mdata).n_donors == 0
    pp.simulate(mdata, 100, calibration=True)
    assert np.isfinite(mdata["simulated"].X).all()
    np.testing.assert_allclose(fractions_of(mdata).sum(axis=1), 1)


def test_hold_out_simulates_from_its_new_calibration(calibrated):
    pp.simulate(calibrated, 25, calibration=True, seed=6)
    donor = pp.paired_donors(calibrated)[3]
    rest, _ = pp.hold_out(calibrated, [donor])
    found = rest["simulated"].X.copy()
    assert (found != calibrated["simulated"].X).any()
    assert Calibration.of(rest).n_donors == 9
    by_hand, _ = pp.hold_out(calibrated, [donor])
    by_hand.uns["scdeconv"].clear()
    pp.calibrate(by_hand)
    pp.simulate(by_hand, 25, calibration=True, seed=6)
    np.testing.assert_array_equal(found, by_hand["simulated"].X)


def test_held_out_donors_do_not_reach_simulated_bulk(cohort):
    results = []
    for factor in (1, 500):
        cells, bulk = (adata.copy() for adata in cohort)
        donor = sorted(set(cells.obs["donor"]) & set(bulk.obs["donor"]))[2]
        bulk.X[(bulk.obs["donor"] == donor).to_numpy(), 100:] *= factor
        mdata = pp.pair(cells, bulk)
        pp.calibrate(mdata)
        pp.simulate(mdata, 15, calibration=True)
        results.append((mdata["simulated"].X, pp.hold_out(mdata, [donor])[0]["simulated"].X))
    (before, rest), (changed, rest_again) = results
    assert (before != changed).any()
    np.testing.assert_array_equal(rest, rest_again)
