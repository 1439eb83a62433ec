"""MuSiC against its original, written out line by line and sample by sample, and against its outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import pp, tl
from scdeconv.models import MuSiC

PARITY = Path(__file__).resolve().parents[4] / "shared" / "parity"
TYPES = ["A1", "A2", "B", "C"]
SIZES = {"A1": 1500, "A2": 1000, "B": 500, "C": 3000}
GROUPS = {"A": ["A1", "A2"]}


# the statistics of the original, R/construct.R of xuranw/MuSiC @ f21fe67, in loops


def statistics_by_loops(cells):
    """Subjects' relative abundances, types × subjects × genes (NaN: no cells), and sizes, types × subjects."""
    counts, donors = cells.X, sorted(set(cells.obs["donor"]))
    abundance, size = (
        np.full((len(TYPES), len(donors), counts.shape[1]), np.nan),
        np.full((len(TYPES), len(donors)), np.nan),
    )
    for k, cell_type in enumerate(TYPES):
        for j, donor in enumerate(donors):
            mine = counts[((cells.obs["cell_type"] == cell_type) & (cells.obs["donor"] == donor)).to_numpy()]
            if len(mine):
                abundance[k, j], size[k, j] = mine.sum(axis=0) / mine.sum(), mine.sum() / len(mine)
    return abundance, size


def make_cells(seed=0, *, n_genes=300, n_donors=6, n_cells=20, sd=0.3):
    """Cells of four types of different size, two of them alike up to 60 genes; donors differ in every gene."""
    rng = np.random.default_rng(seed)
    base = {name: rng.gamma(0.5, 1, n_genes) for name in ("A", "B", "C")}
    base |= {name: base["A"] * np.exp(rng.normal(0, 0.1, n_genes)) for name in ("A1", "A2")}
    base["A1"][:30] *= 4
    base["A2"][30:60] *= 4
    counts, labels = [], []
    for donor in range(n_donors):
        for name in TYPES:
            profile = base[name] * np.exp(rng.normal(0, sd, n_genes))
            counts.append(rng.poisson(SIZES[name] * profile / profile.sum(), (n_cells, n_genes)))
            labels += [(name, f"d{donor}")] * n_cells
    obs = pd.DataFrame(labels, [f"c{i}" for i in range(len(labels))], ["cell_type", "donor"])
    cells = AnnData(np.vstack(counts).astype(float), obs=obs)
    cells.var_names = [f"G{i}" for i in range(n_genes)]
    return cells


def make_shares(n=12, seed=1):
    values = np.random.default_rng(seed).dirichlet(np.ones(len(TYPES)), n)
    values[0] = [0, 0.25, 0.75, 0]
    return pd.DataFrame(values, [f"s{i}" for i in range(n)], TYPES)


def mixtures(cells, shares):
    """Noise-free bulk of the subjects' mean cells."""
    abundance, size = statistics_by_loops(cells)
    design = np.nanmean(abundance, axis=1) * np.nanmean(size, axis=1)[:, None]
    return AnnData(300 * shares.to_numpy() @ design, obs=shares[[]], var=cells.var)


def pair(cells, bulk):
    with pytest.warns(UserWarning, match="paired donors to train on pairs, found 0"):
        return pp.pair(cells, bulk)


def train(cells, bulk, **arguments):
    return tl.train(pair(cells, bulk), "music", **arguments)


@pytest.fixture(scope="module")
def cells():
    return make_cells()


@pytest.fixture(scope="module")
def bulk(cells):
    return mixtures(cells, make_shares())


@pytest.fixture(scope="module")
def noisy(cells):
    """Bulk with zeros that deviates from the model."""
    rng = np.random.default_rng(2)
    clean = mixtures(cells, make_shares())
    clean.X = rng.poisson(clean.X / 2000 * np.exp(rng.normal(0, 0.7, clean.n_vars))).astype(float)
    assert (clean.X == 0).mean() > 0.05
    return clean


@pytest.mark.parametrize("arguments", [{}, {"weighted_residuals": False}, {"covariance": True}])
def test_noise_free_fractions_of_cells_are_recovered(cells, bulk, arguments):
    """RNA content differs sixfold between types, so RNA fractions would have a large error."""
    model = train(cells, bulk, **arguments)
    pd.testing.assert_frame_equal(model.predict(bulk), make_shares(), rtol=0, atol=1e-6)
    assert model.fraction_kind == "cell"
    np.testing.assert_allclose(model.quality(bulk)["r_squared"], 1)


