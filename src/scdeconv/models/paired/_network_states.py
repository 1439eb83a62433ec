"""Networks trained on pairs as arrays, and the state of SimpleDNN. Torch is imported when they predict."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from scdeconv._stats.expression import fill_missing, log_shares
from scdeconv.models._state import Estimate, State

if TYPE_CHECKING:
    from scdeconv._nn import Ensemble


@dataclass(frozen=True)
class Networks:
    """The members of an ensemble as arrays.

    Parameters
    ----------
    weights
        Weights by name, as in :class:`scdeconv._nn.Ensemble`.
    hidden, dropout
        Width and dropout rate of each hidden layer.
    linear
        Whether the network has a linear path in parallel to the perceptrons.
    """

    weights: dict[str, np.ndarray]
    hidden: list[int]
    dropout: list[float]
    linear: bool

    def ensemble(self) -> Ensemble:
        """Return the networks. They share memory with the arrays."""
        # lazy import: states of linear methods are read without torch
        from scdeconv._nn import Ensemble, last_bias, with_weights

        n_members, _, n_types = last_bias(self.weights, "perceptrons").shape
        sizes = n_members, len(self.weights["reference"]), n_types
        n_inputs = len(self.weights["centre"]) if self.weights["centre"].ndim > 1 else None
        make = partial(Ensemble, *sizes, self.hidden, self.dropout, linear=self.linear, n_inputs=n_inputs)
        ensemble: Ensemble = with_weights(make, self.weights)
        return ensemble


@dataclass(frozen=True, kw_only=True)
class SimpleDNNState(State):
    """Members of the ensemble."""

    networks: Networks

    @cached_property
    def network(self) -> Ensemble:
        """Networks of the ensemble."""
        return self.networks.ensemble()

    def members(self, expression: np.ndarray) -> np.ndarray:
        """Return the predicted fractions of each member, members × samples × cell types."""
        from scdeconv.models._members import members_fractions

        shares = fill_missing(expression, self.networks.weights["reference"].astype(float))
        return members_fractions(self.network, log_shares(shares))

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return the mean over members, samples × cell types."""
        return self.members(expression).mean(axis=0)

    def estimate(self, expression: np.ndarray) -> Estimate:
        """Return the mean and spread over members."""
        members = self.members(expression)
        return Estimate(members.mean(axis=0), members)
