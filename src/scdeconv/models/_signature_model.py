"""Base class of the methods whose state is a signature (profiles of the cell types)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ._cross_fitted import CrossFittedModel
from ._state import State

if TYPE_CHECKING:
    from collections.abc import Collection

    from scdeconv._data.paired_data import PairedData

TINY = np.finfo(float).tiny


@dataclass(frozen=True, kw_only=True)
class SignatureState(State):
    """Signature, with a solver in the subclass.

    Parameters
    ----------
    signature
        Profiles, cell types × genes.
    """

    signature: np.ndarray

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return weights, samples × cell types."""
        present = present_genes(expression)
        return self.solve(self.signature[:, present], expression[:, present])

    @abstractmethod
    def solve(self, signature: np.ndarray, bulk: np.ndarray) -> np.ndarray:
        """Return weights (samples × cell types) of the signature (cell types × genes) in bulk (samples × genes)."""


def present_genes(expression: np.ndarray) -> np.ndarray:
    """Return a mask of the genes that the samples have; a gene is NaN in all samples or in none."""
    present: np.ndarray = ~np.isnan(expression).any(axis=0)
    return present


class SignatureModel(CrossFittedModel):
    """Base class of the methods whose state is a signature.

    The signature is in counts per cell if the method estimates cell fractions, and in shares of a cell's RNA if it
    estimates RNA fractions (``fraction_kind``). A subclass defines ``state_type`` or overrides ``fit``.
    """

    def signature(self, data: PairedData, without: Collection[str] = ()) -> np.ndarray:
        """Return the profiles of the cell types in the unit of the method.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        Profiles with mean 1, cell types × genes.
        """
        profiles, size = data.reference.profiles(without)
        if self.fraction_kind == "rna":
            profiles = profiles / np.maximum(size, TINY)[:, None]
        return profiles / max(profiles.mean(), TINY)

    def fit(self, data: PairedData, without: Collection[str] = ()) -> State:
        """Compute the signature from the reference.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        The learned state, of the class ``state_type``.
        """
        state: State = self.state_type(
            signature=self.signature(data, without), **self._settings(), summary=describe(data)
        )
        return state

    def _settings(self) -> dict[str, object]:
        """Return the parameters that the state needs to predict."""
        return {}


def describe(data: PairedData) -> str:
    """Return the numbers of profiles and genes as text."""
    return f"{len(data.cell_types)} profiles, {len(data.genes)} genes"
