"""BayesPrism's fixed point against loops, a general optimiser, generated data and the outputs of the original."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.optimize import minimize

from scdeconv import pp, tl
from scdeconv._data.modalities import make_mudata
from scdeconv._data.reference import Reference
from scdeconv.models import BayesPrism
from scdeconv.models.reference.bayesprism import (
    FLOOR,
    fixed_point,
    floor_profiles,
    is_noisy,
    is_outlier,
    lift,
    mix,
    sum_by_group,
    update_profiles,
)

PARITY = Path(__file__).resolve().parents[4] / "shared" / "parity"
TYPES = ["B cell", "NK cell", "T cell"]


def table(values, names=None):
    """AnnData with a cell type for each row where types are named, else with samples."""
    obs = pd.DataFrame(index=[f"s{i}" for i in range(len(values))])
    if names is not None:
        obs = pd.DataFrame({"cell_type": names}, index=names)
    return AnnData(values, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(values.shape[1])]))


def draw_profiles(rng, n_types, n_genes):
    """Shares of genes in types, none of them zero."""
    phi = rng.dirichlet(np.full(n_genes, 0.3), n_types) + 1e-5
    return phi / phi.sum(axis=1, keepdims=True)


def shift(rng, phi, sd, shape):
    psi = phi * rng.lognormal(0, sd, shape)
    return psi / psi.sum(axis=1, keepdims=True)


@pytest.fixture
def profiles():
    """Mean counts per cell of three types of different size; each has genes at zero."""
    shares = np.random.default_rng(0).dirichlet(np.full(80, 0.5), size=3)
    for row in range(3):
        shares[row, 5 * row : 5 * row + 5] = 0
    return table(1000 * np.array([[1], [4], [10]]) * shares / shares.sum(axis=1, keepdims=True), TYPES)


@pytest.fixture
def shares():
    values = np.random.default_rng(1).dirichlet(np.ones(3), size=6)
    values[0] = [0, 0.25, 0.75]
    return pd.DataFrame(values, [f"s{i}" for i in range(6)], TYPES)


@pytest.fixture
def bulk(profiles, shares):
    """Noise-free bulk whose RNA comes from the types in these shares."""
    return table(1e6 * shares.to_numpy() @ (profiles.X / profiles.X.sum(axis=1, keepdims=True)))


def train(profiles, bulk, **arguments):
    with pytest.warns(UserWarning, match="no donor is paired|paired donors"):
        mdata = pp.pair(bulk=bulk, profiles=profiles)
    return tl.train(mdata, "bayesprism", **{"outlier_share": 1, **arguments})


def toy(n_samples=5, n_types=4, n_genes=30):
    rng = np.random.default_rng(3)
    return rng.poisson(rng.gamma(1, 100, (n_samples, n_genes))).astype(float), rng.dirichlet(np.ones(n_genes), n_types)


def by_loops(bulk, profiles, totals, n_iterations):
    """The original, cell type by cell type and gene by gene, for one sample."""
    n_types, n_genes = profiles.shape
    phi = [[profiles[k, g] / totals[k] for g in range(n_genes)] for k in range(n_types)]
    for row in phi:
        if min(row) == 0:
            row[:] = [share * (1 - FLOOR * n_genes) + FLOOR for share in row]
    phi = [[share / sum(row) for share in row] for row in phi]
    smallest = min(min(row) for row in phi)
    phi = [[share + smallest for share in row] for row in phi]
    theta = [1 / n_types] * n_types
    for _ in range(n_iterations):
        new = [0.0] * n_types
        for g in range(n_genes):
            total = sum(theta[k] * phi[k][g] for k in range(n_types))
            for k in range(n_types):
                new[k] += bulk[g] * theta[k] * phi[k][g] / total
        theta = [value / sum(new) for value in new]
    return theta


def test_all_samples_at_once_equal_loops_over_samples_types_and_genes(monkeypatch):
    bulk, counts = toy()
    counts = np.round(counts * 300)
    assert (counts == 0).any()
    totals = 1.1 * counts.sum(axis=1)
    expected = [by_loops(sample, counts, totals, 25) for sample in bulk]
    reference = lift(floor_profiles(counts, totals))
    np.testing.assert_allclose(fixed_point(bulk, reference, 25), expected, rtol=1e-10)
    monkeypatch.setattr("scdeconv.models.reference.bayesprism.BLOCK", 2)
    np.testing.assert_allclose(fixed_point(bulk, reference, 25), expected, rtol=1e-10)


def test_fixed_point_maximises_the_multinomial_likelihood():
    bulk, reference = toy()
    weights = fixed_point(bulk, reference, 20_000)
    slope = (bulk / mix(weights, reference)) @ reference.T / bulk.sum(axis=1, keepdims=True)
    assert (weights < 1e-9).any()
    np.testing.assert_allclose(slope[weights > 1e-6], 1, atol=1e-6)
    assert (slope < 1 + 1e-6).all()
    for sample, found in zip(bulk, weights, strict=True):
        loss = lambda x, sample=sample: -(sample @ np.log(np.exp(x) / np.exp(x).sum() @ reference)) / sample.sum()
        best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-8})
        np.testing.assert_allclose(found, np.exp(best.x) / np.exp(best.x).sum(), atol=1e-3)
        assert -(sample @ np.log(found @ reference)) / sample.sum() <= best.fun + 1e-9


def test_profile_of_its_own_equals_a_reference_for_each_sample():
    bulk, reference = toy()
    own = np.random.default_rng(4).dirichlet(np.ones(30), len(bulk))
    found = fixed_point(bulk, reference, 30, own)
    for row in range(len(bulk)):
        alone = fixed_point(bulk[[row]], np.vstack([reference, own[row]]), 30)
        np.testing.assert_allclose(found[[row]], alone, rtol=1e-10)


def test_noise_free_mixtures_are_recovered_as_shares_of_rna(profiles, shares, bulk):
    model = train(profiles, bulk, n_iterations=10_000)
    pd.testing.assert_frame_equal(model.predict(bulk), shares, atol=1e-5)
    assert model.fraction_kind == "rna"
    tl.predict(bulk, model)
    assert bulk.uns["scdeconv"]["fractions"]["fraction_kind"] == "rna"


def test_depth_and_the_other_samples_change_nothing_but_iterations_do(profiles, bulk):
    model = train(profiles, bulk)
    expected = model.predict(bulk)
    pd.testing.assert_frame_equal(model.predict(table(7e3 * bulk.X)), expected, rtol=1e-8)
    pd.testing.assert_frame_equal(model.predict(bulk[[2]].copy()), expected.iloc[[2]], rtol=1e-8)
    assert expected.equals(train(profiles, bulk, n_iterations=100).predict(bulk))
    assert not expected.equals(train(profiles, bulk, n_iterations=99).predict(bulk))


def test_types_with_identical_profiles_share_their_weight(profiles, bulk):
    twice = table(profiles.X[[0, 1, 2, 2]], [*TYPES, "T cell again"])
    found = train(twice, bulk, n_iterations=5000).predict(bulk)
    expected = train(profiles, bulk, n_iterations=5000).predict(bulk)
    np.testing.assert_allclose(found["T cell"], found["T cell again"])
    np.testing.assert_allclose(2 * found["T cell"], expected["T cell"], atol=1e-4)


@pytest.mark.parametrize("arguments", [{}, {"update_reference": True, "malignant": "T cell"}])
def test_sample_without_reads_has_equal_fractions_and_no_expression(profiles, bulk, arguments):
    with pytest.warns(UserWarning, match="paired"):
        mdata = pp.pair(bulk=bulk, profiles=profiles)
    mdata["bulk"].var["selected"] = np.arange(80) < 40
    model = tl.train(mdata, "bayesprism", **arguments)
    bulk.X[2, :40] = 0
    found = model.predict(bulk)
    np.testing.assert_allclose(found.loc["s2"], 1 / 3)
    assert found.notna().all(axis=None)
    for _, reads in model.predict_expression(bulk):
        assert (reads.loc["s2"] == 0).all()


def test_type_without_cells_gets_nothing(cohort):
    cells, bulk = (adata.copy() for adata in cohort)
    donor = cells.obs["donor"].astype(str)
    only = next(d for d in donor[cells.obs["cell_type"] == "Mast cell"] if d in set(bulk.obs["donor"]))
    cells = cells[(donor == only) | (cells.obs["cell_type"] != "Mast cell").to_numpy()].copy()
    rest, held_out = pp.hold_out(pp.pair(cells, bulk), [only])
    for update in (False, True):
        predicted = tl.train(rest, "bayesprism", update_reference=update).predict(held_out)
        assert predicted.notna().all(axis=None)
        assert (predicted["Mast cell"] == 0).all()


def log_posterior(gamma, phi, reads, sigma):
    x = np.log(phi) + gamma
    return reads @ (x - np.log(np.exp(x).sum())) - (gamma**2).sum() / (2 * sigma**2)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_updated_profiles_are_the_maximum_that_a_general_optimiser_finds(sigma):
    rng = np.random.default_rng(0)
    phi = rng.dirichlet(np.full(12, 0.5), 3)
    reads = rng.poisson(rng.gamma(0.5, [[0.1], [5], [500]], (3, 12))).astype(float)
    found = update_profiles(phi * [[1], [3], [1e-6]], reads, sigma)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    for row in range(3):
        best = minimize(lambda x, row=row: -log_posterior(x, phi[row], reads[row], sigma), np.zeros(12), tol=1e-12)
        psi = phi[row] * np.exp(best.x)
        np.testing.assert_allclose(found[row], psi / psi.sum(), atol=1e-4)
        gamma = np.log(found[row] / phi[row])
        gamma -= gamma.mean()
        slope = reads[row] - reads[row].sum() * found[row] - gamma / sigma**2
        np.testing.assert_allclose(slope, 0, atol=1e-6 * max(reads[row].sum(), 1))


def test_update_goes_from_the_reference_to_the_reads_as_the_prior_widens():
    rng = np.random.default_rng(1)
    phi, reads = rng.dirichlet(np.ones(50), 2), rng.poisson(1e4, (2, 50)).astype(float)
    np.testing.assert_allclose(update_profiles(phi, reads, 1e-6), phi, rtol=1e-4)
    np.testing.assert_allclose(update_profiles(phi, reads, 1e3), reads / reads.sum(axis=1, keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(update_profiles(phi, 1e9 * phi), phi, rtol=1e-6)
    reads[1] = 0
    np.testing.assert_allclose(update_profiles(phi, reads)[1], phi[1])


@pytest.fixture(scope="module")
def shifted():
    """Cells' profiles, and 60 bulks of 20,000 reads or more whose types' profiles differ from them in every gene."""
    rng = np.random.default_rng(5)
    phi, theta = draw_profiles(rng, 4, 300), rng.dirichlet(np.ones(4), 60)
    psi = shift(rng, phi, 0.7, phi.shape)
    bulk = rng.poisson(rng.uniform(2e4, 2e5, (60, 1)) * theta @ psi)
    return table(5000 * phi, [f"type {k}" for k in range(4)]), table(bulk), theta, psi


def test_update_of_the_reference_brings_profiles_likelihood_and_fractions_closer(shifted):
    reference, bulk, theta, psi = shifted
    models = [train(reference, bulk, update_reference=update, n_iterations=500) for update in (False, True)]
    distance = [(psi * np.abs(np.log(lift(x) / psi))).sum() for x in (models[0].profiles_, models[1].updated_)]
    assert distance[1] < 0.5 * distance[0]
    likelihood, rmse = [], []
    for model, used in zip(models, (models[0].profiles_, models[1].updated_), strict=True):
        fractions = model.predict(bulk).to_numpy()
        likelihood.append((bulk.X * np.log(fractions @ lift(used))).sum() / bulk.X.sum())
        rmse.append(np.sqrt(((fractions - theta) ** 2).mean()))
    assert likelihood[1] > likelihood[0] + 0.1
    assert rmse[1] < 0.8 * rmse[0]


def test_donors_that_are_held_out_do_not_shape_the_updated_reference(pairs):
    donor, updated = pairs["bulk"].obs["donor"].iloc[0], []
    spoilt = make_mudata({name: adata.copy() for name, adata in pairs.mod.items()})
    spoilt["bulk"].X[0] = spoilt["bulk"].X[0, ::-1]
    for mdata in (pairs, spoilt):
        model = BayesPrism(mdata, update_reference=True, outlier_share=1)
        model.train(held_out=False)
        everybody, model._reference = model.updated_, Reference(mdata, model.genes_)
        model._fit([donor])
        assert not np.allclose(everybody, model.updated_)
        updated.append(model.updated_)
    np.testing.assert_array_equal(*updated)


def test_malignant_type_has_a_profile_of_its_own_in_every_sample():
    """Each tumour differs from the reference in another way."""
    rng = np.random.default_rng(6)
    phi, theta = draw_profiles(rng, 3, 400), rng.dirichlet([3, 1, 1], 20)
    tumour = shift(rng, phi[0], 1.5, (20, 400))
    bulk = table(rng.poisson(1e6 * (theta[:, :1] * tumour + theta[:, 1:] @ phi[1:])))
    names, error = ["tumour", "T", "B"], {}
    for malignant in (None, "tumour"):
        model = train(table(5000 * phi, names), bulk, update_reference=True, malignant=malignant)
        found = model.predict(bulk)
        assert list(found) == names
        error[malignant] = np.sqrt(((found - theta) ** 2).to_numpy().mean())
        parts = dict(model.predict_expression(bulk))
        np.testing.assert_allclose(sum(parts.values()), bulk.X, atol=1e-6)
        total = pd.DataFrame({name: part.sum(axis=1) for name, part in parts.items()}).div(bulk.X.sum(axis=1), axis=0)
        np.testing.assert_allclose(total, found, atol=5e-3)
    assert error["tumour"] < 0.8 * error[None]
    found_in_bulk = parts["tumour"].to_numpy() / bulk.X.sum(axis=1, keepdims=True)
    differences = [np.log((x + 1e-9) / phi[0]) for x in (found_in_bulk, tumour)]
    assert np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(*differences, strict=True)]) > 0.4
    pd.testing.assert_frame_equal(model.predict(bulk[[3]].copy()), found.iloc[[3]], rtol=1e-8)


def test_expression_is_computed_when_it_is_asked_for_and_refused_at_once(profiles, bulk):
    model = train(profiles, bulk)
    assert list(dict(model.predict_expression(bulk, cell_types=["T cell", "B cell"]))) == ["T cell", "B cell"]
    with pytest.raises(ValueError, match=r"Expected cell types out of \['B cell', .*found 'Mast cell'"):
        model.predict_expression(bulk, cell_types=["B cell", "Mast cell"])
    with pytest.raises(RuntimeError, match=r"Call .train\(\) first"):
        BayesPrism().predict_expression(bulk)
    with pytest.warns(UserWarning, match="20 of the model's 80 genes"):
        part = dict(model.predict_expression(bulk[:, 20:].copy()))["T cell"]
    assert part.isna().to_numpy().any(axis=0).tolist() == [True] * 20 + [False] * 60


@pytest.fixture
def with_states(pairs):
    """Two states of each type, by chance."""
    obs = pairs["sc"].obs
    half = np.random.default_rng(0).choice(["a", "b"], len(obs))
    obs["state"] = obs["cell_type"].astype(str) + " " + half
    return pairs


def test_states_are_added_up_to_types(with_states):
    model = tl.train(with_states, "bayesprism", cell_state_key="state")
    bulk, names = with_states["bulk"], list(with_states["profiles"].obs_names)
    cells, states = with_states["sc"], sorted(with_states["sc"].obs["state"].unique())
    rows = [(cells.obs["state"] == state).to_numpy() for state in states]
    counts = np.array([cells[row, model.genes_].X.toarray().sum(axis=0) for row in rows])
    totals = np.array([cells.obs["total"].to_numpy()[row].sum() for row in rows])
    weights = fixed_point(bulk[:, model.genes_].X.astype(float), lift(floor_profiles(counts, totals)), 100)
    expected = pd.DataFrame(0.0, bulk.obs_names, names)
    for column, state in enumerate(states):
        expected[state[:-2]] += weights[:, column]
    pd.testing.assert_frame_equal(model.predict(bulk), expected)
    parts = dict(model.predict_expression(bulk))
    assert list(parts) == names
    np.testing.assert_allclose(sum(parts.values()), bulk[:, model.genes_].X, rtol=1e-8)
    assert f"({len(states)} cell states)" in model.summary_


def test_states_that_are_the_types_change_nothing(with_states):
    with_states["sc"].obs["state"] = with_states["sc"].obs["cell_type"].astype(str).to_numpy()
    bulk = with_states["bulk"]
    for update in (False, True):
        found = tl.train(with_states, "bayesprism", cell_state_key="state", update_reference=update).predict(bulk)
        expected = tl.train(with_states, "bayesprism", update_reference=update).predict(bulk)
        pd.testing.assert_frame_equal(found, expected, rtol=1e-6)


def test_model_with_states_and_update_is_saved_and_loaded(with_states, tmp_path):
    bulk = with_states["bulk"]
    malignant = with_states["profiles"].obs_names[1]
    for number, more in enumerate(({}, {"update_reference": True}, {"update_reference": True, "malignant": malignant})):
        model = tl.train(with_states, "bayesprism", cell_state_key="state", **more)
        model.save(tmp_path / str(number))
        loaded = BayesPrism.load(tmp_path / str(number))
        pd.testing.assert_frame_equal(loaded.predict(bulk), model.predict(bulk), check_exact=True)
        for one, other in zip(loaded.predict_expression(bulk), model.predict_expression(bulk), strict=True):
            assert one[0] == other[0]
            pd.testing.assert_frame_equal(one[1], other[1], check_exact=True)


def test_group_sums_leave_out_rows_without_a_group():
    matrix = np.arange(8.0).reshape(4, 2)
    assert sum_by_group(matrix, np.array([1, 0, -1, 1]), 3).tolist() == [[2, 3], [6, 8], [0, 0]]


def test_outliers_are_genes_with_many_reads_in_many_samples():
    bulk = np.full((10, 3), 100.0)
    bulk[:2, 0] = bulk[2, 1] = 1e4
    assert is_outlier(bulk, 0.4, 0.1).tolist() == [True, False, False]
    assert not is_outlier(bulk, 1, 0.1).any()


NOISY = "RPL3 RPS4X RPLP0 RPSA RPL23AP7 MRPL12 MRPS18A Rps27a MT-CO1 mt-Nd4 MALAT1 Malat1 XIST UTY DDX3Y RPS4Y1 TTTY14"
KEPT = "RPS6KA1 RPS6KB2 RPS19BP1 ACTB MTOR MT2A RPE RPN1 MRPLX UTYX CD3D METTL3"


def test_noisy_genes_are_known_by_their_symbols():
    assert is_noisy(pd.Index(NOISY.split())).all()
    assert not is_noisy(pd.Index(KEPT.split())).any()
    with pytest.raises(ValueError, match="Expected gene symbols with drop_ribosomal=True, found Ensembl"):
        is_noisy(pd.Index(["ENSG00000000003", "ENSG00000000005"]))


def test_filters_drop_genes_unless_genes_were_selected(cohort):
    cells, bulk = (adata.copy() for adata in cohort)
    names = [*NOISY.split(), *bulk.var_names[len(NOISY.split()) :]]
    cells.var_names = bulk.var_names = names
    bulk.X[:, 50] = bulk.X.sum(axis=1)
    cells.X = cells.X.toarray() * (np.arange(len(names)) != 60)
    mdata = pp.pair(cells, bulk)
    everything = tl.train(mdata, "bayesprism", outlier_share=1).genes_
    assert set(names) - set(everything) == {names[60]}
    fewer = tl.train(mdata, "bayesprism", outlier_share=0.3, drop_ribosomal=True).genes_
    assert set(names) - set(fewer) == {names[50], names[60], *NOISY.split()}
    mdata["bulk"].var["selected"] = np.arange(len(names)) < 80
    chosen = tl.train(mdata, "bayesprism", drop_ribosomal=True).genes_
    assert list(chosen) == [*names[:60], *names[61:80]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_iterations": 0}, "Expected n_iterations of at least 1, found 0"),
        ({"malignant": "B cell"}, "Expected update_reference=True with malignant='B cell'"),
        ({"malignant": "none", "update_reference": True}, r"Expected malignant out of \[.*found 'none'"),
        ({"outlier_share": 1e-9}, r"Expected genes to use, found none of 240 .* Raise outlier_share=1e-09"),
        ({"cell_state_key": "nowhere"}, r"state of every cell in mdata\['sc'\].obs\['nowhere'\], found columns"),
        ({"cell_state_key": "some"}, r"obs\['some'\], found 1 cells without"),
        ({"cell_state_key": "donor"}, "state within one cell type, found .* Name them by their type"),
    ],
)
def test_wrong_arguments_are_refused_by_name(pairs, arguments, message):
    pairs["sc"].obs["some"] = ["a"] * (pairs["sc"].n_obs - 1) + [None]
    with pytest.raises(ValueError, match=message):
        tl.train(pairs, "bayesprism", **arguments)


def test_cells_are_asked_for_where_states_are_named(profiles, bulk):
    with pytest.raises(ValueError, match=r"obs\['state'\], found columns \[\]"):
        train(profiles, bulk, cell_state_key="state")


@pytest.mark.skipif(not PARITY.exists(), reason=f"outputs of the original programs are not in {PARITY}")
@pytest.mark.parametrize("name", ["finotello", "hoek"])
def test_fractions_equal_those_of_the_original_program(name):
    """InstaPrism 7d3b57c with its defaults, on real bulk with flow cytometry."""
    folder = PARITY / name
    cells, bulk = (anndata.read_h5ad(folder / f"{side}.h5ad") for side in ("sc", "bulk"))
    original = pd.read_csv(folder / "original" / "instaprism.csv", index_col=0)
    with pytest.warns(UserWarning, match="Only 0 paired donors"):
        found = tl.train(pp.pair(cells, bulk), "bayesprism").predict(bulk)
    assert (found.loc[original.index, original.columns] - original).abs().max(axis=None) < 1e-6
