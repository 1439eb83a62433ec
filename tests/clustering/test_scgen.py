from __future__ import annotations

import inspect
import shutil

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData
from scipy.spatial.distance import cdist
from torch import nn

from scdeconv import datasets, pp
from scdeconv.clustering import ScGen, _scgen
from scdeconv.clustering._scgen_arithmetic import align_batches, expected_counts, perturbation_effect
from scdeconv.clustering._scgen_network import ScGenNetwork

KEYS = {"batch_key": "condition", "cell_type_key": "cell_type"}
SMALL = {"n_latent": 20, "n_hidden": 128}
MARKS = {"obs": {"_scvi_batch", "_scvi_cell_type"}, "uns": {"_scvi_uuid", "_scvi_manager_uuid"}}


def make_cells(sizes, n_genes=200, fold=4.0, seed=0):
    """Negative binomial counts; ``sizes``: number of cells by (cell type, condition).

    Every type has its own profile; in condition "b" every fifth gene is multiplied by ``fold`` and every fifth divided.
    """
    rng = np.random.default_rng(seed)
    types = sorted({cell_type for cell_type, _ in sizes})
    base = rng.gamma(2.0, 5.0, n_genes)
    profiles = {cell_type: base * np.exp(rng.normal(0, 0.5, n_genes)) for cell_type in types}
    effect = np.where(np.arange(n_genes) % 5 == 0, fold, np.where(np.arange(n_genes) % 5 == 1, 1 / fold, 1.0))
    counts, labels = [], []
    for (cell_type, condition), n_cells in sizes.items():
        mean = profiles[cell_type] * (effect if condition == "b" else 1) * rng.lognormal(0, 0.3, (n_cells, 1))
        counts.append(rng.poisson(rng.gamma(3.0, mean / 3.0)))
        labels += [(cell_type, condition)] * n_cells
    obs = pd.DataFrame(labels, columns=["cell_type", "condition"], index=[f"cell{i}" for i in range(len(labels))])
    var = pd.DataFrame(index=[f"gene{g}" for g in range(n_genes)])
    adata = AnnData(sp.csr_matrix(np.vstack(counts).astype(np.float32)), obs=obs, var=var)
    return adata[rng.permutation(len(obs))].copy()


def train(adata, *, keys=KEYS, max_epochs=1, **training):
    ScGen.setup_anndata(adata, **keys)
    model = ScGen(adata, **SMALL)
    model.train(max_epochs=max_epochs, **training)
    return model


def log_expression(counts, total):
    counts = counts.toarray() if sp.issparse(counts) else counts
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * total)


def with_identity(model):
    """The model with an identity network: its latent space is log expression."""
    model.module.encode = lambda x: x
    model.module.decoder = nn.Identity()
    return model


@pytest.fixture
def cells():
    return make_cells({("A", "a"): 25, ("A", "b"): 10, ("B", "a"): 8, ("B", "b"): 30, ("C", "a"): 12}, n_genes=60)


@pytest.fixture
def model(cells):
    return train(cells)


# arithmetic


def test_effect_averages_differences_over_types():
    latent = np.array([[0.0, 0], [2, 0], [11, 5], [5, 5], [6, 5]])
    cell_types = np.array(["A", "A", "A", "B", "B"])
    perturbed = np.array([False, False, True, False, True])
    np.testing.assert_allclose(perturbation_effect(latent, cell_types, perturbed), [(10 + 1) / 2, 5 / 2])


def test_effect_equals_the_average_over_resampling():
    """The original: types resampled to the largest in each condition, conditions subsampled to one size."""
    rng = np.random.default_rng(0)
    cell_types = rng.choice(["A", "B", "C"], 80, p=[0.7, 0.2, 0.1])
    perturbed = rng.random(80) < 0.3 + 0.4 * (cell_types == "B")
    latent = rng.normal(size=(80, 3)) + 3 * (cell_types == "B")[:, None] + perturbed[:, None]

    def balanced(condition):
        members = [np.flatnonzero((cell_types == name) & (perturbed == condition)) for name in "ABC"]
        largest = max(map(len, members))
        return np.concatenate([rng.choice(rows, largest) for rows in members])

    draws = []
    for _ in range(3000):
        before, after = balanced(False), balanced(True)
        size = min(len(before), len(after))
        before, after = (rng.choice(rows, size, replace=False) for rows in (before, after))
        draws.append(latent[after].mean(axis=0) - latent[before].mean(axis=0))
    standard_error = np.std(draws, axis=0) / np.sqrt(len(draws))
    difference = perturbation_effect(latent, cell_types, perturbed) - np.mean(draws, axis=0)
    assert (np.abs(difference) < 4 * standard_error).all()


