"""The baseline that every other method must beat."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scdeconv import _keys as keys

from ._base import LinearModel


class MeanComposition(LinearModel):
    """Predicts the mean composition of the training donors for every sample, whatever its expression.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`, with at least one paired donor.
    """

    method = "mean_composition"

    def train(self) -> None:
        """Average the measured fractions: samples within donors, then donors."""
        bulk = self._require_data()[keys.BULK]
        by_donor = bulk.obsm[keys.MEASURED].dropna().groupby(bulk.obs[keys.DONOR]).mean()
        if by_donor.empty:
            msg = "Expected a sample with measured fractions, found none. Pair bulk with cells, or give fractions."
            raise ValueError(msg)
        self.mean_ = by_donor.mean().to_numpy()
        self.cell_types_ = list(by_donor.columns)
        # the prediction does not read expression, so it must not ask for any gene
        self.genes_ = pd.Index([])
        self.summary_ = f"mean of {len(by_donor)} donors"
        self.is_trained_ = True

    def _fractions(self, expression: np.ndarray) -> np.ndarray:
        return np.tile(self.mean_, (len(expression), 1))

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"mean": self.mean_}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.mean_ = arrays["mean"]