def test_statistics_over_subjects_equal_the_loops(cells, bulk):
    """A donor without a type is missing for that type instead of zero."""
    absent = ((cells.obs["donor"] == "d2") & (cells.obs["cell_type"] == "B")).to_numpy()
    fewer = cells[~absent].copy()
    statistics = train(fewer, bulk).state_.types
    abundance, size = statistics_by_loops(fewer)
    assert np.isnan(size[2, 2])
    np.testing.assert_allclose(statistics.mean, np.nanmean(abundance, axis=1), rtol=1e-10)
    np.testing.assert_allclose(statistics.variance, np.nanvar(abundance, axis=1, ddof=1), rtol=1e-8)
    np.testing.assert_allclose(statistics.size, np.nanmean(size, axis=1), rtol=1e-10)


def test_library_sizes_count_genes_outside_the_bulk(cells, bulk):
    """As in the original: the library size of a cell counts genes that bulk does not have."""
    model = train(cells, bulk[:, 100:].copy())
    abundance, size = statistics_by_loops(cells)
    np.testing.assert_allclose(model.state_.types.mean, np.nanmean(abundance, axis=1)[:, 100:], rtol=1e-10)
    np.testing.assert_allclose(model.state_.types.size, np.nanmean(size, axis=1), rtol=1e-10)
    np.testing.assert_allclose(model.state_.scaled(bulk.X[:, 100:]).sum(axis=1), 100)


def covariance_by_loops(abundance):
    """R's cov over subjects; a type that a subject lacks is compared over the subjects with all types."""
    complete = ~np.isnan(abundance[:, :, 0]).any(axis=0)
    lacking = np.isnan(abundance[:, :, 0]).any(axis=1)
    result = np.empty((len(abundance), len(abundance), abundance.shape[2]))
    for g in range(abundance.shape[2]):
        every, some = np.cov(abundance[:, :, g]), np.cov(abundance[:, complete, g])
        every[lacking], every[:, lacking] = some[lacking], some[:, lacking]
        result[:, :, g] = every
    return result


@pytest.mark.parametrize("lacking", [False, True])
def test_covariance_between_types_equals_the_original(cells, noisy, lacking, music_by_loops):
    absent = ((cells.obs["donor"] == "d2") & (cells.obs["cell_type"] == "B")).to_numpy() & lacking
    fewer = cells[~absent].copy()
    model = train(fewer, noisy, covariance=True)
    abundance, _ = statistics_by_loops(fewer)
    sigma = covariance_by_loops(abundance)
    np.testing.assert_allclose(model.state_.types.variance, sigma, atol=1e-12)
    predicted = model.predict(noisy)
    for name, y in zip(noisy.obs_names, model.state_.scaled(noisy.X), strict=True):
        used = y > 0
        oracle = music_by_loops(
            y[used],
            model.state_.types.design.T[used],
            model.state_.types.size,
            sigma.transpose(0, 2, 1)[:, used],
            covariance=True,
        )
        np.testing.assert_allclose(predicted.loc[name], oracle["x"] / oracle["x"].sum(), atol=1e-6)
    assert not np.allclose(predicted, train(fewer, noisy).predict(noisy), atol=1e-3)


def test_standard_errors_and_quality_equal_the_original(cells, noisy, music_by_loops):
    model = train(cells, noisy)
    errors, adata = model.standard_error(noisy), noisy.copy()
    assert list(errors.columns) == TYPES
    assert (errors["A1"] > errors["B"] * SIZES["B"] / SIZES["A1"]).all()
    tl.predict(adata, model)
    quality = adata.obsm["fractions_quality"]
    assert list(quality.columns) == ["r_squared", "iterations", "converged", "few_reads"]
    for name, y in zip(noisy.obs_names, model.state_.scaled(noisy.X), strict=True):
        used, types = y > 0, model.state_.types
        oracle = music_by_loops(y[used], types.design.T[used], types.size, types.variance[:, used])
        np.testing.assert_allclose(errors.loc[name] ** 2, oracle["variance"], rtol=1e-5)
        np.testing.assert_allclose(quality.loc[name, "r_squared"], oracle["r_squared"], rtol=1e-6)
        assert quality.loc[name, "iterations"] == oracle["rounds"]
    assert quality["converged"].all()


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_empty_sample_is_nan(cells, bulk, groups):
    model = train(cells, bulk[:, :150].copy(), groups=groups)
    empty = bulk.copy()
    empty.X[0, :150] = 0
    assert model.predict(empty).iloc[0].isna().all()
    assert model.predict(empty).iloc[1:].notna().all(axis=None)
    assert model.quality(empty)["r_squared"].isna().iloc[0]
    if groups is None:
        assert not np.isfinite(model.standard_error(empty).iloc[0]).any()
        assert np.isfinite(model.standard_error(empty).iloc[1:]).all(axis=None)


