from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from scdeconv._nn import CountAutoencoder, Ensemble, seeded, weights_of, with_weights

NETWORKS = {
    "ensemble": lambda: Ensemble(2, 6, 3, (8,), (0.1,), linear=True),
    "autoencoder": lambda: CountAutoencoder(6, 2, (5, 4), noise=1.0, zero_inflated=True),
    "batch norm": lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)),
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_network_with_weights_equals_the_original(make, global_state_untouched):
    with seeded(0):
        original = make()
    with global_state_untouched():
        rebuilt = with_weights(make, weights_of(original))
    assert not rebuilt.training
    assert list(rebuilt.state_dict()) == list(original.state_dict())
    for name, tensor in rebuilt.state_dict().items():
        assert torch.equal(tensor, original.state_dict()[name])
        assert tensor.data_ptr() == original.state_dict()[name].data_ptr()
    assert all(weights.requires_grad for weights in rebuilt.parameters())


def test_missing_weights_are_refused():
    weights = weights_of(NETWORKS["batch norm"]())
    weights.pop("0.bias")
    with pytest.raises(RuntimeError, match="Missing key"):
        with_weights(NETWORKS["batch norm"], weights)


def test_weights_are_arrays_without_copies():
    network = nn.Linear(3, 2)
    weights = weights_of(network)
    with torch.no_grad():
        network.bias.fill_(7.0)
    np.testing.assert_array_equal(weights["bias"], [7, 7])


def test_seed_repeats_draws_and_restores_the_state(global_state_untouched):
    with global_state_untouched():
        draws = []
        for seed in (3, 3, 4):
            with seeded(seed):
                draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
