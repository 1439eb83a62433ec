"""BSEQ-sc: the basis against plain loops, and shares of cells from types of different size."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import pp, tl
from scdeconv._data.modalities import make_mudata
from scdeconv._data.reference import Reference
from scdeconv.models import BSEQsc
from scdeconv.models.reference.bseqsc import average_donors

PARITY = Path(__file__).parents[4] / "shared" / "parity"
SIZES = np.array([1.0, 4.0, 10.0])


def plain_average(cells, totals, types, donors, n_types):
    """The steps of the original one after the other."""
    scaled = cells / totals[:, None]
    for k in range(n_types):
        for donor in set(donors):
            mine = (types == k) & (donors == donor)
            if mine.any():
                scaled[mine] *= totals[mine].mean()
    profiles = np.zeros((n_types, cells.shape[1]))
    for k in range(n_types):
        means = [
            scaled[(types == k) & (donors == d)].mean(axis=0)
            for d in set(donors)
            if ((types == k) & (donors == d)).any()
        ]
        profiles[k] = np.mean(means, axis=0) if means else 0
    return profiles


@pytest.fixture
def data():
    """Donors with different numbers of cells, and noise-free bulk: sums of the given numbers of cells per type."""
    rng = np.random.default_rng(0)
    profiles = rng.dirichlet(np.full(60, 0.4), 3) * SIZES[:, None] * 1000
    types, donors = rng.integers(0, 3, 400), rng.choice(5, 400, p=[0.5, 0.2, 0.1, 0.1, 0.1])
    cells = AnnData(sp.csr_matrix(rng.poisson(profiles[types] * rng.lognormal(0, 0.2, (400, 1)))))
    cells.obs = pd.DataFrame(
        {"cell_type": [f"T{k}" for k in types], "donor": [f"d{d}" for d in donors]}, cells.obs_names
    )
    shares = rng.dirichlet(np.ones(3), 8)
    bulk = AnnData(
        500 * shares @ profiles, pd.DataFrame({"donor": [f"b{i}" for i in range(8)]}, [f"s{i}" for i in range(8)])
    )
    cells.var_names = bulk.var_names = [f"G{i}" for i in range(60)]
    with pytest.warns(UserWarning, match="paired donors"):
        return pp.pair(cells, bulk), shares


@pytest.mark.parametrize("as_format", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_basis_equals_plain_loops(as_format):
    """Bulk lacks three genes that count in the totals; the only donor with the last type is held out."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.uniform(1, 4, (90, 1)), (90, 15)).astype(float)
    types, donors = rng.integers(0, 3, 90), rng.integers(0, 4, 90)
    types[(types == 1) & (donors == 2)] = 0
    donors[:5], types[:5] = 9, 3
    genes = [f"G{i}" for i in range(15)]
    obs = pd.DataFrame({"cell_type": [f"T{k}" for k in types], "donor": [f"d{d}" for d in donors]})
    cells = AnnData(as_format(counts), obs.set_index(obs.index.astype(str)), pd.DataFrame(index=genes))
    bulk = AnnData(rng.poisson(50, (3, 12)), var=pd.DataFrame(index=genes[:12]))
    with pytest.warns(UserWarning, match="paired donors"):
        mdata = pp.pair(cells, bulk)
    found = average_donors(*Reference(mdata, mdata["bulk"].var_names).mean_cells_by_donor(without=["d9"]))
    rest = donors != 9
    expected = plain_average(counts[rest, :12], counts[rest].sum(axis=1), types[rest], donors[rest], 4)
    np.testing.assert_allclose(found, expected)
    assert (found[3] == 0).all()


def test_donors_with_few_cells_have_equal_weight():
    means = np.array([[[10.0, 0.0]], [[0.0, 30.0]], [[0.0, 0.0]]])
    np.testing.assert_allclose(average_donors(means, np.array([[9.0], [1.0], [0.0]])), [[5, 15]])


def test_noise_free_fractions_of_cells_are_recovered(data):
    mdata, shares = data
    model = BSEQsc(mdata)
    model.train()
    assert model.fraction_kind == "cell"
    found = model.predict(mdata["bulk"]).to_numpy()
    np.testing.assert_allclose(found, shares, atol=0.02)
    rna = shares * SIZES / (shares * SIZES).sum(axis=1, keepdims=True)
    assert np.abs(rna - shares).max() > 0.2
    assert (model.quality(mdata["bulk"])["correlation"] > 0.99).all()


def test_given_markers_are_the_genes(data):
    mdata, _ = data
    mdata["bulk"].var["selected"] = np.arange(60) % 2 == 0
    assert list(tl.train(mdata, "bseqsc").genes_) == [f"G{i}" for i in range(0, 60, 2)]


def test_held_out_donors_are_not_in_the_basis(cohort):
    mdata = pp.pair(*cohort)
    mdata["bulk"].var["selected"] = np.arange(240) % 6 == 0
    donor = mdata["bulk"].obs["donor"].iloc[0]
    train_part, own = pp.hold_out(mdata, [donor])
    model, expected = BSEQsc(mdata), BSEQsc(train_part)
    model.train()
    expected.train(held_out=False)
    rows = model.held_out_.donors == donor
    np.testing.assert_allclose(model.held_out_.predicted[rows], expected.predict(own), atol=1e-6)
    assert np.abs(model.held_out_.predicted[rows] - model.predict(own).to_numpy()).max() > 1e-4


def test_type_without_remaining_cells_is_zero(cohort):
    cells, bulk = (adata.copy() for adata in cohort)
    donor = cells.obs["donor"].astype(str)
    only = next(d for d in donor[cells.obs["cell_type"] == "Mast cell"] if d in set(bulk.obs["donor"]))
    cells = cells[(donor == only) | (cells.obs["cell_type"] != "Mast cell").to_numpy()].copy()
    train_part, held_out = pp.hold_out(pp.pair(cells, bulk), [only])
    predicted = tl.train(train_part, "bseqsc").predict(held_out)
    assert predicted.notna().all(axis=None)
    assert predicted["Mast cell"].to_list() == pytest.approx([0.0], abs=1e-6)


def test_cells_are_needed(pairs):
    profiles_only = make_mudata({name: pairs[name] for name in ("bulk", "profiles")})
    with pytest.raises(
        ValueError, match=r"Expected cells for method 'bseqsc', found profiles .*pp.pair\(cells, bulk\)"
    ):
        BSEQsc.setup_mudata(profiles_only)


@pytest.mark.parametrize("name", ["finotello", "hoek"])
def test_blood_estimates_agree_with_flow_cytometry(name):
    if not (PARITY / name).exists():
        pytest.skip(f"no data in {PARITY / name}")
    cells, bulk = (anndata.read_h5ad(PARITY / name / f"{part}.h5ad") for part in ("sc", "bulk"))
    truth = pd.read_csv(PARITY / name / "truth.csv", index_col=0)
    with pytest.warns(UserWarning, match="paired donors"):
        mdata = pp.pair(cells, bulk)
    estimate = tl.train(mdata, "bseqsc").predict(mdata["bulk"]).loc[truth.index, truth.columns]
    assert np.corrcoef(estimate.to_numpy().ravel(), truth.to_numpy().ravel())[0, 1] > 0.4
