from __future__ import annotations

import numpy as np
import pytest
import torch

from scdeconv._nn import LOSSES, Ensemble, Mixing, TrainingData, fit, seeded
from scdeconv._stats.expression import log_shares


@pytest.fixture
def mixing():
    """Eight rows of six genes for two inputs; the first holds out rows 0 and 1, the second row 7."""
    rng = np.random.default_rng(0)
    bulk = rng.lognormal(size=(8, 6))
    shape = np.full((2, 8), 0.3)
    shape[0, :2] = shape[1, 7] = 0
    rna = rng.uniform(1, 2, (2, 8))
    noise = np.where(shape[:, None] > 0, rng.normal(size=(2, 8, 8)), 0)
    return Mixing(
        *(torch.tensor(values, dtype=torch.float32) for values in (bulk, log_shares(bulk), shape, rna, noise))
    )


def test_weights_sum_to_one_without_held_out_rows(mixing):
    with seeded(0):
        weights = mixing.draw(500)
    assert weights.shape == (2, 500, 8)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 500))
    assert not weights[0, :, :2].any()
    assert not weights[1, :, 7].any()
    used = [weights[0, :, 2:], weights[1, :, :7]]
    for drawn in used:
        torch.testing.assert_close(
            drawn.mean(dim=0), torch.full((drawn.shape[1],), 1 / drawn.shape[1]), atol=0.05, rtol=0
        )


def test_tiny_concentrations_give_single_rows(mixing):
    mixing.concentrations *= 1e-8
    with seeded(0):
        weights = mixing.draw(100)
    assert torch.isfinite(weights).all()
    assert (weights.max(dim=-1).values > 0.99).float().mean() > 0.95


def test_expression_is_additive_on_the_linear_scale(mixing):
    mixing.noise *= 0
    with seeded(0):
        weights = mixing.draw(20)
        found = mixing.log_expression(weights)
    for fold in range(2):
        linear = (weights[fold] * mixing.rna[fold]).numpy() @ mixing.bulk.numpy()
        np.testing.assert_allclose(found[fold], log_shares(linear), rtol=1e-5)


def test_single_rows_have_no_added_noise(mixing):
    weights = torch.eye(8).expand(2, -1, -1)
    with seeded(0):
        found = mixing.log_expression(weights)
    torch.testing.assert_close(found, mixing.log.expand(2, -1, -1), rtol=1e-5, atol=1e-5)


def test_held_out_rows_never_influence_a_member(mixing):
    """Members of the first input are trained without rows 0 and 1."""
    fractions = torch.softmax(mixing.log[:, None, :3], dim=-1)
    modules = []
    for changed in (False, True):
        bulk, log, targets = mixing.bulk.clone(), mixing.log.clone(), fractions.clone()
        if changed:
            bulk[:2], log[:2], targets[:2] = 7.0, 3.0, 0.0
        own = Mixing(bulk, log, mixing.concentrations, mixing.rna, mixing.noise)
        data = TrainingData(log, targets, (mixing.concentrations > 0).repeat_interleave(2, dim=0).float(), mixing=own)
        with seeded(1):
            network = Ensemble(4, 6, 3, (8,), (0.1,), linear=False, n_inputs=2)
            fit(network, data, LOSSES["mse"], max_steps=5, batch_size=16, learning_rate=0.01, accelerator="cpu")
        modules.append(network)
    for first, second in zip(*(module.parameters() for module in modules), strict=True):
        assert torch.equal(first[:2], second[:2])
        assert not torch.equal(first[2:], second[2:])


def test_targets_are_mixtures_of_drawn_compositions(mixing):
    targets = torch.rand(8, 3, 4)
    seen = []

    def loss(logits, fractions):
        seen.append(fractions)
        return LOSSES["mse"](logits, fractions)

    with seeded(0):
        network = Ensemble(2, 6, 4, (8,), (0.0,), linear=False, n_inputs=2)
        data = TrainingData(mixing.log, targets, torch.ones(2, 8), mixing=mixing)
        fit(network, data, loss, max_steps=3, batch_size=32, learning_rate=0.01, accelerator="cpu")
    assert seen[0].shape == (2, 32, 4)
    low, high = targets.amin(dim=(0, 1)), targets.amax(dim=(0, 1))
    assert all(((fractions >= low) & (fractions <= high)).all() for fractions in seen)


def test_network_starts_at_the_given_composition():
    fractions = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    with seeded(0):
        network = Ensemble(4, 6, 3, (8,), (0.0,), linear=False, n_inputs=2)
        network.start_at(fractions)
        predicted = torch.softmax(network(torch.zeros(5, 6)), dim=-1)
    torch.testing.assert_close(predicted, fractions.repeat_interleave(2, dim=0)[:, None].expand(-1, 5, -1))
