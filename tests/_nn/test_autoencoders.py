from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import gammaln
from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial
from torch import nn

from scdeconv._nn import CountAutoencoder, layers, linear

N_GENES = 6


def make_autoencoder(*, zero_inflated, noise=0.0, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CountAutoencoder(N_GENES, 3, (8, 5), noise=noise, zero_inflated=zero_inflated)


@pytest.fixture
def batch():
    """Input, counts with many zeros, and size factors of 7 cells."""
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(7, N_GENES)), rng.poisson(1.5, (7, N_GENES)), rng.uniform(0.3, 3, 7)
    return [torch.as_tensor(array, dtype=torch.float32) for array in arrays]


@torch.no_grad()
def heads(autoencoder, x, size_factors):
    """Mean, dispersion and logits of the zeros, as arrays, from the weights and the definition of the heads."""
    hidden = autoencoder.decoder(autoencoder.encoder(x))
    mean = autoencoder.log_mean(hidden).double().exp().clamp(1e-5, 1e6) * size_factors[:, None]
    dispersion = nn.functional.softplus(autoencoder.dispersion(hidden).double()).clamp(1e-4, 1e4)
    logits = None if autoencoder.zero_logits is None else autoencoder.zero_logits(hidden).double().numpy()
    return mean.numpy(), dispersion.numpy(), logits


def slow_nll(counts, mean, dispersion, logits=None):
    """Mean over entries of the formula of scDeepCluster's paper and program."""
    total = 0.0
    for i in range(counts.shape[0]):
        for j in range(counts.shape[1]):
            x, mu, theta = float(counts[i, j]), mean[i, j], dispersion[i, j]
            nb = gammaln(theta) + gammaln(x + 1) - gammaln(x + theta)
            nb += (theta + x) * math.log(1 + mu / theta) + x * (math.log(theta) - math.log(mu))
            if logits is None:
                total += nb
                continue
            zero = 1 / (1 + math.exp(-logits[i, j]))
            total += (
                nb - math.log(1 - zero) if x > 0 else -math.log(zero + (1 - zero) * (theta / (theta + mu)) ** theta)
            )
    return total / counts.size


@pytest.mark.parametrize("zero_inflated", [True, False])
def test_nll_equals_the_explicit_formula(batch, zero_inflated):
    autoencoder = make_autoencoder(zero_inflated=zero_inflated).eval()
    x, counts, size_factors = batch
    assert (counts == 0).any()
    assert (counts > 3).any()
    expected = slow_nll(counts.numpy(), *heads(autoencoder, x, size_factors))
    assert autoencoder.nll(x, counts, size_factors).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("zero_inflated", [True, False])
def test_nll_equals_scvi_distributions(batch, zero_inflated):
    autoencoder = make_autoencoder(zero_inflated=zero_inflated).eval()
    x, counts, size_factors = batch
    mean, dispersion, logits = heads(autoencoder, x, size_factors)
    parameters = {"mu": torch.as_tensor(mean), "theta": torch.as_tensor(dispersion)}
    if zero_inflated:
        distribution = ZeroInflatedNegativeBinomial(**parameters, zi_logits=torch.as_tensor(logits))
    else:
        distribution = NegativeBinomial(**parameters)
    expected = -distribution.log_prob(counts.double()).mean().item()
    assert autoencoder.nll(x, counts, size_factors).item() == pytest.approx(expected, rel=1e-5)


def test_without_zero_inflation_the_distribution_is_negative_binomial(batch):
    """Without zero inflation both likelihoods are equal."""
    inflated, plain = make_autoencoder(zero_inflated=True), make_autoencoder(zero_inflated=False)
    plain.load_state_dict(inflated.state_dict(), strict=False)
    nn.init.zeros_(inflated.zero_logits.weight)
    nn.init.constant_(inflated.zero_logits.bias, -40.0)
    assert inflated.eval().nll(*batch).item() == pytest.approx(plain.eval().nll(*batch).item(), rel=1e-6)
    nn.init.constant_(inflated.zero_logits.bias, 0.0)
    assert inflated.nll(*batch).item() != pytest.approx(plain.nll(*batch).item(), rel=1e-3)


