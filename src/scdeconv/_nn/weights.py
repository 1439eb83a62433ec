"""Conversion of network weights to arrays with shared memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

Network = TypeVar("Network", bound=torch.nn.Module)


def weights_of(network: torch.nn.Module) -> dict[str, np.ndarray]:
    """Return weights and buffers as arrays. They share the memory of a network on the CPU."""
    return {name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()}


def last_bias(weights: Mapping[str, np.ndarray], prefix: str) -> np.ndarray:
    """Return the bias of the last layer of perceptrons, members × 1 × outputs, by the prefix of their names."""
    names = [name for name in weights if name.startswith(prefix) and name.endswith("bias")]
    # by number: "perceptrons.12.bias" is after "perceptrons.9.bias"
    return weights[max(names, key=lambda name: int(name.split(".")[-2]))]


def with_weights(make: Callable[[], Network], weights: Mapping[str, np.ndarray]) -> Network:
    """Return a network in evaluation mode whose weights share the memory of arrays.

    Parameters
    ----------
    make
        Returns the network; called on the meta device.
    weights
        Weights and buffers by name.
    """
    # the meta device allocates no memory and draws no random numbers
    with torch.device("meta"):
        network = make()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, assign=True)
    return network.eval()
