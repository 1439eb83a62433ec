"""Non-negative least squares on the cell types' profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

from ._base import LinearModel

if TYPE_CHECKING:
    from collections.abc import Collection


def solve_nnls(signature: np.ndarray, bulk: np.ndarray) -> np.ndarray:
    """Solve ``min ||signature.T x - b||, x >= 0`` (Lawson-Hanson) for each bulk sample.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk
        Samples × genes; genes that are NaN in a sample are left out for it.

    Returns
    -------
    Weights, samples × cell types, not normalised.
    """
    weights = np.empty((len(bulk), len(signature)))
    for row, sample in enumerate(bulk):
        present = ~np.isnan(sample)
        # the scale of a sample does not matter to the shares, but it does to the solver's tolerance
        target = sample[present] / max(float(sample[present].mean()), np.finfo(float).tiny)
        weights[row] = nnls(signature[:, present].T, target)[0]
    return weights


class NNLS(LinearModel):
    """Non-negative least squares on marker genes in absolute units.

    The profiles are mean counts per cell, so a weight is a number of cells and the fractions are cell shares: the RNA
    content of each type is in its profile. Needs no pairs.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, all where none are selected.
    """

    method = "nnls"

    def _fit(self, without: Collection[str]) -> None:
        profiles, _ = self._reference.profiles(without)
        self.signature_ = profiles / max(profiles.mean(), np.finfo(float).tiny)
        self.summary_ = f"{len(self.cell_types_)} profiles, {len(self.genes_)} genes"

    def _fractions(self, expression: np.ndarray) -> np.ndarray:
        return solve_nnls(self.signature_, expression)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"signature": self.signature_}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.signature_ = arrays["signature"]