def test_unexpressed_genes_are_not_used(cells, noisy):
    """A gene that no cell expresses does not count towards the total of bulk."""
    silent = cells.copy()
    silent.X[:, :20] = 0
    model = train(silent, noisy)
    changed = noisy.copy()
    changed.X[:, :20] = 1e6
    pd.testing.assert_frame_equal(model.predict(changed), model.predict(noisy), atol=1e-9)
    np.testing.assert_array_equal(model.state_.scaled(noisy.X)[:, :20], 0)


def test_depth_and_size_unit_do_not_matter(cells, noisy):
    expected = train(cells, noisy).predict(noisy)
    deeper = noisy.copy()
    deeper.X = noisy.X * 1e5
    pd.testing.assert_frame_equal(train(cells, noisy).predict(deeper), expected, atol=1e-9)
    _, size = statistics_by_loops(cells)
    own = dict(zip(TYPES, np.nanmean(size, axis=1) / 7, strict=True))
    pd.testing.assert_frame_equal(train(cells, noisy, cell_sizes=own).predict(noisy), expected, atol=1e-6)


def test_given_sizes_convert_rna_to_cells(cells, bulk):
    """With all sizes one, fractions are RNA fractions."""
    model = train(cells, bulk, cell_sizes=dict.fromkeys(TYPES, 1.0))
    _, size = statistics_by_loops(cells)
    rna = make_shares() * np.nanmean(size, axis=1)
    pd.testing.assert_frame_equal(model.predict(bulk), rna.div(rna.sum(axis=1), axis=0), atol=1e-6)


def test_all_genes_are_used_unless_some_were_selected(cells, noisy):
    mdata = pair(cells, noisy)
    assert len(tl.train(mdata, "music").genes_) == 300
    pp.select_genes(mdata, 100)
    model = tl.train(mdata, "music")
    assert list(model.genes_) == list(noisy.var_names[mdata["bulk"].var["selected"]])


# the tree


def original_tree(music_by_loops, y, types, groups, members, markers, bulk_of_group):
    """One sample, in loops. ``types`` and ``groups`` are tuples of design, size, variance."""

    def fit(values, statistics, genes):
        design, size, sigma = statistics
        return music_by_loops(values[genes], design[:, genes].T, size, sigma[:, genes])["x"]

    outside = (y > 0) & ~markers.any(axis=0)
    x = fit(y, groups, outside)
    result = np.zeros(members.shape[1])
    for j, mine in enumerate(members):
        if mine.sum() == 1:
            result[mine] = x[j] / x.sum()
        elif x[j] > 0:
            part = bulk_of_group(y, groups[0], x, j)
            inside = fit(part, tuple(s[mine] for s in types), markers[j] & (y > 0) & (part > 0))
            result[mine] = x[j] / x.sum() * inside / inside.sum()
    return result


def what_others_leave(y, design, x, j):
    return y - sum(x[i] * design[i] for i in range(len(x)) if i != j)


def as_published(y, design, x, j):
    p = x / x.sum()
    return 100 * (design[j] * p[j] + (y / 100 - p @ design) * p[j])


def by_tree(model, bulk, bulk_of_group, music_by_loops):
    parts = [
        (level.design, level.size, level.variance) for level in (model.state_.types, model.state_.groups.statistics)
    ]
    groups = model.state_.groups
    rows = [
        original_tree(music_by_loops, y, *parts, groups.members, groups.markers, bulk_of_group)
        for y in model.state_.scaled(bulk.X)
    ]
    return pd.DataFrame(rows, bulk.obs_names, TYPES)


@pytest.mark.parametrize(("consistent", "bulk_of_group"), [(False, as_published), (True, what_others_leave)])
@pytest.mark.parametrize("markers", [None, {"A": [f"G{i}" for i in range(60)]}])
def test_tree_equals_its_steps_in_loops(cells, noisy, markers, consistent, bulk_of_group, music_by_loops):
    model = train(cells, noisy, groups=GROUPS, group_markers=markers, consistent_units=consistent)
    pd.testing.assert_frame_equal(model.predict(noisy), by_tree(model, noisy, bulk_of_group, music_by_loops), atol=1e-6)


