from __future__ import annotations

import inspect
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from scdeconv import datasets, metrics, pp, tl
from scdeconv._nn import LOSSES, BatchedLinear
from scdeconv.models import Scaden
from scdeconv.models.simulated import scaden as _scaden
from scdeconv.models.simulated.scaden import MEMBERS, ScadenNetwork, scaden_input

# methods.md, section 1.3: the released program, scaden 1.1.2
ORIGINAL = {
    "m256": ((256, 128, 64, 32), (0, 0, 0, 0)),
    "m512": ((512, 256, 128, 64), (0, 0.3, 0.2, 0.1)),
    "m1024": ((1024, 512, 256, 128), (0, 0.6, 0.3, 0.1)),
}


@pytest.fixture
def simulated(pairs):
    pp.simulate(pairs, 150)
    return pairs


@pytest.fixture
def optimisers(monkeypatch):
    """Every optimiser step: the optimiser that took it."""
    steps = []
    for cls in (torch.optim.Adam, torch.optim.AdamW):
        step = cls.step
        monkeypatch.setattr(
            *(cls, "step"),
            lambda self, *args, step=step, **kwargs: (steps.append(self), step(self, *args, **kwargs))[1],
        )
    return steps


@pytest.fixture
def fits(monkeypatch):
    """Calls of the training loop: (data, loss, arguments)."""
    calls = []
    fit = _scaden.fit
    monkeypatch.setattr(
        *(_scaden, "fit"),
        lambda module, data, loss, **arguments: (
            calls.append((data, loss, arguments)),
            fit(module, data, loss, **arguments),
        )[1],
    )
    return calls


# the original's constants


@pytest.mark.parametrize("member", ORIGINAL)
def test_member_has_layers_and_dropouts_of_the_original(member):
    layers = list(ScadenNetwork(300, 7).members[member])
    hidden, dropout = ORIGINAL[member]
    sizes = [tuple(layer.weight.shape) for layer in layers if isinstance(layer, BatchedLinear)]
    assert sizes == [(1, *size) for size in zip((300, *hidden), (*hidden, 7), strict=True)]
    expected = []
    for rate in dropout:
        expected += [(BatchedLinear, None), (nn.ReLU, None), *([(nn.Dropout, rate)] if rate else [])]
    assert [(type(layer), getattr(layer, "p", None)) for layer in layers] == [*expected, (BatchedLinear, None)]


def test_members_are_those_of_the_original():
    assert list(ScadenNetwork(30, 4).members) == list(ORIGINAL)
    assert {name: (hidden, tuple(map(float, rates))) for name, (hidden, rates) in ORIGINAL.items()} == MEMBERS


def test_weights_start_glorot_uniform_and_biases_at_zero():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ScadenNetwork(300, 7)
    layers = [layer for member in network.members.values() for layer in member if isinstance(layer, BatchedLinear)]
    assert len(layers) == 15
    for layer in layers:
        bound = math.sqrt(6 / sum(layer.weight.shape[1:]))
        weight = layer.weight.detach()
        assert not layer.bias.any()
        assert 0.95 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_optimiser_is_adam_with_the_constants_of_keras(simulated, optimisers):
    tl.train(simulated, "scaden", max_steps=2)
    optimiser = optimisers[0]
    assert type(optimiser) is torch.optim.Adam
    (group,) = optimiser.param_groups
    assert (group["lr"], group["betas"], group["eps"]) == (1e-4, (0.9, 0.999), 1e-7)
    assert (group["weight_decay"], group["amsgrad"]) == (0, False)
    assert sum(parameter.numel() for parameter in group["params"]) == sum(
        parameter.numel() for parameter in ScadenNetwork(240, 4).parameters()
    )


def test_default_is_5000_steps_of_128_without_validation(simulated, fits):
    assert inspect.signature(Scaden.train).parameters["max_steps"].default == 5000
    tl.train(simulated, "scaden", max_steps=1)
    data, loss, arguments = fits[0]
    assert arguments["batch_size"] == 128
    assert "patience" not in arguments
    assert "validation" not in arguments
    assert (data.weights == 1).all()
    assert loss is LOSSES["mse"]


@pytest.mark.parametrize(("n_samples", "max_steps"), [(150, 7), (300, 5), (60, 4)])
def test_exactly_max_steps_optimiser_steps_are_taken(pairs, optimisers, n_samples, max_steps):
    pp.simulate(pairs, n_samples)
    model = tl.train(pairs, "scaden", max_steps=max_steps)
    assert len(optimisers) == max_steps
    assert list(model.history) == ["train_loss"]


def test_loss_of_the_papers_variant_is_l1(pairs, fits):
    tl.train(pairs, "scaden", train_on="pairs", loss="l1", max_steps=1)
    assert fits[0][1] is LOSSES["l1"]


def test_training_loss_is_the_mean_over_members(pairs, fits):
    """One batch contains all rows, so the first loss is that of the starting weights (with dropout)."""
    pp.simulate(pairs, 100)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = ScadenNetwork(240, 4)
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    data = pairs["simulated"]
    x = torch.as_tensor(scaden_input(data.X.astype(float)), dtype=torch.float32)
    truth = torch.as_tensor(data.obsm["measured_fractions"].to_numpy(), dtype=torch.float32)
    with torch.no_grad():
        expected = [((torch.softmax(member(x)[0], dim=-1) - truth) ** 2).mean() for member in network.members.values()]
    model = tl.train(pairs, "scaden", max_steps=1, seed=5)
    rows = fits[0][0]
    torch.testing.assert_close(rows.x, x)
    torch.testing.assert_close(rows.targets[:, 0], truth)
    assert model.history["train_loss"].iloc[0, 0] == pytest.approx(float(torch.stack(expected).mean()), rel=0.05)


