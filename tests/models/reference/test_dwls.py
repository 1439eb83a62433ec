from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.optimize import minimize, nnls

from scdeconv import pp, tl
from scdeconv._stats.expression import to_shares
from scdeconv._stats.least_squares import normal_equations
from scdeconv._stats.rectangle import (
    MISSING,
    calibrate_residual,
    clear_markers,
    cluster_means,
    cluster_profiles,
    merge_unmarked,
    residual_share,
    share_constraints,
    shrink,
    solve_in_cone,
)
from scdeconv.models import DWLS
from scdeconv.models._base import normalise
from scdeconv.models.reference import dwls as _dwls
from scdeconv.models.reference.dwls import Halves, choose_caps, solve_dwls

TYPES = ["Alpha cell", "Beta cell", "Delta cell", "Duct cell", "Mast cell", "T cell"]
SIZES = np.array([3.0, 2.0, 1.0, 4.0, 1.5, 1.0])
OPTIONS = [{}, {"hierarchical": True}, {"unknown": True}, {"unknown": True, "hierarchical": True}]


def make_profiles(seed=0, n_genes=800, similar=0.3):
    """Shares of RNA of six types; the first two differ by this much (log), the others by markers of their own, too."""
    rng = np.random.default_rng(seed)
    own = rng.normal(0, 0.6, (len(TYPES), n_genes))
    marker = np.flatnonzero(rng.random(n_genes) < 0.2)
    own[rng.integers(0, len(TYPES), len(marker)), marker] += 2.5
    own[1] = own[0] + similar * rng.normal(size=n_genes)
    return to_shares(np.exp(rng.normal(0, 1.1, n_genes) + own))


def as_profiles(counts, names=TYPES):
    adata = AnnData(counts, obs=pd.DataFrame({"cell_type": list(names)}, index=list(names)))
    adata.var_names = [f"G{i}" for i in range(adata.n_vars)]
    return adata


def as_bulk(expression):
    bulk = AnnData(np.asarray(expression, dtype=float))
    bulk.obs_names = [f"s{i}" for i in range(len(expression))]
    bulk.var_names = [f"G{i}" for i in range(bulk.n_vars)]
    return bulk


def train(profiles, bulk, **options):
    with pytest.warns(UserWarning, match="no donor is paired|paired donors"):
        mdata = pp.pair(bulk=bulk, profiles=profiles)
    return tl.train(mdata, "dwls", **options)


@pytest.fixture(scope="module")
def profiles():
    return as_profiles(1000 * SIZES[:, None] * make_profiles())


@pytest.fixture(scope="module")
def fractions():
    values = np.random.default_rng(1).dirichlet(np.full(len(TYPES), 2.0), 6)
    values[0] = [0, 0.2, 0.3, 0.1, 0, 0.4]
    return pd.DataFrame(values, [f"s{i}" for i in range(6)], TYPES)


@pytest.fixture(scope="module")
def bulk(profiles, fractions):
    """Noise-free: 300 cells added up."""
    return as_bulk(300 * fractions.to_numpy() @ profiles.X)


# the algorithm


def noisy_mixtures(seed=0, n_samples=4, n_types=4, n_genes=60):
    rng = np.random.default_rng(seed)
    signature = rng.gamma(0.4, 1, (n_types, n_genes))
    weights = rng.dirichlet(np.ones(n_types), n_samples)
    return signature, weights @ signature * rng.lognormal(0, 0.4, (n_samples, n_genes)), weights


def plain_cap(signature, sample, start, halves):
    weights = 1 / (start @ signature) ** 2
    weights = weights / weights.min()
    variances = []
    for power in range(int(np.ceil(np.log2(weights[np.isfinite(weights)].max())))):
        root = np.sqrt(np.minimum(weights, 2.0**power))
        solutions = []
        for half in halves:
            found = np.linalg.lstsq((signature * root)[:, half].T, (sample * root)[half], rcond=None)[0]
            solutions.append(found * start.sum() / found.sum())
        variances.append(np.std(solutions, axis=0, ddof=1) ** 2)
    return 2.0 ** np.argmin(np.mean(variances, axis=1))


def plain_dwls(signature, sample, halves):
    """The original's loop for one sample, by other solvers; its change in percent of the first solution."""
    solution = nnls(signature.T, sample)[0]
    cap, unit = plain_cap(signature, sample, solution, halves), solution.sum() / 100
    for _ in range(1000):
        with np.errstate(divide="ignore"):
            weights = 1 / (solution @ signature) ** 2
        root = np.sqrt(np.minimum(weights / weights.min(), cap))
        new = nnls((signature * root).T, sample * root)[0]
        average = (new + 4 * solution) / 5
        change, solution = np.abs(average - solution).sum(), average
        if change <= 0.01 * unit:
            break
    return solution


