"""BayesPrism on generated data and against the outputs of the original."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import pp, tl
from scdeconv._data.modalities import make_mudata
from scdeconv._stats.solvers.read_mixtures import fixed_point, floor_profiles, lift
from scdeconv.models import BayesPrism, PairedData
from scdeconv.models.reference.bayesprism import sum_by_group

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


def test_noise_free_fractions_of_rna_are_recovered(profiles, shares, bulk):
    model = train(profiles, bulk, n_iterations=10_000)
    pd.testing.assert_frame_equal(model.predict(bulk), shares, atol=1e-5)
    assert model.fraction_kind == "rna"
    tl.predict(bulk, model)
    assert bulk.uns["scdeconv"]["fractions"]["fraction_kind"] == "rna"


def test_only_the_number_of_iterations_matters(profiles, bulk):
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
def test_empty_sample_is_nan_without_expression(profiles, bulk, arguments):
    with pytest.warns(UserWarning, match="paired"):
        mdata = pp.pair(bulk=bulk, profiles=profiles)
    mdata["bulk"].var["selected"] = np.arange(80) < 40
    model = tl.train(mdata, "bayesprism", **arguments)
    bulk.X[2, :40] = 0
    found = model.predict(bulk)
    assert found.loc["s2"].isna().all()
    assert found.drop(index="s2").notna().all(axis=None)
    for _, reads in model.predict_expression(bulk):
        assert reads.loc["s2"].isna().all()


def test_type_without_cells_is_zero(cohort):
    cells, bulk = (adata.copy() for adata in cohort)
    donor = cells.obs["donor"].astype(str)
    only = next(d for d in donor[cells.obs["cell_type"] == "Mast cell"] if d in set(bulk.obs["donor"]))
    cells = cells[(donor == only) | (cells.obs["cell_type"] != "Mast cell").to_numpy()].copy()
    rest, held_out = pp.hold_out(pp.pair(cells, bulk), [only])
    for update in (False, True):
        predicted = tl.train(rest, "bayesprism", update_reference=update).predict(held_out)
        assert predicted.notna().all(axis=None)
        assert (predicted["Mast cell"] == 0).all()


@pytest.fixture(scope="module")
def shifted():
    """Reference profiles, and 60 bulk samples (at least 20,000 reads) with different profiles of the types."""
    rng = np.random.default_rng(5)
    phi, theta = draw_profiles(rng, 4, 300), rng.dirichlet(np.ones(4), 60)
    psi = shift(rng, phi, 0.7, phi.shape)
    bulk = rng.poisson(rng.uniform(2e4, 2e5, (60, 1)) * theta @ psi)
    return table(5000 * phi, [f"type {k}" for k in range(4)]), table(bulk), theta, psi


def test_updated_reference_improves_profiles_and_fractions(shifted):
    reference, bulk, theta, psi = shifted
    models = [train(reference, bulk, update_reference=update, n_iterations=500) for update in (False, True)]
    distance = [
        (psi * np.abs(np.log(lift(x) / psi))).sum() for x in (models[0].state_.profiles, models[1].state_.updated)
    ]
    assert distance[1] < 0.5 * distance[0]
    likelihood, rmse = [], []
    for model, used in zip(models, (models[0].state_.profiles, models[1].state_.updated), strict=True):
        fractions = model.predict(bulk).to_numpy()
        likelihood.append((bulk.X * np.log(fractions @ lift(used))).sum() / bulk.X.sum())
        rmse.append(np.sqrt(((fractions - theta) ** 2).mean()))
    assert likelihood[1] > likelihood[0] + 0.1
    assert rmse[1] < 0.8 * rmse[0]


def test_held_out_donors_do_not_update_the_reference(pairs):
    donor, states = pairs["bulk"].obs["donor"].iloc[0], []
    spoilt = make_mudata({name: adata.copy() for name, adata in pairs.mod.items()})
    spoilt["bulk"].X[0] = spoilt["bulk"].X[0, ::-1]
    for mdata in (pairs, spoilt):
        model, data = (
            BayesPrism(mdata, update_reference=True, outlier_share=1),
            PairedData(mdata, mdata["bulk"].var_names),
        )
        states.append(model.fit(data, without=[donor]))
        assert not np.allclose(model.fit(data).updated, states[-1].updated)
    np.testing.assert_array_equal(*(state.updated for state in states))


def test_malignant_type_has_one_profile_per_sample():
    """Each tumour has its own deviation from the reference."""
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


def test_expression_is_lazy_and_refused_at_once(profiles, bulk):
    model = train(profiles, bulk)
    assert list(dict(model.predict_expression(bulk, cell_types=["T cell", "B cell"]))) == ["T cell", "B cell"]
    with pytest.raises(ValueError, match=r"Expected cell_types of \['B cell', .*found 'Mast cell'"):
        model.predict_expression(bulk, cell_types=["B cell", "Mast cell"])
    with pytest.raises(RuntimeError, match=r"Call .train\(\) first"):
        BayesPrism().predict_expression(bulk)
    with pytest.warns(UserWarning, match="20 of the model's 80 genes"):
        part = dict(model.predict_expression(bulk[:, 20:].copy()))["T cell"]
    assert part.isna().to_numpy().any(axis=0).tolist() == [True] * 20 + [False] * 60


@pytest.fixture
def with_states(pairs):
    """Two random states of each type."""
    obs = pairs["sc"].obs
    half = np.random.default_rng(0).choice(["a", "b"], len(obs))
    obs["state"] = obs["cell_type"].astype(str) + " " + half
    return pairs


def test_states_are_summed_to_types(with_states):
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


def test_states_equal_to_types_do_not_matter(with_states):
    with_states["sc"].obs["state"] = with_states["sc"].obs["cell_type"].astype(str).to_numpy()
    bulk = with_states["bulk"]
    for update in (False, True):
        found = tl.train(with_states, "bayesprism", cell_state_key="state", update_reference=update).predict(bulk)
        expected = tl.train(with_states, "bayesprism", update_reference=update).predict(bulk)
        pd.testing.assert_frame_equal(found, expected, rtol=1e-6)


def test_saved_model_gives_the_same_predictions(with_states, tmp_path):
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


def test_group_sums_ignore_rows_without_a_group():
    matrix = np.arange(8.0).reshape(4, 2)
    assert sum_by_group(matrix, np.array([1, 0, -1, 1]), 3).tolist() == [[2, 3], [6, 8], [0, 0]]


NOISY = "RPL3 MRPL12 Rps27a MT-CO1 MALAT1 XIST UTY TTTY14"


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
        ({"malignant": "B cell"}, "Expected update_reference=True with malignant='B cell'"),
        ({"malignant": "none", "update_reference": True}, r"Expected malignant to be one of \[.*found 'none'"),
        (
            {"outlier_share": 1e-9},
            r"Expected genes that the reference expresses .*found none of 240.* Raise outlier_share=1e-09",
        ),
        ({"cell_state_key": "nowhere"}, r"state of every cell in mdata\['sc'\].obs\['nowhere'\], found columns"),
        ({"cell_state_key": "some"}, r"obs\['some'\], found 1 cells without"),
        ({"cell_state_key": "donor"}, "state in one cell type, found .* Add the cell type to the state name"),
    ],
)
def test_wrong_arguments_are_refused_by_name(pairs, arguments, message):
    pairs["sc"].obs["some"] = ["a"] * (pairs["sc"].n_obs - 1) + [None]
    with pytest.raises(ValueError, match=message):
        tl.train(pairs, "bayesprism", **arguments)


def test_cell_states_need_cells(profiles, bulk):
    with pytest.raises(ValueError, match=r"obs\['state'\], found columns \[\]"):
        train(profiles, bulk, cell_state_key="state")


@pytest.mark.skipif(not PARITY.exists(), reason=f"outputs of the original programs are not in {PARITY}")
@pytest.mark.parametrize("name", ["finotello", "hoek"])
def test_fractions_equal_those_of_the_original_program(name):
    """InstaPrism 7d3b57c with its defaults, on real bulk with flow cytometry."""
    folder = PARITY / name
    cells, bulk = (anndata.read_h5ad(folder / f"{side}.h5ad") for side in ("sc", "bulk"))
    original = pd.read_csv(folder / "original" / "instaprism.csv", index_col=0)
    with pytest.warns(UserWarning, match="paired donors to train on pairs, found 0"):
        found = tl.train(pp.pair(cells, bulk), "bayesprism").predict(bulk)
    assert (found.loc[original.index, original.columns] - original).abs().max(axis=None) < 1e-6
