"""Bisque: gene-wise linear transformation of bulk to the single-cell scale, then non-negative least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

from scdeconv._stats.expression import fill_missing, to_shares
from scdeconv._stats.rounding import deviations_from_mean
from scdeconv.models._cross_fitted import CrossFittedModel
from scdeconv.models._record import Method
from scdeconv.models._state import State

if TYPE_CHECKING:
    from collections.abc import Collection

    from scdeconv._data.paired_data import PairedData

# weight of the sum-to-one row relative to the largest norm of a profile; chosen on tests/parity: 1e3 differs from the
# exact constraint of BisqueRNA by 4.3e-9, 1e4 to 1e6 by less than the rounding of its table
SUM_WEIGHT = 1e4


@dataclass(frozen=True, kw_only=True)
class BisqueState(State):
    """Regression lines from bulk to the reference.

    Parameters
    ----------
    signature
        Mean shares over cells, cell types × genes.
    reference
        Mean share of each gene in the paired bulk.
    level
        Mean expected share of each gene, from the signature and the measured fractions.
    slope
        Slope of the regression line of each gene.
    used
        Whether the gene varies in the paired bulk (bool).
    """

    signature: np.ndarray
    reference: np.ndarray
    level: np.ndarray
    slope: np.ndarray
    used: np.ndarray

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return the non-negative least-squares solutions with sum 1, samples × cell types."""
        shares = fill_missing(expression, self.reference / self.reference.sum())
        transformed = self.level + (shares - self.reference) * self.slope
        signature = self.signature[:, self.used]
        weight = SUM_WEIGHT * np.linalg.norm(signature, axis=1).max()
        system = np.vstack([signature.T, np.full(len(signature), weight)])
        return np.stack([nnls(system, np.append(sample[self.used], weight))[0] for sample in transformed])


class Bisque(CrossFittedModel):
    """Reference-based decomposition of Jew et al. 2020.

    The reference of a cell type is the mean counts per million over its cells. The expected expression of a paired
    sample is the product of the reference and the measured fractions. For each gene, a regression line over the
    training donors maps bulk expression to expected expression. Non-negative least squares with a sum of one gives the
    fractions. Genes without variance in the paired bulk are not used.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, or all genes if none were selected. Training reads
        the cells once.

    Notes
    -----
    The fractions are cell fractions because the measured fractions of the pairs are cell fractions. Cell sizes are not
    used.

    Without cells, the given profiles replace the mean counts per million. Each profile is divided by its total over all
    genes. Profiles of pooled counts weight each cell by its total. On the data in ``tests/parity`` this changes
    fractions by up to 0.006.

    The counts per million of cells are relative to all genes. The counts per million of bulk are relative to the genes
    of the model. The original can normalise before or after the selection of genes. Its mode without pairs
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

    state_type = BisqueState

    def fit(self, data: PairedData, without: Collection[str] = ()) -> BisqueState:
        """Fit the regression line from bulk to reference for each gene.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        The learned state, a ``BisqueState``.
        """
        pairs = data.pairs(without)
        signature = data.reference.mean_shares(without)
        shares, target = to_shares(pairs.expression), pairs.fractions @ signature
        reference, level = shares.mean(axis=0), target.mean(axis=0)
        deviations = deviations_from_mean(shares)
        variance = (deviations**2).sum(axis=0)
        used = variance > 0
        slope = (deviations * (target - level)).sum(axis=0)
        return BisqueState(
            signature=signature,
            reference=reference,
            level=level,
            slope=np.divide(slope, variance, out=np.zeros_like(slope), where=used),
            used=used,
            summary=f"{len(shares)} paired samples, {used.sum()} genes",
        )