def test_effect_of_a_linear_shift_is_the_shift():
    rng = np.random.default_rng(1)
    cell_types = np.repeat(["A", "B"], 20)
    perturbed = np.tile([False, True], 20)
    centre = np.where(cell_types == "A", 5.0, -2.0)[:, None]
    shift = rng.normal(size=4)
    np.testing.assert_allclose(perturbation_effect(centre + perturbed[:, None] * shift, cell_types, perturbed), shift)


def test_aligned_batches_have_the_largest_batch_mean():
    latent = np.array([[0.0], [2], [4], [10], [12], [7], [9], [30]])
    cell_types = np.array(["A", "A", "A", "A", "A", "B", "B", "B"])
    batches = np.array(["x", "x", "x", "y", "y", "x", "y", "y"])
    aligned = align_batches(latent, cell_types, batches)
    # A: largest x, mean 2, so y moves by 2 - 11; B: largest y, mean 19.5, so x moves by 12.5
    np.testing.assert_allclose(aligned.ravel(), [0, 2, 4, 1, 3, 19.5, 9, 30])
    assert latent[3, 0] == 10


def test_types_in_one_batch_are_unchanged():
    latent = np.random.default_rng(0).normal(size=(6, 2))
    aligned = align_batches(latent, np.array(["A"] * 3 + ["B"] * 3), np.array(["x"] * 3 + ["y"] * 3))
    np.testing.assert_array_equal(aligned, latent)


def test_expected_counts_undo_normalisation():
    counts = np.random.default_rng(0).poisson(3, (5, 20)).astype(float)
    totals = counts.sum(axis=1)
    np.testing.assert_allclose(expected_counts(log_expression(counts, 1000.0), totals), counts, atol=1e-9)


def test_expected_counts_have_the_totals():
    values = np.array([[-1.0, 0.5, 2], [-1, -2, -3]])
    counts = expected_counts(values, np.array([10.0, 20]))
    ratio = np.expm1(0.5) / (np.expm1(0.5) + np.expm1(2))
    np.testing.assert_allclose(counts, [[0, 10 * ratio, 10 * (1 - ratio)], [0, 0, 0]])


# network


def test_network_equals_that_of_the_paper():
    defaults = {name: parameter.default for name, parameter in inspect.signature(ScGen).parameters.items()}
    del defaults["adata"]
    assert defaults == {"n_latent": 100, "n_hidden": 800, "n_layers": 2, "dropout_rate": 0.2}
    module = ScGenNetwork(300, **defaults)
    hidden = [nn.Linear, nn.BatchNorm1d, nn.LeakyReLU, nn.Dropout] * 2
    encoder, decoder = module.encoder.encoder, module.decoder[0]
    for part in (encoder, decoder):
        layers = [layer for layer in part.modules() if not list(layer.children())]
        assert [type(layer) for layer in layers] == hidden
        assert {layer.p for layer in layers if isinstance(layer, nn.Dropout)} == {0.2}
    shapes = [tuple(weight.shape) for weight in module.parameters() if weight.ndim == 2]
    assert shapes == [(800, 300), (800, 800), (100, 800), (100, 800), (800, 100), (800, 800), (300, 800)]
    assert isinstance(module.decoder[-1], nn.Linear)


