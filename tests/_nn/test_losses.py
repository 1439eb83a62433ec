from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from scdeconv._nn import LOSSES


@pytest.fixture
def logits():
    """Logits of 2 members for 5 samples and 4 types."""
    return np.random.default_rng(0).normal(size=(2, 5, 4))


@pytest.fixture
def fractions():
    """Fractions of 5 samples, one type absent in the first."""
    values = np.random.default_rng(1).dirichlet(np.ones(4), size=5)
    values[0] = [0.5, 0.5, 0, 0]
    return values


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("mse", lambda z, p: np.mean((softmax(z) - p) ** 2)),
        ("l1", lambda z, p: np.mean(np.abs(softmax(z) - p))),
        ("cross_entropy", lambda z, p: -np.sum(p * log_softmax(z))),
    ],
)
def test_loss_equals_its_formula(name, oracle, logits, fractions):
    losses = LOSSES[name](torch.as_tensor(logits), torch.as_tensor(fractions))
    expected = [[oracle(z, p) for z, p in zip(member, fractions, strict=True)] for member in logits]
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-12)


def test_every_loss_is_tested_here():
    assert set(LOSSES) == {"cross_entropy", "mse", "l1"}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_has_its_minimum_at_the_truth(name, logits, fractions):
    truth = torch.as_tensor(fractions).clamp_min(1e-6)
    at_truth = LOSSES[name](truth.log()[None], truth)
    assert (LOSSES[name](torch.as_tensor(logits), truth) > at_truth).all()


def test_cross_entropy_gradient_is_predicted_minus_measured(logits, fractions):
    z, p = torch.as_tensor(logits).requires_grad_(), torch.as_tensor(fractions)
    LOSSES["cross_entropy"](z, p).sum().backward()
    np.testing.assert_allclose(z.grad.numpy(), softmax(logits, axis=-1) - fractions, atol=1e-12)


def test_cross_entropy_is_finite_when_softmax_underflows():
    loss = LOSSES["cross_entropy"](torch.tensor([[[0.0, 1000.0]]]), torch.tensor([[1.0, 0.0]]))
    assert loss.item() == 1000.0
