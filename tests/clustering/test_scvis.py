from __future__ import annotations

import inspect
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scipy.stats
import torch
from anndata import AnnData
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from scdeconv.clustering import Scvis, _scvis
from scdeconv.clustering._scvis import ScvisNetwork
from scdeconv.clustering._tsne_terms import map_divergence, neighbour_probabilities

N_TYPES = 5


def make_cells(n_cells, seed, n_types=N_TYPES):
    """Counts of cell types that differ by genes of their own, with uneven depth."""
    profiles = np.random.default_rng(99).lognormal(0, 1, 120)
    profiles = np.tile(profiles, (n_types, 1))
    for cell_type in range(n_types):
        profiles[cell_type, 12 * cell_type : 12 * (cell_type + 1)] *= 8
    rng = np.random.default_rng(seed)
    types = rng.integers(n_types, size=n_cells)
    rates = profiles[types] / profiles[types].sum(axis=1, keepdims=True) * rng.uniform(300, 900, (n_cells, 1))
    return AnnData(
        sp.csr_matrix(rng.poisson(rates).astype(np.float32)),
        obs=pd.DataFrame({"cell_type": types}, index=[f"cell{i}" for i in range(n_cells)]),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(120)]),
    )


def trained(adata, max_epochs=2, seed=0, batch_size=512, **parameters):
    Scvis.setup_anndata(adata)
    model = Scvis(adata, **parameters)
    model.train(max_epochs=max_epochs, seed=seed, batch_size=batch_size)
    return model


@pytest.fixture(scope="module")
def model():
    """Trained on 400 cells; do not change it."""
    return trained(make_cells(400, seed=1), max_epochs=120, n_pcs=20)


@pytest.fixture(scope="module")
def new():
    """Other cells of the same types; do not change them."""
    return make_cells(200, seed=2)


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ScvisNetwork(torch.randn(30, 7)).eval()


# learning


def test_new_cells_are_embedded_near_their_type(model, new, unchanged):
    neighbours = KNeighborsClassifier(10).fit(model.get_latent_representation(), model.adata.obs["cell_type"])
    with unchanged(new):
        mapped = model.get_latent_representation(new)
    assert mapped.shape == (200, 2)
    purity = neighbours.score(mapped, new.obs["cell_type"])
    # chance is 0.2; the first two principal components reach less
    assert purity > 0.95
    flat = [
        PCA(2, random_state=0).fit(model.adata.X.log1p().toarray()).transform(cells.X.log1p().toarray())
        for cells in (model.adata, new)
    ]
    assert purity > KNeighborsClassifier(10).fit(flat[0], model.adata.obs["cell_type"]).score(
        flat[1], new.obs["cell_type"]
    )


def test_unfamiliar_cells_have_a_low_likelihood(model, new):
    strange = AnnData(sp.csr_matrix(new.X[:, ::-1]), obs=new.obs, var=new.var)
    known, unknown = model.get_log_likelihood(new), model.get_log_likelihood(strange)
    assert known.shape == (200,)
    # training rounds differently on each processor, so a few cells may be out of order
    assert roc_auc_score(np.repeat([1, 0], 200), np.concatenate([known, unknown])) > 0.97


# objective


def test_log_likelihood_equals_students_t(network):
    scores, z = torch.randn(9, 7), torch.randn(9, 2)
    with torch.no_grad():
        network.dof.copy_(torch.tensor([0.01, 0.5, 1, 2, 5, 9, 50]))
        hidden = network.decoder(z)
        location = network.location(hidden).double().numpy()
        scale = np.sqrt(np.log1p(np.exp(network.squared_scale(hidden).double().numpy())))
        value = network.log_likelihood(scores, z)
    dof = [0.1, 0.5, 1, 2, 5, 9, 10]
    expected = scipy.stats.t.logpdf(scores.double().numpy(), dof, location, scale).sum(axis=1)
    np.testing.assert_allclose(value, expected, rtol=1e-4)