@pytest.mark.parametrize("zero_inflated", [True, False])
@pytest.mark.parametrize("factor", [1e4, -1e4])
def test_loss_is_finite_for_large_logits(zero_inflated, factor):
    autoencoder = make_autoencoder(zero_inflated=zero_inflated)
    for head in (autoencoder.log_mean, autoencoder.dispersion, autoencoder.zero_logits):
        if head is not None:
            nn.init.constant_(head.bias, factor)
    x = torch.full((4, N_GENES), 1e3)
    counts = torch.tensor([[0.0, 1.0, 1e6, 0.0, 3.0, 1e5]] * 4)
    loss = autoencoder.nll(x, counts, torch.tensor([1e-3, 1.0, 10.0, 1e3]))
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [weights.grad for weights in autoencoder.parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("zero_inflated", [True, False])
def test_gradients_are_finite_and_reach_every_weight(batch, zero_inflated):
    autoencoder = make_autoencoder(zero_inflated=zero_inflated)
    autoencoder.nll(*batch).backward()
    for weights in autoencoder.parameters():
        assert torch.isfinite(weights.grad).all()
        assert weights.grad.any()


def test_input_is_noisy_in_training_only(batch):
    autoencoder = make_autoencoder(zero_inflated=True, noise=1.5)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        noisy = [autoencoder.train().nll(*batch).item() for _ in range(2)]
        clean = [autoencoder.eval().nll(*batch).item() for _ in range(2)]
        assert noisy[0] != noisy[1]
        assert clean[0] == clean[1]
        assert torch.equal(autoencoder.train().encode(batch[0]), autoencoder.eval().encode(batch[0]))
        # normal noise of the requested standard deviation, on the input only
        torch.manual_seed(3)
        noisy_loss = autoencoder.train().nll(*batch)
        torch.manual_seed(3)
        x = batch[0] + 1.5 * torch.randn_like(batch[0])
        assert noisy_loss.item() == pytest.approx(autoencoder.eval().nll(x, *batch[1:]).item(), rel=1e-6)


def test_no_noise_needs_no_random_numbers(batch, global_state_untouched):
    autoencoder = make_autoencoder(zero_inflated=True, noise=0.0).train()
    with global_state_untouched():
        assert autoencoder.nll(*batch).item() == autoencoder.nll(*batch).item()


@pytest.mark.parametrize("zero_inflated", [True, False])
def test_size_factors_scale_the_mean(batch, zero_inflated):
    """Doubling the size factor doubles the mean, as adding log 2 to the log mean does."""
    autoencoder = make_autoencoder(zero_inflated=zero_inflated).eval()
    x, counts, size_factors = batch
    twice = autoencoder.nll(x, counts, 2 * size_factors).item()
    assert twice != pytest.approx(autoencoder.nll(x, counts, size_factors).item(), rel=1e-3)
    with torch.no_grad():
        autoencoder.log_mean.bias += math.log(2)
    assert autoencoder.nll(x, counts, size_factors).item() == pytest.approx(twice, rel=1e-5)


def test_decoder_mirrors_the_encoder():
    autoencoder = make_autoencoder(zero_inflated=True)
    shapes = {name: tuple(weights.shape) for name, weights in autoencoder.named_parameters() if weights.ndim == 2}
    encoder = [shape for name, shape in shapes.items() if name.startswith("encoder")]
    decoder = [shape for name, shape in shapes.items() if name.startswith("decoder")]
    assert encoder == [(8, N_GENES), (5, 8), (3, 5)]
    assert decoder == [(5, 3), (8, 5)]
    assert {shapes[f"{head}.weight"] for head in ("log_mean", "dispersion", "zero_logits")} == {(N_GENES, 8)}
    # the bottleneck is linear
    assert isinstance(list(autoencoder.encoder)[-1], nn.Linear)


def test_weights_start_glorot_uniform_and_biases_at_zero():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = linear(300, 200)
    bound = math.sqrt(6 / 500)
    assert not layer.bias.any()
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_each_layer_is_followed_by_the_activation():
    kinds = [type(module) for module in layers([5, 4, 3], nn.Tanh)]
    assert kinds == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh]
