"""MuSiC against its original, written out line by line and sample by sample, and against its outputs."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.optimize import nnls

from scdeconv import pp, tl
from scdeconv._stats.least_squares import solve_weighted
from scdeconv.models import MuSiC
from scdeconv.models.reference import music as _music
from scdeconv.models.reference._music_reference import (
    SubjectStatistics,
    choose_markers,
    given_markers,
    group_members,
    subject_statistics,
)
from scdeconv.models.reference.music import explained_variance, fit_weighted, variance_of_fractions

PARITY = Path(__file__).resolve().parents[4] / "shared" / "parity"
TYPES = ["A1", "A2", "B", "C"]
SIZES = {"A1": 1500, "A2": 1000, "B": 500, "C": 3000}
GROUPS = {"A": ["A1", "A2"]}


# the original, R/construct.R and R/analysis.R of xuranw/MuSiC @ f21fe67, in loops


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


def original_fit(y, design, size, sigma, *, quirk=True, covariance=False):
    """One sample; ``y`` without zeros, ``design`` genes × types, ``sigma`` types × genes (× types)."""

    def spread(x):
        if covariance:
            return np.array([(x * size) @ sigma[:, g] @ (x * size) for g in range(len(y))])
        return np.array([((x * size) ** 2 * sigma[:, g]).sum() for g in range(len(y))])

    def weighted(w, root):
        x = nnls(design * root[:, None], y * root)[0]
        r = y - design @ x
        return x, (root * r if quirk else r)

    x = start = nnls(design, y)[0]
    r, p, rounds = y - design @ x, None, 0
    while True:
        w = 1 / (1e-4 + r**2 + spread(start if covariance else x))
        x, r = weighted(w, np.sqrt(w))
        new = x / x.sum()
        if p is not None and np.abs(new - p).sum() < 0.01:
            break
        p, rounds = new, rounds + 1
    residual = y - design @ x
    variance = np.diag(np.linalg.inv(design.T @ np.diag(w) @ design)) * (w * residual**2).mean() / x.sum() ** 2
    r_squared = 1 - residual.var(ddof=1) / y.var(ddof=1)
    return {"nnls": start, "x": x, "w": w, "rounds": rounds, "variance": variance, "r_squared": r_squared}


def toy(seed=0, n_types=5, n_genes=80, n_samples=12, n_subjects=6):
    """Statistics over subjects and bulk with zeros and a platform shift."""
    rng = np.random.default_rng(seed)
    abundance = rng.gamma(0.5, 1, (n_types, n_genes)) * np.exp(rng.normal(0, 0.4, (n_subjects, n_types, n_genes)))
    totals = abundance.sum(axis=2)
    statistics = subject_statistics(abundance, totals, rng.uniform(1000, 4000, (n_subjects, n_types)))
    bulk = rng.dirichlet(np.ones(n_types), n_samples) @ statistics.design * np.exp(rng.normal(0, 0.8, n_genes))
    bulk = rng.poisson(0.02 * bulk).astype(float)
    return statistics, 100 * bulk / bulk.sum(axis=1, keepdims=True)


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
    with pytest.warns(UserWarning, match="Only 0 paired donors"):
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
    """Bulk that the model does not fit, with zeros."""
    rng = np.random.default_rng(2)
    clean = mixtures(cells, make_shares())
    clean.X = rng.poisson(clean.X / 2000 * np.exp(rng.normal(0, 0.7, clean.n_vars))).astype(float)
    assert (clean.X == 0).mean() > 0.05
    return clean


@pytest.mark.parametrize("arguments", [{}, {"weighted_residuals": False}, {"covariance": True}])
def test_noise_free_mixtures_are_recovered_as_shares_of_cells(cells, bulk, arguments):
    """The types differ sixfold in RNA, so shares of RNA would be far off."""
    model = train(cells, bulk, **arguments)
    pd.testing.assert_frame_equal(model.predict(bulk), make_shares(), rtol=0, atol=1e-6)
    assert model.fraction_kind == "cell"
    np.testing.assert_allclose(model.quality(bulk)["r_squared"], 1)


def test_weights_of_genes_equal_the_closed_form_on_three_genes(monkeypatch):
    """One type, so least squares is a ratio of sums: first round from plain least squares, second from the first."""
    d, b, sigma, size = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 3.0]), np.array([0.5, 0.0, 1e-3]), 2.0
    statistics = SubjectStatistics(d[None] / size, sigma[None], np.array([size]))
    x = (d @ b) / (d @ d)
    for quirk in (True, False):
        first = 1 / (1e-4 + (b - d * x) ** 2 + (x * size) ** 2 * sigma)
        y = (first * d) @ b / ((first * d) @ d)
        r = (b - d * y) * (np.sqrt(first) if quirk else 1)
        second = 1 / (1e-4 + r**2 + (y * size) ** 2 * sigma)
        for rounds, weights in enumerate((first, second)):
            monkeypatch.setattr(_music, "MAX_ITERATIONS", rounds)
            fit = fit_weighted(b[None], statistics, weighted_residuals=quirk)
            np.testing.assert_allclose(fit.gene_weights[0], weights, rtol=1e-10)
            np.testing.assert_allclose(fit.weights[0, 0], (weights * d) @ b / ((weights * d) @ d), rtol=1e-10)


@pytest.mark.parametrize("quirk", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_all_samples_at_once_equal_the_original_one_by_one(seed, quirk):
    statistics, bulk = toy(seed)
    assert (bulk == 0).any()
    fit = fit_weighted(bulk, statistics, weighted_residuals=quirk)
    plain = solve_weighted(statistics.design, bulk, (bulk > 0).astype(float))
    r_squared = explained_variance(bulk, statistics.design, fit)
    variance = variance_of_fractions(bulk, statistics.design, fit)
    assert fit.converged.all()
    assert len(set(fit.iterations)) > 1
    for row, y in enumerate(bulk):
        used = y > 0
        design, sigma = statistics.design.T[used], statistics.variance[:, used]
        oracle = original_fit(y[used], design, statistics.size, sigma, quirk=quirk)
        np.testing.assert_allclose(plain[row], oracle["nnls"], atol=1e-7 * oracle["nnls"].max())
        np.testing.assert_allclose(fit.weights[row], oracle["x"], atol=1e-7 * oracle["x"].max())
        np.testing.assert_allclose(fit.gene_weights[row, used], oracle["w"], rtol=1e-5)
        assert (fit.gene_weights[row, ~used] == 0).all()
        assert fit.iterations[row] == oracle["rounds"]
        np.testing.assert_allclose(r_squared[row], oracle["r_squared"], rtol=1e-7)
        np.testing.assert_allclose(variance[row], oracle["variance"], rtol=1e-5)


def test_sample_that_does_not_settle_is_reported(monkeypatch):
    statistics, bulk = toy()
    monkeypatch.setattr(_music, "MAX_ITERATIONS", 4)
    fit = fit_weighted(bulk, statistics)
    assert 0 < fit.converged.sum() < len(bulk)
    assert (fit.iterations[~fit.converged] == 4).all()


def test_statistics_over_subjects_equal_the_loops(cells, bulk):
    """A donor without a type is left out for that type, not counted as zero."""
    absent = ((cells.obs["donor"] == "d2") & (cells.obs["cell_type"] == "B")).to_numpy()
    fewer = cells[~absent].copy()
    statistics = train(fewer, bulk).types_
    abundance, size = statistics_by_loops(fewer)
    assert np.isnan(size[2, 2])
    np.testing.assert_allclose(statistics.mean, np.nanmean(abundance, axis=1), rtol=1e-10)
    np.testing.assert_allclose(statistics.variance, np.nanvar(abundance, axis=1, ddof=1), rtol=1e-8)
    np.testing.assert_allclose(statistics.size, np.nanmean(size, axis=1), rtol=1e-10)


def test_totals_are_of_all_genes_of_the_cells_and_shares_of_bulk_of_the_common_ones(cells, bulk):
    """As in the original: the library size of a cell counts genes that bulk does not have."""
    model = train(cells, bulk[:, 100:].copy())
    abundance, size = statistics_by_loops(cells)
    np.testing.assert_allclose(model.types_.mean, np.nanmean(abundance, axis=1)[:, 100:], rtol=1e-10)
    np.testing.assert_allclose(model.types_.size, np.nanmean(size, axis=1), rtol=1e-10)
    np.testing.assert_allclose(model._bulk(bulk.X[:, 100:]).sum(axis=1), 100)


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
def test_covariance_between_types_equals_the_original(cells, noisy, lacking):
    absent = ((cells.obs["donor"] == "d2") & (cells.obs["cell_type"] == "B")).to_numpy() & lacking
    fewer = cells[~absent].copy()
    model = train(fewer, noisy, covariance=True)
    abundance, _ = statistics_by_loops(fewer)
    sigma = covariance_by_loops(abundance)
    np.testing.assert_allclose(model.types_.variance, sigma, atol=1e-12)
    predicted = model.predict(noisy)
    for name, y in zip(noisy.obs_names, model._bulk(noisy.X), strict=True):
        used = y > 0
        oracle = original_fit(
            y[used], model.types_.design.T[used], model.types_.size, sigma.transpose(0, 2, 1)[:, used], covariance=True
        )
        np.testing.assert_allclose(predicted.loc[name], oracle["x"] / oracle["x"].sum(), atol=1e-6)
    assert not np.allclose(predicted, train(fewer, noisy).predict(noisy), atol=1e-3)


def test_standard_error_is_the_closed_form_of_orthogonal_types():
    """Types without common genes do not disturb each other: noise / (d' W d) / (sum x)^2."""
    design = np.array([[1.0, 2.0, 3.0, 0, 0, 0], [0, 0, 0, 2.0, 2.0, 1.0]])
    b = np.array([[1.1, 1.9, 3.2, 4.1, 3.8, 2.0]])
    statistics = SubjectStatistics(design, np.full_like(design, 0.01), np.ones(2))
    fit = fit_weighted(b, statistics)
    w, x = fit.gene_weights[0], fit.weights[0]
    noise = (w * (b[0] - x @ design) ** 2).mean()
    expected = noise / (design**2 @ w) / x.sum() ** 2
    np.testing.assert_allclose(variance_of_fractions(b, design, fit)[0], expected, rtol=1e-8)


def test_standard_errors_and_quality_are_tables_and_similar_types_are_the_less_certain(cells, noisy):
    model = train(cells, noisy)
    errors, adata = model.standard_error(noisy), noisy.copy()
    assert list(errors.columns) == TYPES
    assert (errors["A1"] > errors["B"] * SIZES["B"] / SIZES["A1"]).all()
    tl.predict(adata, model)
    quality = adata.obsm["fractions_quality"]
    assert list(quality.columns) == ["r_squared", "iterations", "converged"]
    for name, y in zip(noisy.obs_names, model._bulk(noisy.X), strict=True):
        used, types = y > 0, model.types_
        oracle = original_fit(y[used], types.design.T[used], types.size, types.variance[:, used])
        np.testing.assert_allclose(errors.loc[name] ** 2, oracle["variance"], rtol=1e-5)
        np.testing.assert_allclose(quality.loc[name, "r_squared"], oracle["r_squared"], rtol=1e-6)
        assert quality.loc[name, "iterations"] == oracle["rounds"]
    assert quality["converged"].all()


def test_standard_error_of_types_that_cannot_be_told_apart_is_huge_and_of_an_unknown_type_infinite():
    statistics, bulk = toy()
    design = statistics.design.copy()
    design[1], design[4] = design[0], 0
    variance = variance_of_fractions(
        bulk, design, fit_weighted(bulk, SubjectStatistics(design, 0 * design, np.ones(5)))
    )
    assert (variance[:, :2] > 1e3 * variance[:, 2:4].max()).all()
    assert np.isinf(variance[:, 4]).all()


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_sample_without_any_signal_is_uniform_and_nothing_is_nan(cells, bulk, groups):
    model = train(cells, bulk[:, :150].copy(), groups=groups)
    empty = bulk.copy()
    empty.X[0, :150] = 0
    np.testing.assert_allclose(model.predict(empty).iloc[0], 1 / 4)
    assert model.predict(empty).notna().all(axis=None)
    assert model.quality(empty).iloc[0].tolist() == [0, 1, True]
    if groups is None:
        assert np.isinf(model.standard_error(empty).iloc[0]).all()
        assert np.isfinite(model.standard_error(empty).iloc[1:]).all(axis=None)


def test_genes_without_expression_in_the_sample_or_in_any_cell_are_not_used(cells, noisy):
    """A gene that no cell expresses does not count towards the total of bulk."""
    silent = cells.copy()
    silent.X[:, :20] = 0
    model = train(silent, noisy)
    changed = noisy.copy()
    changed.X[:, :20] = 1e6
    pd.testing.assert_frame_equal(model.predict(changed), model.predict(noisy), atol=1e-9)
    np.testing.assert_array_equal(model._bulk(noisy.X)[:, :20], 0)


def test_depth_of_a_sample_and_unit_of_given_sizes_change_nothing(cells, noisy):
    expected = train(cells, noisy).predict(noisy)
    deeper = noisy.copy()
    deeper.X = noisy.X * 1e5
    pd.testing.assert_frame_equal(train(cells, noisy).predict(deeper), expected, atol=1e-9)
    _, size = statistics_by_loops(cells)
    own = dict(zip(TYPES, np.nanmean(size, axis=1) / 7, strict=True))
    pd.testing.assert_frame_equal(train(cells, noisy, cell_sizes=own).predict(noisy), expected, atol=1e-6)


def test_given_sizes_turn_rna_into_cells(cells, bulk):
    """Where sizes of all types are one, the fractions are shares of RNA."""
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


def original_tree(y, types, groups, members, markers, bulk_of_group):
    """One sample, in loops. ``types`` and ``groups`` are tuples of design, size, variance."""

    def fit(values, statistics, genes):
        design, size, sigma = statistics
        return original_fit(values[genes], design[:, genes].T, size, sigma[:, genes])["x"]

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


def by_tree(model, bulk, bulk_of_group):
    parts = [(level.design, level.size, level.variance) for level in (model.types_, model.groups_)]
    rows = [original_tree(y, *parts, model.members_, model.markers_, bulk_of_group) for y in model._bulk(bulk.X)]
    return pd.DataFrame(rows, bulk.obs_names, TYPES)


@pytest.mark.parametrize(("consistent", "bulk_of_group"), [(False, as_published), (True, what_others_leave)])
@pytest.mark.parametrize("markers", [None, {"A": [f"G{i}" for i in range(60)]}])
def test_tree_equals_its_steps_in_loops(cells, noisy, markers, consistent, bulk_of_group):
    model = train(cells, noisy, groups=GROUPS, group_markers=markers, consistent_units=consistent)
    pd.testing.assert_frame_equal(model.predict(noisy), by_tree(model, noisy, bulk_of_group), atol=1e-6)


def test_tree_recovers_two_similar_types(cells):
    shares = make_shares(40)
    bulk = mixtures(make_cells(), shares)
    rng = np.random.default_rng(3)
    bulk.X = rng.poisson(bulk.X * np.exp(rng.normal(0, 0.1, bulk.n_vars))).astype(float)
    predicted = train(cells, bulk, groups=GROUPS, consistent_units=True).predict(bulk)
    assert np.abs(predicted - shares).max(axis=None) < 0.1
    inside, truth = (table["A1"] / (table["A1"] + table["A2"]) for table in (predicted, shares))
    assert np.corrcoef(inside, truth)[0, 1] > 0.97


def test_recursion_of_the_original_hardly_reads_the_bulk_within_a_group_and_consistent_units_do(cells):
    """Shares of bulk are added to counts per cell, so all samples get about the same."""
    shares = make_shares(40)
    bulk = mixtures(cells, shares)
    truth = shares["A1"] / (shares["A1"] + shares["A2"])
    slope = {}
    for consistent in (False, True):
        predicted = train(cells, bulk, groups=GROUPS, consistent_units=consistent).predict(bulk)
        slope[consistent] = np.polyfit(truth, predicted["A1"] / (predicted["A1"] + predicted["A2"]), 1)[0]
    assert abs(slope[False]) < 0.1
    assert slope[True] > 0.9


def test_statistics_of_a_group_are_those_of_its_cells_pooled(cells, noisy):
    model = train(cells, noisy, groups=GROUPS)
    assert model.members_.tolist() == [[True, True, False, False], [False, False, True, False], [False] * 3 + [True]]
    pooled = cells.copy()
    pooled.obs["cell_type"] = pooled.obs["cell_type"].replace("A2", "A1")
    abundance, size = statistics_by_loops(pooled)
    np.testing.assert_allclose(model.groups_.mean[0], abundance[0].mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(model.groups_.variance[0], abundance[0].var(axis=0, ddof=1), rtol=1e-8)
    np.testing.assert_allclose(model.groups_.size[0], size[0].mean())


def test_markers_within_a_group_are_chosen_where_its_types_differ_beyond_subjects(cells, noisy):
    markers = train(cells, noisy, groups=GROUPS).markers_
    assert not markers[1:].any()
    assert markers[0].sum() <= 100
    assert markers[0, :60].mean() > 0.75


def test_markers_are_the_sure_differences_and_half_of_the_genes_at_most():
    """Two of eight genes for each type: not the noisy gene 0, not gene 5 that happens not to vary, none without gain."""
    difference = np.array([8.0, 6, 4, 2, -1, 0.1, 0, 0])
    mean, variance = np.vstack([10 + difference, np.full(8, 10.0), np.full(8, 99.0)]), np.ones((3, 8))
    variance[:, 0], variance[:, 5] = 400, 0
    markers = choose_markers(mean, variance, group_members({"x": ["a", "b"]}, ["a", "b", "c"]))
    assert [np.flatnonzero(row).tolist() for row in markers] == [[1, 2, 4], []]
    assert not choose_markers(mean, variance, np.eye(3, dtype=bool)).any()


def test_names_of_markers_are_found_whatever_their_versions():
    genes = pd.Index([f"ENSG{i:011d}.{i}" for i in range(8)])
    mask = given_markers({"x": ["ENSG00000000003", "ENSG00000000005.7", "ELSE"]}, {"x": ["a", "b"]}, genes, 2)
    assert np.flatnonzero(mask[0]).tolist() == [3, 5]


@pytest.mark.parametrize(
    "arguments", [{"groups": GROUPS}, {"covariance": True, "groups": GROUPS}, {"covariance": True}]
)
def test_saved_model_gives_the_same_with_groups_and_covariances(cells, noisy, tmp_path, arguments):
    model = train(cells, noisy, **arguments)
    model.save(tmp_path / "model")
    loaded = MuSiC.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(noisy), model.predict(noisy), check_exact=True)
    pd.testing.assert_frame_equal(loaded.quality(noisy), model.quality(noisy), check_exact=True)
    assert loaded.parameters_ == model.parameters_


# training


def test_type_that_loses_its_second_donor_is_given_nothing_while_that_donor_is_held_out(pairs):
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


def test_held_out_donor_is_predicted_by_the_other_donors_alone(pairs):
    model = MuSiC(pairs)
    model.train()
    donor = pp.paired_donors(pairs)[3]
    rest, own = pp.hold_out(pairs, [donor])
    other = MuSiC(rest)
    other.train(held_out=False)
    rows = model.held_out_.donors == donor
    np.testing.assert_allclose(model.held_out_.predicted[rows], other.predict(own), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell_sizes": {"A1": 1, "A2": 1, "B": 1}}, r"one positive number for each of .* for 'C'"),
        ({"cell_sizes": {"A1": 1, "A2": 1, "B": 1, "C": np.nan}}, r"one positive number for each of .* for 'C'"),
        ({"groups": {"A": ["A1", "A3"]}}, r"groups of cell types out of .*found 'A3'"),
        ({"groups": {"A": ["A1", "A2"], "D": ["A2", "B"]}}, r"every cell type in one group, found 'A2' in more"),
        ({"groups": {"A": []}}, r"cell types in every group, found none in 'A'"),
        ({"groups": GROUPS, "group_markers": {"Z": ["G1"]}}, r"group_markers of groups out of \['A'\], found 'Z'"),
        (
            {"groups": GROUPS, "group_markers": {}},
            r"at least 2 markers of group 'A' among the model's 300 genes, found 0",
        ),
        (
            {"groups": GROUPS, "group_markers": {"A": [f"G{i}" for i in range(299)]}},
            r"at least 3 genes that are no group_markers.*found 1\. Give fewer",
        ),
        ({"group_markers": {"A": ["G1"]}}, r"Expected groups beside group_markers, found None"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_computing(cells, noisy, arguments, message, monkeypatch):
    monkeypatch.setattr(_music, "subject_statistics", lambda *args, **kwargs: pytest.fail("computed"))
    with pytest.raises(ValueError, match=message):
        train(cells, noisy, **arguments)


def test_types_of_a_single_donor_are_refused_by_name(cells, noisy):
    donor, cell_type = cells.obs["donor"], cells.obs["cell_type"]
    fewer = cells[((donor == "d0") | ~cell_type.isin(["A2", "C"])).to_numpy()].copy()
    message = r"cells of at least 2 donors of every type, .*found fewer of 'A2', 'C'\. Merge .*or use method='nnls'"
    with pytest.raises(ValueError, match=message):
        train(fewer, noisy)


def test_covariance_without_two_complete_donors_is_refused(cells, noisy):
    donor, cell_type = cells.obs["donor"], cells.obs["cell_type"]
    gone = (donor.isin(["d0", "d1", "d2"]) & (cell_type == "B")) | (donor.isin(["d3", "d4"]) & (cell_type == "C"))
    with pytest.raises(ValueError, match=r"2 donors with cells of all types .*found 1\. Use covariance=False"):
        train(cells[~gone.to_numpy()].copy(), noisy, covariance=True)


def test_what_needs_a_trained_model_or_one_without_groups_says_so(cells, noisy):
    untrained = MuSiC(pair(cells, noisy))
    for function in (untrained.quality, untrained.standard_error):
        with pytest.raises(RuntimeError, match=r"found an untrained MuSiC. Call .train\(\) first"):
            function(noisy)
    with pytest.raises(ValueError, match="Expected a model without groups, found groups"):
        train(cells, noisy, groups=GROUPS).standard_error(noisy)


# the original program


@pytest.fixture(scope="module", params=["finotello", "hoek"])
def published(request):
    """Cells, bulk and the two outputs of the original."""
    folder = PARITY / request.param
    if not folder.exists():
        pytest.skip(f"outputs of the original are not at {folder}")
    cells, bulk = (anndata.read_h5ad(folder / f"{name}.h5ad") for name in ("sc", "bulk"))
    model = train(cells, bulk)
    outputs = [pd.read_csv(folder / "original" / f"{name}.csv", index_col=0) for name in ("music", "music_nnls")]
    return model, bulk, *(table.loc[bulk.obs_names, model.cell_types_] for table in outputs)


def test_weighted_fractions_equal_those_of_the_original_program(published):
    model, bulk, weighted, _ = published
    assert np.abs(model.predict(bulk) - weighted).max(axis=None) < 1e-6


def test_plain_least_squares_equals_that_of_the_original_program(published):
    model, bulk, _, plain = published
    expression = model._bulk(model._aligned(bulk, None))
    weights = solve_weighted(model.types_.design, expression, (expression > 0).astype(float))
    assert np.abs(weights / weights.sum(axis=1, keepdims=True) - plain).max(axis=None) < 1e-6


@pytest.mark.slow
def test_thousand_samples_of_twenty_types_converge():
    statistics, bulk = toy(n_types=20, n_genes=6000, n_samples=1000)
    fit = fit_weighted(bulk, statistics)
    assert fit.converged.mean() > 0.99
