"""Networks from expression to logits of fractions, for several ensemble members at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class BatchedLinear(nn.Module):
    """One linear layer per member: members × samples × inputs to members × samples × outputs."""

    def __init__(self, n_members: int, n_in: int, n_out: int, *, zero: bool = False) -> None:
        super().__init__()
        # Glorot-uniform kernels and zero biases
        bound = 0.0 if zero else math.sqrt(6 / (n_in + n_out))
        self.weight = nn.Parameter(torch.empty(n_members, n_in, n_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(n_members, 1, n_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x @ weight + bias`` for every member."""
        if x.ndim == 2:
            # shared input: one matrix product for all members
            n_members, n_in, n_out = self.weight.shape
            product = x @ self.weight.transpose(0, 1).reshape(n_in, n_members * n_out)
            return product.view(len(x), n_members, n_out).transpose(0, 1) + self.bias
        return torch.baddbmm(self.bias, x, self.weight)


class Perceptrons(nn.Sequential):
    """One multi-layer perceptron per member: linear, ReLU and dropout for each hidden layer, then linear."""

    def __init__(
        self,
        n_members: int,
        n_in: int,
        hidden: Sequence[int],
        dropout: Sequence[float],
        n_out: int,
        *,
        zero_last: bool = False,
    ) -> None:
        layers: list[nn.Module] = []
        sizes = [n_in, *hidden]
        for size_in, size_out, rate in zip(sizes[:-1], sizes[1:], dropout, strict=True):
            layers += [BatchedLinear(n_members, size_in, size_out), nn.ReLU()]
            if rate > 0:
                layers.append(nn.Dropout(rate))
        super().__init__(*layers, BatchedLinear(n_members, sizes[-1], n_out, zero=zero_last))


class Ensemble(nn.Module):
    """Networks with the same standardised input, each the sum of a linear path and a perceptron.

    The buffers store the preprocessing of the input: ``reference`` (mean share of each gene in the training samples),
    ``centre`` and ``scale`` (mean and standard deviation of its log expression).

    Parameters
    ----------
    n_members, n_genes, n_types
        Number of members, of genes and of cell types.
    hidden, dropout
        Width and dropout rate of each hidden layer.
    linear
        Whether the network has a linear path in parallel to the perceptron. Both are then initialised to zero, as a
        correction of a given estimate.
    """

    reference: torch.Tensor
    centre: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self,
        n_members: int,
        n_genes: int,
        n_types: int,
        hidden: Sequence[int],
        dropout: Sequence[float],
        *,
        linear: bool,
    ) -> None:
        super().__init__()
        self.register_buffer("reference", torch.full((n_genes,), 1 / n_genes))
        self.register_buffer("centre", torch.zeros(n_genes))
        self.register_buffer("scale", torch.ones(n_genes))
        self.linear = BatchedLinear(n_members, n_genes, n_types, zero=True) if linear else None
        self.perceptrons = Perceptrons(n_members, n_genes, hidden, dropout, n_types, zero_last=linear)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, members × samples × types, of log expression, samples × genes."""
        standard = (x - self.centre) / self.scale
        logits = self.perceptrons(standard)
        return logits if self.linear is None else logits + self.linear(standard)
