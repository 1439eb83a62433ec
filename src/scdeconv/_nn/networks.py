"""Networks from expression to logits of fractions, for several ensemble members at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

# scale of the last layer at the start, which gives nearly the same composition for all samples (set by hand)
LAST_LAYER_SCALE = 0.1
# lower bound of fractions before the logarithm (set by hand)
LEAST_FRACTION = 1e-3


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
    ``centre`` and ``scale`` of its log expression (genes, or inputs × 1 × genes).

    Parameters
    ----------
    n_members, n_genes, n_types
        Number of members, of genes and of cell types.
    hidden, dropout
        Width and dropout rate of each hidden layer.
    linear
        Whether the network has a linear path in parallel to the perceptron. Both are then initialised to zero, as a
        correction of a given estimate.
    n_inputs
        Number of inputs with a ``centre`` and ``scale`` of their own; consecutive members share one. None: one for all.
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
        n_inputs: int | None = None,
    ) -> None:
        super().__init__()
        self.n_members = n_members
        shape = (n_genes,) if n_inputs is None else (n_inputs, 1, n_genes)
        self.register_buffer("reference", torch.full((n_genes,), 1 / n_genes))
        self.register_buffer("centre", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))
        self.linear = BatchedLinear(n_members, n_genes, n_types, zero=True) if linear else None
        self.perceptrons = Perceptrons(n_members, n_genes, hidden, dropout, n_types, zero_last=linear)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, members × samples × types, of log expression, samples × genes or inputs × samples × genes."""
        standard = (x - self.centre) / self.scale
        if standard.ndim > 2:
            standard = standard.repeat_interleave(self.n_members // len(standard), dim=0)
        logits = self.perceptrons(standard)
        return logits if self.linear is None else logits + self.linear(standard)

    @torch.no_grad()
    def start_at(self, fractions: torch.Tensor) -> None:
        """Set the bias of the last layer to the composition of each input (inputs × types) and shrink its weights."""
        last: Any = self.perceptrons[-1]
        logits = fractions.clamp_min(LEAST_FRACTION).log().repeat_interleave(self.n_members // len(fractions), dim=0)
        last.weight *= LAST_LAYER_SCALE
        last.bias.copy_((logits - logits.mean(dim=-1, keepdim=True))[:, None])
