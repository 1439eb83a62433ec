"""Bisque: bulk brought to the scale of single cells by the pairs, gene by gene, then least squares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

from scdeconv._data import keys
from scdeconv._data.annotated import values_of
from scdeconv._stats.expression import fill_missing, to_shares
from scdeconv._stats.rounding import deviations_from_mean
from scdeconv.models._base import LinearModel
from scdeconv.models._record import Method

if TYPE_CHECKING:
    from collections.abc import Collection

# weight of the row that asks for a sum of one, against the length of the longest profile
SUM_WEIGHT = 1e3


class Bisque(LinearModel):
    """Reference-based decomposition of Jew et al. 2020.

    The expression that single cells predict for a paired sample is the reference times its fractions. Each gene of bulk
    is mapped to it by the regression line over the training donors; then non-negative least squares with a sum of one.
    Genes that do not vary in bulk are not used. The line is fitted to the training donors only.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, all where none are selected.

    Notes
    -----
    As in the original, profiles are of cells normalised to one total, so the fractions are cell shares through the
    pairs, not through cell sizes.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.Bisque.setup_mudata(mdata)
    >>> model = scdeconv.models.Bisque(mdata)
    >>> model.train()
    >>> model.predict(mdata["bulk"]).shape
    (12, 7)
    """

    record = Method(
        key="bisque",
        family="paired",
        needs=("pairs", "profiles"),
        summary="each gene of bulk rescaled to the reference, then NNLS",
        reference="Jew et al. 2020",
    )

    def _fit(self, without: Collection[str]) -> None:
        bulk = self._require_data()[keys.BULK]
        known = self._known(without)
        profiles, size = self._reference.profiles(without)
        self.signature_ = profiles / np.maximum(size, np.finfo(float).tiny)[:, None]
        expression = values_of(bulk, known, self.genes_)
        shares = to_shares(expression)
        target = bulk.obsm[keys.MEASURED].to_numpy(dtype=float)[known] @ self.signature_
        self.reference_, self.level_ = shares.mean(axis=0), target.mean(axis=0)
        deviations = deviations_from_mean(shares)
        variance = (deviations**2).sum(axis=0)
        self.used_ = variance > 0
        slope = (deviations * (target - self.level_)).sum(axis=0)
        self.slope_ = np.divide(slope, variance, out=np.zeros_like(slope), where=self.used_)
        self.summary_ = f"{known.sum()} paired samples, {self.used_.sum()} genes"

    def _fractions(self, expression: np.ndarray) -> np.ndarray:
        shares = fill_missing(expression, self.reference_ / self.reference_.sum())
        transformed = self.level_ + (shares - self.reference_) * self.slope_
        signature = self.signature_[:, self.used_]
        weight = SUM_WEIGHT * np.linalg.norm(signature, axis=1).max()
        system = np.vstack([signature.T, np.full(len(signature), weight)])
        return np.stack([nnls(system, np.append(sample[self.used_], weight))[0] for sample in transformed])

    def _arrays(self) -> dict[str, np.ndarray]:
        names = ("signature", "reference", "level", "slope", "used")
        return {name: getattr(self, f"{name}_") for name in names}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            setattr(self, f"{name}_", array)
