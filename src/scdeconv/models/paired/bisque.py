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

# weight of the row for the sum of one, relative to the norm of the longest profile. The fractions of tests/parity differ
# from those of the original's exact constraint by 4.3e-9 with 1e3; with 1e4 to 1e6 by the rounding of its table
SUM_WEIGHT = 1e4


class Bisque(LinearModel):
    """Reference-based decomposition of Jew et al. 2020.

    The reference of a cell type is the mean over its cells of each cell's counts per million. The expected expression of
    a paired sample is the reference times the sample's fractions. Each gene of bulk is mapped to it by a regression line
    over the training donors. Non-negative least squares with a sum of one gives the fractions. Genes that do not vary in
    bulk are not used. The lines are fitted to the training donors only.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, all where none are selected. Training reads the cells
        once.

    Notes
    -----
    The fractions are shares of cells because the measured fractions of the pairs are. Cell sizes are not used.

    Without cells, the given profiles stand for the mean counts per million: each is divided by its total over all genes.
    Profiles of pooled counts weight each cell by its total. On the data in ``tests/parity`` that changes fractions by up
    to 0.006.

    The counts per million of a cell are relative to all genes of the cells. Those of bulk are relative to the genes of
    the model. The original has an option for both orders of normalisation and selection of genes. Its mode without pairs
    (``use.overlap=FALSE``) is not implemented.

    On the data in ``tests/parity``, fractions agree with BisqueRNA 1.0.5 within the rounding of its table (5e-10).

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
        self.signature_ = self._reference.mean_shares(without)
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