def test_training_equals_that_of_the_paper(cells, monkeypatch):
    calls = []
    fit_cells = _scgen.fit_cells
    monkeypatch.setattr(
        _scgen, "fit_cells", lambda *args, **kwargs: (calls.append(kwargs), fit_cells(*args, **kwargs))[1]
    )
    defaults = {name: parameter.default for name, parameter in inspect.signature(ScGen.train).parameters.items()}
    assert (defaults["max_epochs"], defaults["batch_size"], defaults["patience"]) == (100, 32, 25)
    train(cells)
    optimizer = calls[0]["optimizer"]([nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is torch.optim.Adam
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (1e-3, (0.9, 0.999), 1e-8, 0)


def test_loss_equals_its_formula():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = ScGenNetwork(30, n_latent=4, n_hidden=16, n_layers=1, dropout_rate=0.2).eval()
        x = torch.rand(7, 30) * 100
        torch.manual_seed(4)
        loss = module.loss(x).item()
        torch.manual_seed(4)
        noise = torch.normal(torch.zeros(7, 4), torch.ones(7, 4))
    with torch.no_grad():
        hidden = module.encoder.encoder(x)
        mean, variance = module.encoder.mean_encoder(hidden), module.encoder.var_encoder(hidden).exp() + 1e-4
        error = (x - module.decoder(mean + variance.sqrt() * noise)).double().numpy()
    mean, variance = mean.double().numpy(), variance.double().numpy()
    kl = 0.5 * (mean**2 + variance - np.log(variance) - 1).sum(axis=1)
    assert loss == pytest.approx(np.mean(0.5 * (error**2).sum(axis=1) + 0.5 * 5e-5 * kl), rel=1e-5)


@pytest.mark.parametrize("batch_size", [2, 7, 11, 32, 76])
def test_no_mini_batch_has_one_cell(cells, monkeypatch, batch_size):
    """Of the 77 cells to learn from, batches of 2 and of 76 would leave one."""
    ScGen.setup_anndata(cells, **KEYS)
    model = ScGen(cells, **SMALL)
    calls = []
    fit_cells = _scgen.fit_cells
    monkeypatch.setattr(
        _scgen, "fit_cells", lambda *args, **kwargs: (calls.append(kwargs), fit_cells(*args, **kwargs))[1]
    )
    model.train(max_epochs=1, batch_size=batch_size)
    rows, validation_rows = calls[0]["rows"], calls[0]["validation_rows"]
    assert len(rows) % batch_size != 1
    assert len(rows) in (76, 77)
    assert sorted([*rows, *validation_rows]) == list(range(85))


def test_input_is_normalised_log1p_expression(cells):
    model = with_identity(train(cells))
    total = np.median(np.asarray(cells.X.sum(axis=1)))
    np.testing.assert_allclose(model.get_latent_representation(), log_expression(cells.X, total), atol=1e-5)


# methods with an identity network: closed forms


def test_prediction_adds_the_effect_on_other_types(cells):
    model = with_identity(train(cells))
    x = pd.DataFrame(log_expression(cells.X, model.scaling_.total), index=cells.obs_names)
    means = x.groupby([cells.obs["cell_type"], cells.obs["condition"]]).mean()
    effect = ((means.loc["A", "b"] - means.loc["A", "a"]) + (means.loc["B", "b"] - means.loc["B", "a"])) / 2
    start = (cells.obs["cell_type"] == "C") & (cells.obs["condition"] == "a")
    predicted = model.predict_perturbation("a", "b", "C")
    np.testing.assert_allclose(predicted.X, x[start] + effect, atol=1e-4)
    pd.testing.assert_frame_equal(predicted.obs, cells.obs.loc[start, ["cell_type", "condition"]])
    assert list(predicted.var_names) == list(cells.var_names)
    assert predicted.uns["log1p"] == {"base": None}


def test_perturbed_cells_of_the_type_are_unused(cells):
    model = train(cells)
    expected = model.predict_perturbation("a", "b", "A")
    own = ((cells.obs["cell_type"] == "A") & (cells.obs["condition"] == "b")).to_numpy()
    without = model.predict_perturbation("a", "b", "A", cells[~own].copy())
    np.testing.assert_allclose(without.X, expected.X, atol=1e-5)
    changed = cells.copy()
    changed.X = changed.X.toarray()
    changed.X[own] = changed.X[own][:, ::-1]
    np.testing.assert_allclose(model.predict_perturbation("a", "b", "A", changed).X, expected.X, atol=1e-5)


def test_only_types_in_both_conditions_are_used(cells):
    model = train(cells)
    expected = model.predict_perturbation("a", "b", "A").X
    more = cells.copy()
    # C is in condition "a" only
    more.obs.loc[cells.obs["cell_type"] == "C", "condition"] = "another"
    np.testing.assert_allclose(model.predict_perturbation("a", "b", "A", more).X, expected, atol=1e-5)


def test_corrected_cells_have_the_largest_batch_mean(cells):
    model = with_identity(train(cells))
    x = log_expression(cells.X, model.scaling_.total)
    expected = align_batches(x, cells.obs["cell_type"].to_numpy(), cells.obs["condition"].to_numpy())
    corrected = model.remove_batch_effects()
    np.testing.assert_allclose(corrected.X, expected, atol=1e-4)
    np.testing.assert_allclose(corrected.obsm["X_scgen"], expected, atol=1e-4)
    pd.testing.assert_frame_equal(corrected.obs, cells.obs[["cell_type", "condition"]])
    largest = {"A": "a", "B": "b", "C": "a"}
    same = (cells.obs["condition"] == cells.obs["cell_type"].map(largest)).to_numpy()
    np.testing.assert_allclose(corrected.layers["counts"][same], cells.X.toarray()[same], atol=1e-2)
    totals = np.asarray(cells.X.sum(axis=1)).ravel()
    np.testing.assert_allclose(corrected.layers["counts"].sum(axis=1), totals, rtol=1e-4)
    assert (corrected.layers["counts"] >= 0).all()


# learning


@pytest.fixture(scope="module")
def withheld():
    """A model that never saw perturbed cells of type C; all cells."""
    cells = make_cells({(name, condition): 80 for name in "ABC" for condition in "ab"}, seed=3)
    unseen = (cells.obs["cell_type"] == "C") & (cells.obs["condition"] == "b")
    return train(cells[~unseen].copy(), max_epochs=30, batch_size=16), cells


def test_held_out_response_is_predicted(withheld):
    """Log-fold-changes over genes: r above 0.85, 0.4 more than the control cells passed through; 0.6 of their error."""
    model, cells = withheld
    x = log_expression(cells.X, model.scaling_.total)
    before, after = (
        x[((cells.obs["cell_type"] == "C") & (cells.obs["condition"] == condition)).to_numpy()].mean(axis=0)
        for condition in "ab"
    )
    predicted = model.predict_perturbation("a", "b", "C")
    control = cells[predicted.obs_names]
    with torch.no_grad():
        unmoved = model.module.decoder(torch.as_tensor(model.get_latent_representation(control))).numpy()
    truth, change, no_change = after - before, predicted.X.mean(axis=0) - before, unmoved.mean(axis=0) - before
    r, r_no_change = (np.corrcoef(truth, estimate)[0, 1] for estimate in (change, no_change))
    assert r > max(0.85, r_no_change + 0.4)
    for baseline in (no_change, 0):
        assert np.mean((change - truth) ** 2) < 0.6**2 * np.mean((baseline - truth) ** 2)


def same_label_share(values, labels, k=15):
    """Mean share of each cell's nearest neighbours that have its label."""
    distances = cdist(values, values)
    np.fill_diagonal(distances, np.inf)
    neighbours = np.argsort(distances, axis=1)[:, :k]
    return (labels[neighbours] == labels[:, None]).mean()


def test_batches_mix_and_cell_types_stay_separate():
    """Share of same-batch neighbours: from above 0.9 to less than 0.75 (chance 0.5); same type: above 0.95."""
    sizes = {("A", "a"): 90, ("A", "b"): 90, ("B", "a"): 80, ("B", "b"): 80, ("C", "a"): 60}
    cells = make_cells(sizes, seed=5)
    model = train(cells, max_epochs=30, batch_size=16)
    batches, cell_types = (cells.obs[key].to_numpy() for key in KEYS.values())
    corrected = model.remove_batch_effects()
    shared = cell_types != "C"
    before = model.get_latent_representation()
    assert same_label_share(before[shared], batches[shared]) > 0.9
    for values in (corrected.X, corrected.obsm["X_scgen"]):
        assert same_label_share(values[shared], batches[shared]) < 0.75
        assert same_label_share(values, cell_types) > 0.95


def test_corrected_cells_can_be_a_reference():
    cells, bulk = datasets.paired_cohort(
        n_donors=4, n_bulk_only=0, n_reference_only=0, n_genes=150, n_cell_types=4, cells_per_donor=(30, 40)
    )
    cells.obs["platform"] = np.where(np.arange(cells.n_obs) % 2, "droplets", "plates")
    model = train(cells, keys={"batch_key": "platform", "cell_type_key": "cell_type"}, max_epochs=2)
    corrected = model.remove_batch_effects()
    mdata = pp.pair(corrected, bulk, layer="counts")
    totals = np.asarray(cells.X.sum(axis=1)).ravel()
    np.testing.assert_allclose(mdata["sc"].obs["total"].loc[cells.obs_names], totals, rtol=1e-4)
    with pytest.raises(ValueError, match="cannot be paired"):
        pp.pair(corrected, bulk)


# files, seeds, objects


def test_loaded_model_reads_new_cells(withheld, tmp_path, unchanged):
    model, cells = withheld
    model.save(tmp_path / "model")
    loaded = ScGen.load(tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    reordered = cells[:, ::-1].copy()
    with unchanged(reordered):
        predicted, corrected = (
            loaded.predict_perturbation("a", "b", "C", reordered),
            loaded.remove_batch_effects(reordered),
        )
    np.testing.assert_allclose(predicted.X, model.predict_perturbation("a", "b", "C", cells).X, atol=1e-4)
    assert list(predicted.var_names) == list(corrected.var_names) == list(cells.var_names)
    assert (loaded.batch_key_, loaded.cell_type_key_, loaded.seed_) == ("condition", "cell_type", 0)
    assert loaded.history["validation_loss"].equals(model.history["validation_loss"])
    assert repr(loaded) == repr(model)


def test_loaded_model_has_no_cells_of_its_own(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = ScGen.load(tmp_path / "model")
    with pytest.raises(RuntimeError, match="loaded model"):
        loaded.remove_batch_effects()
    with pytest.raises(RuntimeError, match="loaded model"):
        loaded.predict_perturbation("a", "b", "C")


def test_new_cells_need_labels_for_the_arithmetic_only(model, cells):
    unlabelled = AnnData(cells.X, var=cells.var[[]])
    np.testing.assert_allclose(
        model.get_latent_representation(unlabelled), model.get_latent_representation(), atol=1e-5
    )
    with pytest.raises(ValueError, match=r"(?s)2 problems.*obs\['condition'\].*obs\['cell_type'\]"):
        model.remove_batch_effects(unlabelled)


def test_new_layer_is_read(model, cells):
    other = AnnData(np.zeros(cells.shape), obs=cells.obs[["cell_type", "condition"]], var=cells.var[[]])
    other.layers["counts"] = cells.X
    expected = model.remove_batch_effects()
    np.testing.assert_allclose(model.remove_batch_effects(other, layer="counts").X, expected.X, atol=1e-5)


def test_same_seed_same_result_and_another_seed_another(cells, global_state_untouched):
    with global_state_untouched():
        first, again, other = (train(cells, max_epochs=2, seed=seed) for seed in (1, 1, 2))
        x, same, another = (model.predict_perturbation("a", "b", "C").X for model in (first, again, other))
    np.testing.assert_array_equal(x, same)
    assert not np.allclose(x, another)


def test_cells_get_only_registration_keys(cells, unchanged):
    original = cells.copy()
    ScGen.setup_anndata(cells, **KEYS)
    assert set(cells.obs) - set(original.obs) == MARKS["obs"]
    assert set(cells.uns) == MARKS["uns"]
    with unchanged(cells):
        model = ScGen(cells, **SMALL)
        model.train(max_epochs=1)
        results = [model.predict_perturbation("a", "b", "C"), model.remove_batch_effects()]
        for result in results:
            result.obs["cell_type"] = "changed"
            result.X[:] = 0
    rest = cells.copy()
    rest.obs, rest.uns = rest.obs.drop(columns=list(MARKS["obs"])), {}
    with unchanged(original):
        pd.testing.assert_frame_equal(rest.obs, original.obs)
        assert (rest.X != original.X).nnz == 0


def test_dense_and_sparse_cells_give_the_same(cells):
    dense = AnnData(cells.X.toarray(), obs=cells.obs.copy(), var=cells.var.copy())
    np.testing.assert_allclose(train(dense).remove_batch_effects().X, train(cells).remove_batch_effects().X, atol=1e-4)


def test_linear_non_count_expression_is_accepted(cells):
    cells.X = cells.X * 1.5
    assert np.isfinite(train(cells).remove_batch_effects().X).all()


# bad input


def test_all_setup_problems_are_reported_at_once(cells):
    cells.obs.loc[cells.obs_names[:3], "cell_type"] = np.nan
    with pytest.raises(
        ValueError,
        match=r"(?s)2 problems.*obs\['lab'\] in adata, found .*cell type for every row .* found 3 rows without",
    ):
        ScGen.setup_anndata(cells, batch_key="lab", cell_type_key="cell_type")


def test_all_wrong_parameters_are_reported_at_once():
    with pytest.raises(ValueError, match=r"(?s)Expected n_latent.*found 0.*n_layers.*found -1.*dropout_rate.*found 1"):
        ScGen(n_latent=0, n_layers=-1, dropout_rate=1.0)


def test_one_cell_and_batches_of_one_are_refused(cells):
    single = cells[:1].copy()
    ScGen.setup_anndata(single)
    with pytest.raises(ValueError, match="at least 2 cells to train on, found 1"):
        ScGen(single)
    ScGen.setup_anndata(cells)
    with pytest.raises(ValueError, match="batch_size to be a whole number of at least 2, found 1"):
        ScGen(cells).train(batch_size=1)


def test_untrained_model_is_refused(cells):
    ScGen.setup_anndata(cells, **KEYS)
    for call in (ScGen.remove_batch_effects, lambda model: model.predict_perturbation("a", "b", "C")):
        with pytest.raises(RuntimeError, match="trained model, found an untrained ScGen"):
            call(ScGen(cells, **SMALL))


@pytest.mark.parametrize(
    ("keys", "missing"),
    [
        ({}, "batch_key and cell_type_key"),
        ({"batch_key": "condition"}, "cell_type_key"),
        ({"cell_type_key": "cell_type"}, "batch_key"),
    ],
)
def test_missing_setup_keys_are_named(cells, keys, missing):
    model = train(cells, keys=keys)
    with pytest.raises(ValueError, match=f"Expected {missing} in setup_anndata, found none"):
        model.remove_batch_effects()
    with pytest.raises(ValueError, match=f"Expected {missing} in setup_anndata, found none"):
        model.predict_perturbation("a", "b", "C")


def test_unknown_names_are_reported_with_known_ones(model):
    with pytest.raises(
        ValueError,
        match=r"(?s)2 problems.*\['a', 'b'\] of obs\['condition'\], found 'c'.*\['A', 'B', 'C'\] .*, found 'D'",
    ):
        model.predict_perturbation("a", "c", "D")
    with pytest.raises(ValueError, match="two conditions, found 'a' twice"):
        model.predict_perturbation("a", "a", "C")


def test_missing_control_or_other_cells_are_reported(model, cells):
    with pytest.raises(ValueError, match=r"1 problem.*\n.*cells of 'C' in 'b', found none"):
        model.predict_perturbation("b", "a", "C")
    only = cells[(cells.obs["cell_type"] != "B").to_numpy()].copy()
    with pytest.raises(ValueError, match=r"other cell types than 'A' with cells in 'a' and in 'b', found none"):
        model.predict_perturbation("a", "b", "A", only)


def test_batches_without_common_type_are_refused(model, cells):
    with pytest.raises(ValueError, match=r"at least two batches in obs\['condition'\], found \['a'\]"):
        model.remove_batch_effects(cells[(cells.obs["condition"] == "a").to_numpy()].copy())
    apart = cells[((cells.obs["cell_type"] == "A") == (cells.obs["condition"] == "b")).to_numpy()].copy()
    with pytest.raises(
        ValueError, match=r"cell type with cells in at least two of the batches \['a', 'b'\], found none"
    ):
        model.remove_batch_effects(apart)


def test_missing_labels_of_new_cells_are_reported(model, cells):
    new = cells.copy()
    new.obs.loc[new.obs_names[:2], "condition"] = np.nan
    with pytest.raises(ValueError, match=r"batch for every row of adata\.obs\['condition'\], found 2 rows without"):
        model.remove_batch_effects(new)


def test_labels_can_be_categories_or_numbers(cells):
    cells.obs["condition"] = pd.Categorical(cells.obs["condition"]).rename_categories({"a": 1, "b": 2})
    assert train(cells).predict_perturbation("1", "2", "C").n_obs == 12