def same_halves(n_genes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.permutation(n_genes)[: n_genes // 2] for _ in range(100)]


@pytest.fixture
def one_batch(monkeypatch):
    """Use 100 halves for all caps, as the original."""
    monkeypatch.setattr(_dwls, "MOST_HALVES", 100)


def test_caps_of_the_weights_are_those_of_a_plain_loop_over_samples_caps_and_halves(one_batch):
    signature, bulk, start = noisy_mixtures(n_samples=3)
    caps = choose_caps(signature, bulk, start)
    halves = same_halves(60)
    assert caps.tolist() == [plain_cap(signature, *pair, halves) for pair in zip(bulk, start, strict=True)]
    assert (caps > 1).any()


@pytest.mark.parametrize("seed", [0, 1])
def test_solutions_are_those_of_a_plain_loop_over_samples(seed, one_batch):
    signature, bulk, _ = noisy_mixtures(seed)
    solutions = solve_dwls(signature, bulk)
    halves = same_halves(60)
    np.testing.assert_allclose(solutions, [plain_dwls(signature, sample, halves) for sample in bulk], atol=1e-7)


def test_dropping_caps_early_changes_fractions_little(monkeypatch):
    signature, bulk, _ = noisy_mixtures(n_samples=6)
    fractions = to_shares(solve_dwls(signature, bulk))
    monkeypatch.setattr(_dwls, "MAX_Z", 1e9)
    monkeypatch.setattr(_dwls, "SAME_FRACTIONS", 0)
    np.testing.assert_allclose(to_shares(solve_dwls(signature, bulk)), fractions, atol=0.02)


def test_caps_do_not_depend_on_the_other_samples():
    signature, bulk, start = noisy_mixtures(n_samples=3)
    caps = choose_caps(signature, bulk, start)
    assert choose_caps(signature, bulk[[2]], start[[2]]).tolist() == [caps[2]]


def test_iterations_share_the_halves_of_the_genes():
    halves = Halves(60, seed=0)
    batches = list(halves)
    assert [len(batch) for batch in batches] == [100, 100, 200, 400, 800, 1600, 3200]
    assert all(first is second for first, second in zip(batches, halves, strict=True))
    assert (np.vstack(batches).sum(axis=1) == 30).all()


def test_genes_fitted_as_zero_get_the_capped_weight():
    signature = np.kron(np.eye(3), np.ones(20)) * np.linspace(1, 2, 60)
    bulk = np.array([[2.0, 1.0, 0.0]]) @ signature
    np.testing.assert_allclose(solve_dwls(signature, bulk), [[2, 1, 0]], atol=1e-12)


def test_rare_type_with_faint_markers_is_found_where_least_squares_see_the_large_genes():
    rng = np.random.default_rng(0)
    signature = np.hstack([rng.gamma(9, 100, (3, 20)), np.kron(np.eye(3), rng.gamma(4, 0.3, 30))])
    truth = np.tile([0.6, 0.37, 0.03], (30, 1))
    bulk = truth @ signature * rng.lognormal(0, 0.2, (30, 110))
    errors = [
        np.abs(to_shares(solution) - truth)[:, 2].mean()
        for solution in (solve_dwls(signature, bulk), np.array([nnls(signature.T, sample)[0] for sample in bulk]))
    ]
    assert errors[0] < errors[1] / 2


# the model


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_noise_free_mixtures_are_recovered_as_shares_of_cells(profiles, bulk, fractions, options):
    predicted = train(profiles, bulk, **options).predict(bulk)
    if "unknown" in options:
        np.testing.assert_allclose(predicted.pop("Unknown"), 0, atol=1e-6)
    pd.testing.assert_frame_equal(predicted, fractions, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_depth_and_the_other_samples_change_nothing(profiles, bulk, options):
    noisy = bulk.copy()
    noisy.X = bulk.X * np.random.default_rng(0).lognormal(0, 0.3, bulk.shape)
    model = train(profiles, noisy, **options)
    expected = model.predict(noisy)
    pd.testing.assert_frame_equal(model.predict(noisy[[2]].copy()), expected.iloc[[2]], atol=1e-8)
    noisy.X = noisy.X * 1e5
    pd.testing.assert_frame_equal(model.predict(noisy), expected, atol=1e-8)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_saved_model_predicts_the_same(profiles, bulk, options, tmp_path):
    noisy = bulk.copy()
    noisy.X = bulk.X * np.random.default_rng(0).lognormal(0, 0.3, bulk.shape)
    model = train(profiles, noisy, **options)
    model.save(tmp_path / "model")
    loaded = DWLS.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(noisy), model.predict(noisy), check_exact=True)
    assert loaded.parameters_ == {"unknown": False, "hierarchical": False} | options


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_sample_without_expression_gets_equal_fractions_and_no_warning(profiles, bulk, options):
    model = train(profiles, bulk, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expression = bulk[:, model.genes_].X[:2].copy()
        expression[0] = 0
        predicted = normalise(model._fractions(expression))
    np.testing.assert_allclose(predicted[0], 1 / len(model.cell_types_))
    np.testing.assert_allclose(predicted[1], model.predict(bulk).iloc[1], atol=1e-9)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_types_with_identical_profiles_share_their_weight(options):
    signature = make_profiles(similar=0.0)
    bulk = as_bulk(1e6 * np.random.default_rng(0).dirichlet(np.ones(6), 5) @ signature)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*paired donors|.*no donor is paired")
        predicted = tl.train(pp.pair(bulk=bulk, profiles=as_profiles(1e4 * signature)), "dwls", **options).predict(bulk)
    assert np.isfinite(predicted).all(axis=None)
    np.testing.assert_allclose(predicted["Alpha cell"], predicted["Beta cell"], atol=1e-3)


@pytest.mark.slow
def test_donors_are_held_out_for_intervals_with_clusters_and_not_with_unknown_content(pairs, cohort):
    pp.select_genes(pairs, 100)
    model = tl.train(pairs, "dwls", hierarchical=True)
    lower, upper = model.predict_interval(cohort[1], 0.8)
    assert (lower <= upper).all(axis=None)
    model = tl.train(pairs, "dwls", unknown=True)
    assert list(model.predict(cohort[1]).columns) == [*pairs["profiles"].obs["cell_type"], "Unknown"]
    with pytest.raises(ValueError, match="Expected a model that held donors out"):
        model.predict_interval(cohort[1])


def test_three_types_are_clusters_of_their_own(profiles, bulk, fractions):
    few, shares = profiles[[0, 2, 3]].copy(), fractions.iloc[:, [0, 2, 3]]
    shares = shares.div(shares.sum(axis=1), axis=0)
    mixtures = as_bulk(300 * shares.to_numpy() @ few.X)
    model = train(few, mixtures, hierarchical=True)
    assert model.summary_.endswith("3 clusters")
    pd.testing.assert_frame_equal(model.predict(mixtures), shares, atol=1e-6)


# clusters


def test_similar_types_are_clustered_and_the_others_are_not():
    members = cluster_profiles(make_profiles(similar=0.1))
    assert members.sum(axis=0).tolist() == [1] * 6
    assert len(members) in (3, 4, 5)
    assert (members[:, 0] == members[:, 1]).all()
    assert members[:, 2:].T @ members[:, 0] == pytest.approx(0)


def test_one_cluster_of_identical_profiles_is_no_cluster():
    assert cluster_profiles(np.full((5, 30), 1 / 30)).tolist() == np.eye(5).tolist()


def test_mean_of_a_cluster_counts_its_types_alike():
    members = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(cluster_means(np.array([[1.0], [3.0], [7.0]]), members), [[2], [7]])


@pytest.mark.parametrize("identical", [False, True])
def test_solution_in_a_cone_equals_that_of_a_general_solver(identical):
    rng = np.random.default_rng(0)
    signature, members = rng.gamma(1, 1, (6, 50)), np.kron(np.eye(3), np.ones(2))
    signature[1] = signature[0] * (1 if identical else rng.lognormal(0, 0.02, 50))
    bulk = rng.dirichlet(np.ones(6), 12) @ signature * rng.lognormal(0, 0.5, (12, 50))
    cone = share_constraints(rng.dirichlet(np.ones(3), 12), members, 0.05)
    gram, moment = normal_equations(signature, bulk, rng.gamma(1, 1, bulk.shape))
    found = solve_in_cone(gram, moment, cone)
    assert np.einsum("nck,nk->nc", cone, found).min() > -1e-8
    for square, linear, rows, solution in zip(gram, moment, cone, found, strict=True):

        def loss(x, square=square, linear=linear):
            return (x @ square @ x / 2 - linear @ x) / np.trace(square)

        constraint = {"type": "ineq", "fun": lambda x, rows=rows: rows @ x}
        oracle = minimize(loss, np.full(6, 0.1), constraints=constraint, options={"ftol": 1e-14, "maxiter": 500})
        assert loss(solution) <= loss(oracle.x) + 1e-9
        if not identical:
            np.testing.assert_allclose(solution, oracle.x, atol=1e-4)


def test_constraints_that_the_best_solution_fulfils_do_not_move_it():
    signature, bulk, weights = noisy_mixtures(n_samples=30)
    bulk = weights @ signature
    cone = share_constraints(weights + 0.04 * np.array([1, -1, 1, -1]), np.eye(4), 0.05)
    found = solve_in_cone(*normal_equations(signature, bulk, np.ones_like(bulk)), cone)
    np.testing.assert_allclose(found, weights, atol=1e-8)


@pytest.mark.slow
def test_clusters_help_with_the_sum_of_two_nearly_identical_types_on_noisy_bulk():
    """They have few markers each, and many in common."""
    errors = {"flat": [], "hierarchical": []}
    for seed in range(4):
        rng = np.random.default_rng(seed + 100)
        profiles, truth = make_profiles(seed, similar=0.05), rng.dirichlet(np.full(6, 1.5), 20)
        noise = np.exp(rng.normal(0, 0.6, (20, 800)) + rng.normal(0, 0.6, 800))
        bulk, reference = as_bulk(1e6 * (truth @ profiles) * noise), profiles * rng.lognormal(0, 0.1, profiles.shape)
        with pytest.warns(UserWarning, match="no donor is paired|paired donors"):
            mdata = pp.pair(bulk=bulk, profiles=as_profiles(1e4 * to_shares(reference)))
        pp.select_genes(mdata, 60)
        for name, squares in errors.items():
            predicted = tl.train(mdata, "dwls", hierarchical=name == "hierarchical").predict(bulk).to_numpy()
            squares.append((predicted[:, :2].sum(axis=1) - truth[:, :2].sum(axis=1)) ** 2)
    assert np.mean(errors["hierarchical"]) < 0.8 * np.mean(errors["flat"])


# unknown content


def unknown_of(seed, missing, shift):
    """Return the estimates for samples with 0, 10 and 30 % of a type that the reference lacks, 10 of each."""
    rng, profiles = np.random.default_rng(seed + 100), make_profiles(seed, 2000, similar=0.8)
    known = np.arange(6) != missing
    platform = np.exp(shift * (rng.normal(size=2000) - 0.3 * np.log(profiles.mean(axis=0) * 2000)))
    shares = np.zeros((30, 6))
    lacking = np.repeat([0, 0.1, 0.3], 10)
    shares[:, known] = (1 - lacking)[:, None] * np.tile(rng.dirichlet(np.full(5, 3.0), 10), (3, 1))
    shares[:, missing] = lacking
    bulk = as_bulk(rng.poisson(1e7 * to_shares(shares @ profiles * platform)))
    names = [name for name, there in zip(TYPES, known, strict=True) if there]
    model = train(as_profiles(1e4 * profiles[known], names), bulk, unknown=True)
    return model.predict(bulk)["Unknown"].to_numpy().reshape(3, 10)


@pytest.mark.parametrize("missing", [3, 4, 5])
def test_unknown_content_is_found_where_platforms_agree(missing):
    found = unknown_of(0, missing, shift=0)
    assert found[0].max() < 0.02
    assert (np.diff(found, axis=0) > 0.04).all()
    np.testing.assert_allclose(found.mean(axis=1), [0, 0.1, 0.3], atol=0.06)


@pytest.mark.slow
def test_unknown_content_is_found_on_average_over_cohorts_where_platforms_differ():
    """Genes differ by a factor of 1.6 (one standard deviation), high ones are damped."""
    found = np.stack([unknown_of(seed, 3 + seed % 3, shift=0.5) for seed in range(6)])
    assert (np.diff(found, axis=1) >= 0).all()
    np.testing.assert_allclose(found.mean(axis=(0, 2)), [0, 0.1, 0.3], atol=0.07)


def test_known_types_keep_their_ratios_beside_unknown_content(profiles, bulk):
    noisy = as_bulk(bulk.X * np.random.default_rng(0).lognormal(0, 0.3, bulk.shape))
    without = train(profiles[:5].copy(), noisy).predict(noisy)
    beside = train(profiles[:5].copy(), noisy, unknown=True).predict(noisy)
    share = beside.pop("Unknown").to_numpy()[:, None]
    pd.testing.assert_frame_equal(beside, without * (1 - share), atol=1e-9)
    assert share.max() > 0.05


def test_sample_without_any_marker_is_all_unknown(profiles, bulk):
    model = train(profiles, bulk, unknown=True)
    sample = np.where(model.markers_, 0, bulk.X[:1])
    np.testing.assert_allclose(model.predict(as_bulk(sample)).iloc[0], [0] * 6 + [1])


def test_calibration_rises_from_zero():
    curve = calibrate_residual(make_profiles(similar=2.0))
    assert curve.shape == MISSING.shape
    assert abs(curve[0]) < 1e-9
    assert (np.diff(curve) > 0.02).all()


def test_residual_share_is_zero_where_the_weights_explain_all_and_near_zero_where_their_scale_is_wrong():
    profiles, weights = make_profiles(similar=0.1), np.random.default_rng(0).dirichlet(np.ones(6), 5)
    members, bulk = merge_unmarked(profiles), weights @ profiles
    np.testing.assert_allclose(residual_share(profiles, bulk, weights, members)[0], 0, atol=1e-12)
    scales = np.linspace(0.8, 1.2, 5)[:, None]
    np.testing.assert_allclose(residual_share(profiles, bulk, weights * scales, members)[0], 0, atol=0.02)


def test_share_within_a_standard_error_of_zero_is_zero_and_a_clear_one_stays():
    found = shrink(np.array([-0.3, 0.0, 0.1, 0.2, 0.2]), np.array([0.1, 0.0, 0.1, 0.1, 0.0]))
    np.testing.assert_allclose(found, [0, 0, 0, 0.15, 0.2])


def test_standard_error_of_the_residual_share_is_that_of_repeated_platforms():
    profiles, rng = make_profiles(similar=2.0), np.random.default_rng(0)
    weights = rng.dirichlet(np.full(6, 5.0))
    bulk = weights @ profiles * np.exp(0.5 * rng.normal(size=(200, 800)))
    found, error = residual_share(profiles, bulk, np.tile(weights, (200, 1)), np.eye(6))
    assert abs(found.mean()) < 0.05
    np.testing.assert_allclose(error.mean(), found.std(), rtol=0.25)


def test_clear_markers_are_four_times_the_next_type_and_not_faint():
    profiles = to_shares(np.vstack([np.ones(100), np.ones(100), np.ones(100)]))
    profiles[0, :3] *= [5, 3, 1]
    profiles[1, 3] *= 5
    profiles[:, 4] = 1e-9
    profiles[0, 4] = 1e-6
    markers, others = clear_markers(profiles)
    assert [np.flatnonzero(row).tolist() for row in markers] == [[0], [3], []]
    assert np.flatnonzero(~others).tolist() == [0, 3, 4]


def test_types_without_clear_markers_are_merged_for_unknown_content_and_the_others_are_not():
    members = merge_unmarked(make_profiles(similar=0.1))
    assert sorted(map(tuple, members.tolist())) == sorted([(1, 1, 0, 0, 0, 0), *map(tuple, np.eye(6)[2:].tolist())])
    assert merge_unmarked(make_profiles(similar=2.0)).tolist() == np.eye(6).tolist()
    assert len(merge_unmarked(np.full((5, 30), 1 / 30))) == 5


@pytest.mark.parametrize(("background", "found"), [(0.01, "60 and 0"), (1.0, "0 and 60")])
def test_unknown_content_asks_for_markers_and_for_other_genes(background, found):
    profiles = np.kron(np.eye(3), np.ones(20)) + background
    message = f"Expected markers and at least 50 genes that are none with unknown=True, found {found}. Give all genes"
    with pytest.raises(ValueError, match=message):
        train(as_profiles(1000 * profiles, TYPES[:3]), as_bulk(1e5 * profiles), unknown=True)


def test_unknown_content_asks_for_three_types(profiles, bulk):
    with pytest.raises(ValueError, match="Expected at least 3 cell types with unknown=True, found 2. Do without it."):
        train(profiles[:2].copy(), bulk, unknown=True)


def test_type_that_is_called_unknown_is_refused_with_unknown_content(profiles, bulk):
    named = as_profiles(profiles.X, [*TYPES[:5], "Unknown"])
    with pytest.raises(ValueError, match="Expected no cell type called 'Unknown' with unknown=True"):
        train(named, bulk, unknown=True)