def test_tree_recovers_two_similar_types(cells):
    shares = make_shares(40)
    bulk = mixtures(make_cells(), shares)
    rng = np.random.default_rng(3)
    bulk.X = rng.poisson(bulk.X * np.exp(rng.normal(0, 0.1, bulk.n_vars))).astype(float)
    predicted = train(cells, bulk, groups=GROUPS, consistent_units=True).predict(bulk)
    assert np.abs(predicted - shares).max(axis=None) < 0.1
    inside, truth = (table["A1"] / (table["A1"] + table["A2"]) for table in (predicted, shares))
    assert np.corrcoef(inside, truth)[0, 1] > 0.97


def test_only_consistent_units_read_bulk_within_groups(cells):
    """Bulk shares are added to counts per cell, so all samples have similar estimates."""
    shares = make_shares(40)
    bulk = mixtures(cells, shares)
    truth = shares["A1"] / (shares["A1"] + shares["A2"])
    slope = {}
    for consistent in (False, True):
        predicted = train(cells, bulk, groups=GROUPS, consistent_units=consistent).predict(bulk)
        slope[consistent] = np.polyfit(truth, predicted["A1"] / (predicted["A1"] + predicted["A2"]), 1)[0]
    assert abs(slope[False]) < 0.1
    assert slope[True] > 0.9


def test_group_statistics_are_those_of_pooled_cells(cells, noisy):
    model = train(cells, noisy, groups=GROUPS)
    assert model.state_.groups.members.tolist() == [
        [True, True, False, False],
        [False, False, True, False],
        [False] * 3 + [True],
    ]
    pooled = cells.copy()
    pooled.obs["cell_type"] = pooled.obs["cell_type"].replace("A2", "A1")
    abundance, size = statistics_by_loops(pooled)
    np.testing.assert_allclose(model.state_.groups.statistics.mean[0], abundance[0].mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(model.state_.groups.statistics.variance[0], abundance[0].var(axis=0, ddof=1), rtol=1e-8)
    np.testing.assert_allclose(model.state_.groups.statistics.size[0], size[0].mean())


def test_group_markers_differ_beyond_subjects(cells, noisy):
    markers = train(cells, noisy, groups=GROUPS).state_.groups.markers
    assert not markers[1:].any()
    assert markers[0].sum() <= 100
    assert markers[0, :60].mean() > 0.75


@pytest.mark.parametrize(
    "arguments", [{"groups": GROUPS}, {"covariance": True, "groups": GROUPS}, {"covariance": True}]
)
def test_saved_model_gives_the_same_predictions(cells, noisy, tmp_path, arguments):
    model = train(cells, noisy, **arguments)
    model.save(tmp_path / "model")
    loaded = MuSiC.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(noisy), model.predict(noisy), check_exact=True)
    pd.testing.assert_frame_equal(loaded.quality(noisy), model.quality(noisy), check_exact=True)
    assert loaded.parameters_ == model.parameters_


# training


def test_type_of_one_remaining_donor_is_zero(pairs):
    donors = pp.paired_donors(pairs)
    cells = pairs["sc"]
    name = cells.obs["cell_type"].cat.categories[0]
    rare = (cells.obs["cell_type"] == name).to_numpy() & ~cells.obs["donor"].isin(donors[:2]).to_numpy()
    work = pp.pair(cells[~rare].copy(), pairs["bulk"])
    model = MuSiC(work)
    model.train()
    column = list(model.cell_types_).index(name)
    held_out = np.isin(model.held_out_.donors, donors[:2])
    assert (model.held_out_.predicted[held_out, column] == 0).all()
    assert (model.held_out_.predicted[~held_out, column] > 0).any()
    assert np.isfinite(model.held_out_.predicted).all()


def test_held_out_donor_is_predicted_from_the_others(pairs):
    model = MuSiC(pairs)
    model.train()
    donor = pp.paired_donors(pairs)[3]
    rest, own = pp.hold_out(pairs, [donor])
    other = MuSiC(rest)
    other.train(held_out=False)
    rows = model.held_out_.donors == donor
    np.testing.assert_allclose(model.held_out_.predicted[rows], other.predict(own), atol=1e-6)


def test_standard_error_needs_training_and_no_groups(cells, noisy):
    untrained = MuSiC(pair(cells, noisy))
    for function in (untrained.quality, untrained.standard_error):
        with pytest.raises(RuntimeError, match=r"found an untrained MuSiC. Call .train\(\) first"):
            function(noisy)
    with pytest.raises(ValueError, match="Expected a model with groups=None, found groups"):
        train(cells, noisy, groups=GROUPS).standard_error(noisy)