@pytest.mark.parametrize("step", [1, 5, 7, 40, 1000])
def test_objective_is_the_weighted_sum_of_terms(network, step):
    n_pcs = 7
    scores = torch.randn(40, n_pcs)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        value = network.objective(scores, step, 10.0)
        torch.manual_seed(3)
        mean, variance = network.posterior(scores)
        z = torch.distributions.Normal(torch.zeros(40, 2), 1).sample() * variance.sqrt() + mean
        p = neighbour_probabilities(scores, 10.0)
        weights = np.clip(p.numpy().sum(axis=0), 0.01, 2)
        prior, posterior = torch.distributions.Normal(0, 1), torch.distributions.Normal(mean, variance.sqrt())
        kl = torch.distributions.kl_divergence(posterior, prior).sum(dim=1).mean()
        likelihood = (weights * network.log_likelihood(scores, z).numpy()).mean()
        tsne = map_divergence(p, z, smoothing=0.1)
        l2 = sum((parameter**2).sum() for name, parameter in network.named_parameters() if name.endswith("weight")) / 2
    expected = min(step, n_pcs) * tsne + max(0.1, n_pcs / step) * kl + 0.001 * l2 - likelihood
    assert float(value) == pytest.approx(float(expected), rel=1e-5)


def test_network_has_the_layers_of_the_original(network):
    sizes = {
        name: [tuple(layer.weight.shape) for layer in part.modules() if isinstance(layer, torch.nn.Linear)]
        for name, part in network.named_children()
    }
    assert sizes == {
        "encoder": [(128, 7), (64, 128), (32, 64)],
        "mean": [(2, 32)],
        "variance": [(2, 32)],
        "decoder": [(32, 2), (32, 32), (32, 32), (64, 32), (128, 64)],
        "location": [(7, 128)],
        "squared_scale": [(7, 128)],
    }
    assert (network.dof == 1).all()


def test_weights_are_dropped_in_training_only(network):
    scores = torch.randn(5, 7)
    with torch.random.fork_rng():
        first, again = network.posterior(scores)[0], network.posterior(scores)[0]
        torch.testing.assert_close(first, again)
        network.train()
        draws = torch.stack([network.posterior(scores)[0] for _ in range(1500)])
    assert draws.std(dim=0).min() > 0
    torch.testing.assert_close(draws.mean(dim=0), first, atol=0.08, rtol=0)


# training


def test_gradients_are_clipped_by_norm_then_value(network):
    optimizer = network.optimizer(0.01)
    assert type(optimizer) is torch.optim.Adam
    assert {(group["lr"], group["eps"]) for group in optimizer.param_groups} == {(0.01, 1e-3)}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    network.dof.grad[:2] = torch.tensor([80.0, 2.0])
    network.variance.bias.grad[0] = 60.0
    optimizer.step()
    norm = np.sqrt(80**2 + 2**2 + 60**2)
    assert network.dof.grad[:2].tolist() == pytest.approx([3, 2 * 10 / norm], rel=1e-4)
    assert network.variance.bias.grad.tolist() == pytest.approx([0.3, 0])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))


@pytest.fixture
def fits(monkeypatch):
    """Arguments of the training loop, which is cut to one step."""
    calls = []
    fit_cells = _scvis.fit_cells
    monkeypatch.setattr(
        *(_scvis, "fit_cells"),
        lambda *args, **arguments: (
            calls.append(arguments),
            fit_cells(*args, **(arguments | {"max_epochs": 1, "rows": np.arange(10), "batch_size": 10})),
        )[1],
    )
    return calls


@pytest.mark.parametrize(
    ("batch_size", "epochs", "equal"),
    [(512, 3000, 400), (300, 1500, 200), (10, 100, 10), (1, 75, 1)],
)
def test_default_number_of_epochs_follows_the_original(fits, batch_size, epochs, equal):
    trained(make_cells(400, seed=1), max_epochs=None, batch_size=batch_size, n_pcs=5)
    assert (fits[0]["max_epochs"], fits[0]["batch_size"]) == (epochs, equal)


def test_defaults_equal_the_original():
    parameters = inspect.signature(Scvis.train).parameters
    assert [parameters[name].default for name in ("max_epochs", "batch_size", "learning_rate")] == [None, 512, 0.01]
    assert inspect.signature(Scvis).parameters["perplexity"].default == 10


