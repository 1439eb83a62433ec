"""Columns coverage and width of tl.benchmark: each donor's intervals come from the errors on the others."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData

from scdeconv import datasets, pp, tl
from scdeconv._data.modalities import make_mudata
from scdeconv.models import HeldOut

SUMMARIES = ["all entries", "mean of types"]


def slow(mdata, predicted):
    """Share inside and mean width per cell type, one sample and one type at a time."""
    bulk = mdata["bulk"]
    measured = bulk.obsm["measured_fractions"].dropna()
    donors = bulk.obs["donor"][measured.index].astype(str)
    inside, width = ({name: [] for name in measured.columns} for _ in range(2))
    for sample in measured.index:
        others = [name for name in measured.index if donors[name] != donors[sample]]
        held_out = HeldOut(
            measured.loc[others].to_numpy(), predicted.loc[others].to_numpy(), donors[others].to_numpy(dtype=str)
        )
        lower, upper = held_out.intervals(predicted.loc[[sample]].to_numpy(), 0.9)
        for k, name in enumerate(measured.columns):
            inside[name].append(lower[0, k] <= measured.loc[sample, name] <= upper[0, k])
            width[name].append(upper[0, k] - lower[0, k])
    return tuple({name: np.mean(values) for name, values in column.items()} for column in (inside, width))


def check(table, mdata, method, cv):
    inside, width = slow(mdata, tl.cross_validate(mdata, method, cv=cv))
    rows = table[table["method"] == method].set_index("cell_type")
    for column, expected in (("coverage", inside), ("width", width)):
        assert rows[column].drop(SUMMARIES).to_dict() == pytest.approx(expected)
        for summary in SUMMARIES:
            assert rows.loc[summary, column] == pytest.approx(np.mean(list(expected.values())))


@pytest.mark.parametrize("cv", ["leave-one-donor-out", 3])
def test_coverage_and_width_equal_a_loop(pairs, cv):
    table = tl.benchmark(pairs, ["nnls", "ridge"], cv=cv)
    for method in ("nnls", "ridge", "mean_composition"):
        check(table, pairs, method, cv)
    assert table["coverage"].between(0, 1).all()
    assert table["width"].between(0, 1, inclusive="neither").all()


def test_coverage_and_width_with_repeats_equal_a_loop(pairs):
    bulk = pairs["bulk"]
    rows = np.repeat(np.arange(bulk.n_obs), 1 + np.arange(bulk.n_obs) % 3)
    names = [f"sample{i}" for i in range(len(rows))]
    counts = np.random.default_rng(0).poisson(0.7 * bulk.X[rows]).astype(np.int32)
    more = AnnData(counts, obs=bulk.obs.iloc[rows].set_axis(names), var=bulk.var)
    more.obsm["measured_fractions"] = bulk.obsm["measured_fractions"].iloc[rows].set_axis(names)
    mdata = make_mudata({**pairs.mod, "bulk": more})
    check(tl.benchmark(mdata, ["nnls"], cv=2), mdata, "nnls", 2)


def test_seeds_have_separate_intervals(pairs):
    quick = {"method": "residual_dnn", "max_epochs": 1, "hidden": (4,), "n_members": 1, "simulate": None}
    table = tl.benchmark(pairs, {"quick": quick}, cv=2, seeds=[0, 1])
    widths = table[(table["method"] == "quick") & (table["cell_type"] == "all entries")].set_index("seed")["width"]
    assert widths[0] != widths[1]


@pytest.mark.parametrize(("n_donors", "known"), [(9, False), (10, True)])
def test_intervals_need_nine_other_donors(n_donors, known):
    cohort = datasets.paired_cohort(n_donors=n_donors, n_genes=300, cells_per_donor=(50, 100))
    table = tl.benchmark(pp.pair(*cohort), ["nnls"], cv=2)
    assert (table[["coverage", "width"]].notna() == known).all(axis=None)
    assert table[["n", "rmse", "mae"]].notna().all(axis=None)
