from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from scdeconv._nn import BatchedLinear, Ensemble, Perceptrons


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("shared_input", [True, False])
def test_batched_linear_equals_a_loop_of_layers(shared_input):
    layer = BatchedLinear(3, 6, 4)
    with torch.no_grad():
        layer.bias.normal_()
    x = torch.randn(5, 6) if shared_input else torch.randn(3, 5, 6)
    weight_of_output = torch.randn(3, 5, 4)
    singles = []
    for member in range(3):
        single = nn.Linear(6, 4)
        with torch.no_grad():
            single.weight.copy_(layer.weight[member].T)
            single.bias.copy_(layer.bias[member, 0])
        singles.append(single)
    outputs = torch.stack([single(x if shared_input else x[member]) for member, single in enumerate(singles)])
    (outputs * weight_of_output).sum().backward()
    batched = layer(x)
    (batched * weight_of_output).sum().backward()
    torch.testing.assert_close(batched, outputs)
    torch.testing.assert_close(layer.weight.grad, torch.stack([single.weight.grad.T for single in singles]))
    torch.testing.assert_close(layer.bias.grad[:, 0], torch.stack([single.bias.grad for single in singles]))


def test_batched_linear_starts_glorot_uniform_per_member():
    layer = BatchedLinear(2, 300, 100)
    bound = math.sqrt(6 / (300 + 100))
    weight = layer.weight.detach()
    assert weight.abs().max() <= bound
    assert weight.min() < -0.999 * bound
    assert weight.max() > 0.999 * bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert (layer.bias == 0).all()
    assert not torch.equal(weight[0], weight[1])


def test_zero_layer_starts_at_zero():
    layer = BatchedLinear(2, 3, 4, zero=True)
    assert not layer.weight.any()
    assert not layer.bias.any()


def test_perceptrons_have_the_requested_layers():
    network = Perceptrons(2, 10, (8, 6), (0.0, 0.3), 3)
    assert [type(layer) for layer in network] == [
        *(BatchedLinear, nn.ReLU),
        *(BatchedLinear, nn.ReLU, nn.Dropout),
        BatchedLinear,
    ]
    assert [tuple(layer.weight.shape) for layer in network if isinstance(layer, BatchedLinear)] == [
        (2, 10, 8),
        (2, 8, 6),
        (2, 6, 3),
    ]
    assert network[4].p == 0.3


def test_gradients_of_the_members_are_independent():
    """The gradient of one member's loss is zero for the others; the summed loss gives each member its own gradient."""
    network = Ensemble(3, 6, 4, (5,), (0.0,), linear=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    x = torch.randn(7, 6)

    def gradients(member):
        network.zero_grad()
        losses = network(x).square().mean(dim=(1, 2))
        (losses.sum() if member is None else losses[member]).backward()
        return [parameter.grad.clone() for parameter in network.parameters()]

    together = gradients(None)
    for member in range(3):
        for own, joint in zip(gradients(member), together, strict=True):
            assert own[member].abs().sum() > 0
            torch.testing.assert_close(own[member], joint[member])
            assert not own[[other for other in range(3) if other != member]].any()


def test_ensemble_standardises_its_input_with_its_buffers():
    network = Ensemble(2, 6, 3, (5,), (0.0,), linear=False)
    x = torch.randn(4, 6)
    plain = network(x)
    network.centre.normal_()
    network.scale.uniform_(1, 2)
    torch.testing.assert_close(network(x * network.scale + network.centre), plain)
    assert set(dict(network.named_buffers())) == {"reference", "centre", "scale"}
    assert set(dict(network.named_buffers())) <= set(network.state_dict())


def test_ensemble_with_linear_path_starts_at_zero():
    network = Ensemble(2, 6, 3, (5,), (0.1,), linear=True).eval()
    x = torch.randn(4, 6)
    assert not network(x).any()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    torch.testing.assert_close(network(x), network.perceptrons(x) + network.linear(x))


def test_ensemble_without_linear_path_starts_at_random():
    network = Ensemble(2, 6, 3, (5,), (0.1,), linear=False).eval()
    assert network.linear is None
    assert network(torch.randn(4, 6)).abs().min() > 0


def test_ensemble_without_hidden_layers_is_linear():
    network = Ensemble(1, 6, 3, (), (), linear=False)
    a, b = torch.randn(2, 1, 6)
    torch.testing.assert_close(network(a + b), network(a) + network(b))