def test_map_depends_on_the_seed_only(global_state_untouched):
    adata = make_cells(150, seed=3)
    with global_state_untouched():
        first, again, other = (trained(adata, seed=seed).get_latent_representation() for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_ctrl_c_keeps_the_weights(interrupt_after):
    adata = make_cells(300, seed=1)
    Scvis.setup_anndata(adata)
    model = Scvis(adata)
    interrupt_after(2)
    model.train()
    assert model.interrupted_
    assert np.isfinite(model.get_latent_representation()).all()


# input


@pytest.mark.parametrize("dense", [False, True])
def test_input_is_the_scaled_principal_components(dense):
    adata = make_cells(100, seed=4)
    if dense:
        adata.X = adata.X.toarray()
    model = trained(adata, max_epochs=1, n_pcs=6)
    counts = np.asarray(adata.X.todense() if sp.issparse(adata.X) else adata.X, dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    expected = PCA(6, svd_solver="full").fit_transform(np.log1p(counts / totals * np.median(totals)))
    expected /= np.abs(expected).max()
    (batch,) = model._cells(adata).chunks()
    scores = (batch.x @ model.module.projection).numpy()
    signs = np.sign((scores * expected).sum(axis=0))
    np.testing.assert_allclose(scores * signs, expected, atol=1e-4)


def test_number_of_components_is_limited_by_the_data():
    assert trained(make_cells(30, seed=1), n_pcs=100).module.projection.shape == (120, 29)
    assert trained(make_cells(40, seed=1)[:, :20].copy(), n_pcs=50).module.projection.shape == (20, 19)


def test_unknown_genes_and_order_do_not_matter(model, new):
    other = new[:, ::-1].copy()
    other = AnnData(
        sp.csr_matrix(sp.hstack([other.X, np.ones((200, 1))])), other.obs, pd.DataFrame(index=[*other.var_names, "odd"])
    )
    np.testing.assert_allclose(model.get_latent_representation(other), model.get_latent_representation(new), atol=1e-4)


def test_missing_genes_are_the_mean_and_reported(model, new):
    # genes that are not markers
    kept = np.r_[0:60, 90:120]
    with pytest.warns(UserWarning, match="30 of the model's 120 genes"):
        mapped = model.get_latent_representation(new[:, kept])
    neighbours = KNeighborsClassifier(10).fit(model.get_latent_representation(), model.adata.obs["cell_type"])
    assert neighbours.score(mapped, new.obs["cell_type"]) > 0.9
    with pytest.warns(UserWarning, match="not in adata"):
        (batch,) = model._cells(new[:, kept]).chunks()
    assert not batch.x[:, 60:90].any()


def test_loaded_model_gives_the_same_embedding(model, new, tmp_path):
    model.save(tmp_path / "scvis")
    loaded = Scvis.load(tmp_path / "scvis")
    np.testing.assert_array_equal(loaded.get_latent_representation(new), model.get_latent_representation(new))
    np.testing.assert_array_equal(loaded.get_log_likelihood(new), model.get_log_likelihood(new))
    assert (loaded.n_pcs, loaded.perplexity, repr(loaded)) == (20, 10, repr(model))


def test_training_cells_are_embedded_by_default(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(
            model.get_latent_representation(), model.get_latent_representation(model.adata), atol=1e-6
        )


# bad input


def test_logged_values_and_empty_cells_are_refused_together(new):
    adata = new.copy()
    adata.X = adata.X.log1p().toarray()
    adata.X[3] = 0
    with pytest.raises(ValueError, match=r"2 problems found(.|\n)*log-transformed(.|\n)*1 rows of zeros: 'cell3'"):
        Scvis.setup_anndata(adata)


def test_logged_new_cells_are_refused(model, new):
    logged = new.copy()
    logged.X = logged.X.log1p()
    with pytest.raises(ValueError, match="log-transformed"):
        model.get_latent_representation(logged)


def test_fractional_values_are_accepted():
    adata = make_cells(60, seed=1)
    adata.X = adata.X * 1.7
    assert trained(adata).get_latent_representation().shape == (60, 2)


def test_parameters_out_of_range_are_reported_together():
    adata = make_cells(11, seed=1)
    Scvis.setup_anndata(adata)
    with pytest.raises(ValueError, match=r"from 2 to 100, found 101(.|\n)*perplexity to be a number above 1, found 1"):
        Scvis(adata, n_pcs=101, perplexity=1)
    with pytest.raises(ValueError, match="more than 11 cells, found 11"):
        Scvis(adata)


def test_untrained_model_has_no_map(new):
    adata = new.copy()
    Scvis.setup_anndata(adata)
    for method in ("get_latent_representation", "get_log_likelihood"):
        with pytest.raises(RuntimeError, match=r"untrained Scvis. Call .train\(\) first"):
            getattr(Scvis(adata), method)()
