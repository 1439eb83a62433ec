"""The common part of the methods that know the cell types' profiles alone."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from ._base import LinearModel

if TYPE_CHECKING:
    from collections.abc import Collection


class SignatureModel(LinearModel):
    """Base of the methods whose whole knowledge is a signature; a subclass fills in ``_solve``.

    The signature is in counts per cell where the method estimates shares of cells, and in shares of a cell's RNA where it
    estimates shares of RNA (``fraction_kind``).
    """

    def _fit(self, without: Collection[str]) -> None:
        profiles, size = self._reference.profiles(without)
        if self.fraction_kind == "rna":
            profiles = profiles / np.maximum(size, np.finfo(float).tiny)[:, None]
        self.signature_ = profiles / max(profiles.mean(), np.finfo(float).tiny)
        self.summary_ = f"{len(self.cell_types_)} profiles, {len(self.genes_)} genes"

    def _fractions(self, expression: np.ndarray) -> np.ndarray:
        # a gene is missing in all samples or in none
        present = ~np.isnan(expression).any(axis=0)
        return self._solve(self.signature_[:, present], expression[:, present])

    @abstractmethod
    def _solve(self, signature: np.ndarray, bulk: np.ndarray) -> np.ndarray:
        """Return weights, samples × cell types, of a signature, cell types × genes, in bulk, samples × genes."""

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"signature": self.signature_}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.signature_ = arrays["signature"]
