"""Paired data as a method reads them, compared with pp.hold_out and explicit loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import pp
from scdeconv._data.modalities import make_mudata
from scdeconv._data.reference import states
from scdeconv.models import PairedData


def read(mdata):
    return PairedData(mdata, mdata["bulk"].var_names)


def donors_of(mdata, kind):
    """One paired donor, three of them, or one with bulk only."""
    paired = pp.paired_donors(mdata)
    only = sorted(set(mdata["bulk"].obs["donor"]) - set(paired))
    return {"one": paired[3:4], "three": paired[2:8:2], "bulk only": only[:1]}[kind]


def repeated(mdata, n_repeats=3):
    """The data with further samples of the second donor."""
    bulk = mdata["bulk"]
    rows = np.r_[np.arange(bulk.n_obs), [1] * n_repeats]
    names = pd.Index([f"sample{i}" for i in range(len(rows))])
    more = AnnData(bulk.X[rows].copy(), obs=bulk.obs.iloc[rows].set_index(names), var=bulk.var)
    more.X[bulk.n_obs :] += 1
    more.obsm["measured_fractions"] = bulk.obsm["measured_fractions"].iloc[rows].set_index(names)
    return make_mudata({**mdata.mod, "bulk": more})


def assert_equals_held_out(mdata, without):
    data, rest = read(mdata), read(pp.hold_out(mdata, without)[0])
    np.testing.assert_array_equal(data.bulk(without), rest.bulk())
    for found, expected in zip(data.pairs(without), rest.pairs(), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert data.cell_types == rest.cell_types
    np.testing.assert_array_equal(data.profiles(without), rest.profiles())
    np.testing.assert_array_equal(data.cell_sizes(without), rest.cell_sizes())
    np.testing.assert_array_equal(data.pseudobulk(without), rest.pseudobulk())
    assert list(data.samples.index[data.kept(without)]) == list(rest.samples.index)
    assert list(data.samples.index[data.paired(without)]) == list(rest.samples.index[rest.paired()])


@pytest.mark.parametrize("kind", ["one", "three", "bulk only"])
def test_data_without_donors_equal_hold_out(pairs, kind):
    without = donors_of(pairs, kind)
    data = read(pairs)
    assert len(data.bulk(without)) < len(data.bulk())
    assert_equals_held_out(pairs, without)


def test_given_profiles_without_donors_equal_hold_out(reference_inputs):
    mdata = pp.pair(**reference_inputs)
    assert_equals_held_out(mdata, ["D1"])
    np.testing.assert_array_equal(read(mdata).profiles(["D1"]), read(mdata).profiles())


def test_repeated_samples_are_excluded_with_their_donor(pairs):
    mdata = repeated(pairs)
    donor = mdata["bulk"].obs["donor"].iloc[1]
    data = read(mdata)
    assert (data.pairs().donors == donor).sum() == 4
    assert donor not in data.pairs([donor]).donors
    assert len(data.bulk()) - len(data.bulk([donor])) == 4
    assert_equals_held_out(mdata, [donor])


def test_without_excluded_donors_everything_is_read(pairs):
    data, bulk = read(pairs), pairs["bulk"]
    measured = bulk.obsm["measured_fractions"].dropna()
    assert data.kept().all()
    np.testing.assert_array_equal(data.bulk(), bulk.X)
    np.testing.assert_array_equal(data.pairs().expression, bulk[measured.index].X)
    np.testing.assert_array_equal(data.pairs().fractions, measured)
    assert data.pairs().donors.tolist() == bulk.obs.loc[measured.index, "donor"].tolist()


def test_samples_with_nan_fractions_are_unpaired(pairs):
    before = read(pairs).pairs()
    row = np.flatnonzero(read(pairs).paired())[2]
    pairs["bulk"].obsm["measured_fractions"].iloc[row] = np.nan
    data = read(pairs)
    assert not data.paired()[row]
    for found, all_rows in zip(data.pairs(), before, strict=True):
        np.testing.assert_array_equal(found, np.delete(all_rows, 2, axis=0))
    assert len(data.bulk()) == pairs["bulk"].n_obs


def test_genes_are_read_in_the_order_given(pairs):
    genes = pairs["bulk"].var_names[[7, 3, 100]]
    data, whole = PairedData(pairs, genes), read(pairs)
    for found, expected in (
        (data.bulk(), whole.bulk()),
        (data.pairs().expression, whole.pairs().expression),
        (data.profiles(), whole.profiles()),
    ):
        np.testing.assert_array_equal(found, expected[:, [7, 3, 100]])
    np.testing.assert_array_equal(data.cell_sizes(), whole.cell_sizes())


def test_batch_key_is_that_of_the_calibration(pairs):
    assert read(pairs).batch_key is None
    pp.calibrate(pairs)
    assert read(pairs).batch_key is None
    pp.calibrate(pairs, batch_key="batch")
    assert read(pairs).batch_key == "batch"
    assert read(pp.hold_out(pairs, donors_of(pairs, "one"))[0]).batch_key == "batch"


def test_unit_is_that_of_the_bulk(cohort):
    cells, bulk = cohort
    assert read(pp.pair(cells, bulk)).is_counts
    tpm = bulk.copy()
    tpm.X = 1e6 * bulk.X / bulk.X.sum(axis=1, keepdims=True)
    data = read(pp.pair(cells, tpm))
    assert data.bulk_unit == "TPM"
    assert not data.is_counts


# cells


@pytest.fixture
def with_states(pairs):
    """Two random states of each type."""
    obs = pairs["sc"].obs
    obs["state"] = obs["cell_type"].astype(str) + np.random.default_rng(0).choice([" a", " b"], len(obs))
    return pairs


@pytest.mark.parametrize("kind", [None, "one", "three"])
def test_cell_states_equal_an_explicit_loop(with_states, kind):
    without = [] if kind is None else donors_of(with_states, kind)
    cells, genes = with_states["sc"], with_states["bulk"].var_names[5:60]
    data = PairedData(with_states, genes)
    counts, totals, types = data.cell_states("state", without)
    names = sorted(cells.obs["state"].unique())
    assert len(counts) == len(totals) == len(types) == len(names) == 8
    dense = cells[:, genes].X.toarray()
    for row, name in enumerate(names):
        expected, total = np.zeros(len(genes)), 0.0
        for cell in range(cells.n_obs):
            if cells.obs["state"].iloc[cell] == name and cells.obs["donor"].iloc[cell] not in without:
                expected += dense[cell]
                total += cells.obs["total"].iloc[cell]
        np.testing.assert_allclose(counts[row], expected)
        assert totals[row] == pytest.approx(total)
        assert data.cell_types[types[row]] == name[:-2]


def test_cell_states_are_read_once(with_states, monkeypatch):
    calls, sum_pairs = [], states.sum_pairs
    monkeypatch.setattr(states, "sum_pairs", lambda *args: calls.append(1) or sum_pairs(*args))
    data = read(with_states)
    for donor in pp.paired_donors(with_states)[:3]:
        data.cell_states("state", [donor])
    assert len(calls) == 1


@pytest.mark.parametrize("kind", [None, "one", "three"])
def test_mean_cells_by_donor_equal_an_explicit_loop(pairs, kind):
    """Each cell is scaled to its share of counts times the mean total of its type in its donor, then averaged."""
    without = [] if kind is None else donors_of(pairs, kind)
    cells, genes = pairs["sc"], pairs["bulk"].var_names[5:60]
    data = PairedData(pairs, genes)
    means, n_cells = data.reference.mean_cells_by_donor(without)
    donors = [name for name in pairs["sc"].obs["donor"].astype(str).unique() if name not in without]
    assert means.shape == (len(donors), len(data.cell_types), len(genes))
    dense, total = cells[:, genes].X.toarray(), cells.obs["total"].to_numpy()
    for i, donor in enumerate(donors):
        for k, cell_type in enumerate(data.cell_types):
            rows = [
                row
                for row in range(cells.n_obs)
                if cells.obs["donor"].iloc[row] == donor and cells.obs["cell_type"].iloc[row] == cell_type
            ]
            expected = np.zeros(len(genes))
            for row in rows:
                expected += dense[row] / total[row] * np.mean(total[rows]) / len(rows)
            np.testing.assert_allclose(means[i, k], expected)
            assert n_cells[i, k] == len(rows)


def test_mean_cells_by_donor_need_cells(reference_inputs):
    data = read(pp.pair(**reference_inputs))
    with pytest.raises(ValueError, match="Expected cells, found profiles only"):
        data.reference.mean_cells_by_donor()


def test_pseudobulk_is_the_sum_of_the_donors_cells(pairs):
    mdata = repeated(pairs)
    data, cells = read(mdata), mdata["sc"]
    donors = data.pairs().donors
    assert len(donors) > len(set(donors))
    expected = [cells.X[(cells.obs["donor"] == donor).to_numpy()].toarray().sum(axis=0) for donor in donors]
    np.testing.assert_array_equal(data.pseudobulk(), expected)


def test_pseudobulk_without_cells_is_expected_from_fractions(pairs):
    without_cells = make_mudata({name: pairs[name] for name in ("bulk", "profiles")})
    data = read(without_cells)
    np.testing.assert_allclose(data.pseudobulk(), data.pairs().fractions @ data.profiles())
    # a donor without cells beside donors with cells
    fewer = make_mudata({**pairs.mod, "pseudobulk": pairs["pseudobulk"][1:].copy()})
    found, donors = read(fewer).pseudobulk(), data.pairs().donors
    missing = donors == pairs["pseudobulk"].obs["donor"].iloc[0]
    assert missing.sum() == 1
    np.testing.assert_allclose(found[missing], data.pseudobulk()[missing])
    np.testing.assert_array_equal(found[~missing], read(pairs).pseudobulk()[~missing])