# input


def test_input_is_scaled_log2_of_each_sample():
    counts = np.array([[0.0, 1.0, 3.0, 7.0], [1.0, 3.0, 3.0, 1023.0]])
    expected = [[0, 1 / 3, 2 / 3, 1], [0, 1 / 9, 1 / 9, 1]]
    np.testing.assert_allclose(scaden_input(counts), expected, rtol=1e-12)


def test_input_equals_scikit_learn_min_max_scaler():
    from sklearn.preprocessing import MinMaxScaler

    counts = np.random.default_rng(0).poisson(30, (6, 50))
    np.testing.assert_allclose(scaden_input(counts), MinMaxScaler().fit_transform(np.log2(counts + 1).T).T, atol=1e-12)


def test_missing_genes_and_constant_samples_are_zero():
    np.testing.assert_allclose(scaden_input(np.array([[np.nan, 1, 3]])), scaden_input(np.array([[0.0, 1, 3]])))
    assert not scaden_input(np.array([[5.0, 5.0]])).any()


def test_genes_with_variance_above_cutoff_are_used(simulated):
    variance = pd.DataFrame(simulated["bulk"].X).var(ddof=1).to_numpy()
    cutoff = float(np.median(variance))
    model = tl.train(simulated, "scaden", var_cutoff=cutoff, max_steps=1)
    assert list(model.genes_) == list(simulated["bulk"].var_names[variance > cutoff])
    assert inspect.signature(Scaden).parameters["var_cutoff"].default == 0.1


def test_selected_genes_replace_the_cutoff(simulated):
    pp.select_genes(simulated, 30)
    model = tl.train(simulated, "scaden", var_cutoff=1e12, max_steps=1)
    assert list(model.genes_) == list(simulated["bulk"].var_names[simulated["bulk"].var["selected"]])


def test_no_gene_above_the_cutoff_is_refused(simulated, cohort):
    with pytest.raises(ValueError, match="variance above var_cutoff=1e\\+15 over the 12 bulk samples, found none"):
        tl.train(simulated, "scaden", var_cutoff=1e15)
    cells, bulk = cohort
    with pytest.warns(UserWarning, match="paired donors to train on pairs, found 1"):
        single = pp.pair(cells, bulk[:1].copy())
    with pytest.raises(ValueError, match=r"variance above .* over the 1 bulk samples, .*pp.select_genes"):
        tl.train(single, "scaden")


# predictions


def test_prediction_is_the_mean_of_the_three_softmaxes(simulated):
    model = tl.train(simulated, "scaden", max_steps=3)
    bulk = simulated["bulk"][:, model.genes_]
    x = torch.as_tensor(scaden_input(bulk.X), dtype=torch.float32)
    with torch.no_grad():
        single = [torch.softmax(member(x)[0], dim=-1).numpy() for member in model.module.members.values()]
    np.testing.assert_allclose(model.predict(simulated["bulk"]), np.mean(single, axis=0), rtol=1e-5)
    assert not np.allclose(single[0], single[1])


def test_dropout_is_off_in_predictions(simulated):
    model = tl.train(simulated, "scaden", max_steps=1)
    assert not model.module.training
    assert model.predict(simulated["bulk"]).equals(model.predict(simulated["bulk"]))


def test_learns_more_than_the_mean_from_simulated_bulk():
    cells, bulk = datasets.paired_cohort(
        n_donors=6, n_bulk_only=0, n_reference_only=0, n_genes=150, cells_per_donor=(200, 300), n_cell_types=4
    )
    mdata, new = pp.pair(cells, bulk), pp.pair(cells, bulk)
    pp.simulate(mdata, 400, across_donors=True)
    pp.simulate(new, 100, across_donors=True, seed=9)
    truth = new["simulated"].obsm["measured_fractions"]
    constant = np.tile(mdata["simulated"].obsm["measured_fractions"].mean(), (len(truth), 1))
    predicted = tl.train(mdata, "scaden", max_steps=150).predict(new["simulated"])
    assert metrics.rmse(truth, predicted) < 0.6 * metrics.rmse(truth.to_numpy(), constant)


def test_pairs_can_be_training_samples(pairs, fits):
    pp.augment(pairs, n_aug=30, aug_ratio=0.9)
    model = tl.train(pairs, "scaden", train_on="pairs", loss="l1", max_steps=2)
    assert fits[0][0].targets.shape == (10, 30, 4)
    assert "10 pairs samples" in model.summary_


def test_missing_simulated_bulk_is_simulated_with_defaults(pairs, fits, unchanged):
    with unchanged(pairs):
        tl.train(pairs, "scaden", max_steps=1, seed=4)
    pp.simulate(pairs, seed=4)
    expected = scaden_input(pairs["simulated"].X.astype(float))
    np.testing.assert_allclose(fits[0][0].x, expected, atol=1e-6)


def test_seed_determines_the_fractions(simulated, global_state_untouched):
    with global_state_untouched():
        first, again, other = (tl.train(simulated, "scaden", max_steps=3, seed=seed) for seed in (1, 1, 2))
    bulk = simulated["bulk"]
    assert first.predict(bulk, in_sample=True).equals(again.predict(bulk, in_sample=True))
    assert not first.predict(bulk, in_sample=True).equals(other.predict(bulk, in_sample=True))
