"""SQUID: bulk with the mean and variance of pseudobulk, then dampened weighted least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scdeconv._stats.expression import fill_missing, to_shares
from scdeconv._stats.rounding import deviations_from_mean
from scdeconv._stats.solvers.dampened_weights import solve_dwls
from scdeconv.models._cross_fitted import CrossFittedModel
from scdeconv.models._record import Method
from scdeconv.models._signature_model import describe
from scdeconv.models._state import State

if TYPE_CHECKING:
    from collections.abc import Collection

    from scdeconv._data.paired_data import PairedData


@dataclass(frozen=True)
class MomentMap:
    """Linear map of each gene from bulk to pseudobulk that matches mean and variance.

    Parameters
    ----------
    mean, sd
        Mean and standard deviation of the bulk, length genes.
    target_mean, target_sd
        Mean and shrunken standard deviation of the pseudobulk, length genes.
    """

    mean: np.ndarray
    sd: np.ndarray
    target_mean: np.ndarray
    target_sd: np.ndarray

    @classmethod
    def of(cls, bulk: np.ndarray, target: np.ndarray) -> MomentMap:
        """Return the map from bulk to its pseudobulk (samples × genes).

        The sum of squares of the pseudobulk is divided by the number of samples plus 1, as in SQUID and Bisque.
        """
        target_sd = np.sqrt((deviations_from_mean(target) ** 2).sum(axis=0) / (len(target) + 1))
        sd = np.sqrt((deviations_from_mean(bulk) ** 2).sum(axis=0) / max(len(bulk) - 1, 1))
        return cls(bulk.mean(axis=0), sd, target.mean(axis=0), target_sd)

    @property
    def usable(self) -> np.ndarray:
        """Whether the bulk of the gene varies (bool)."""
        return self.sd > 0

    def transform(self, bulk: np.ndarray) -> np.ndarray:
        """Return bulk (samples × genes) on the scale of the pseudobulk; negative values are set to 0."""
        slope = np.divide(self.target_sd, self.sd, out=np.zeros_like(self.sd), where=self.usable)
        return np.maximum((bulk - self.mean) * slope + self.target_mean, 0)


@dataclass(frozen=True, kw_only=True)
class SQUIDState(State):
    """Profiles and the map from bulk to pseudobulk.

    Parameters
    ----------
    signature
        Mean counts per cell, cell types × genes.
    moments
        Map from shares of bulk to pseudobulk.
    """

    signature: np.ndarray
    moments: MomentMap

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return weights, samples × cell types."""
        shares = fill_missing(expression, self.moments.mean / self.moments.mean.sum())
        used = self.moments.usable & ~np.isnan(expression).any(axis=0)
        return solve_dwls(self.signature[:, used], self.moments.transform(shares)[:, used])


class SQUID(CrossFittedModel):
    r"""Transformed bulk and dampened weighted least squares (Avila Cobos et al. 2023).

    The pseudobulk of a paired sample is the product of the measured fractions and the mean counts per cell. A linear map
    for each gene gives the bulk of the pairs the mean and the standard deviation of their pseudobulk, the latter
    multiplied by :math:`\sqrt{(n - 1) / (n + 1)}` for n pairs. The transformed bulk is solved by :class:`DWLS`.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, or all genes if none were selected.

    Notes
    -----
    The fractions are cell fractions, because measured fractions and profiles are per cell. In contrast to
    :class:`Bisque`, the sign of the correlation between bulk and pseudobulk is not used.

    Differences from the original: Mean and standard deviation are those of the training pairs. The original uses all bulk
    samples, so that a prediction depends on the other samples, and in its leave-one-out mode the pseudobulk of the sample
    that is left out. Genes that do not vary in the paired bulk are not used; the original sets them to 0. The iteration
    of DWLS ends at a change of 0.01 %; that of the original ends at 1 %, because its solution sums to about 1.

    The original multiplies profiles in the order of the cells with fractions in alphabetical order of the types, if it
    computes both itself. The pseudobulk is then wrong unless the orders agree. On the data in ``tests/parity``, with this
    order, the stopping rule and the samples of the original and its caps of the weights, fractions agree with SQUID 0.1.0
    within 5e-10, the rounding of its table.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.SQUID.setup_mudata(mdata)
    >>> model = scdeconv.models.SQUID(mdata)
    >>> model.train()
    >>> model.predict(mdata["bulk"]).shape
    (12, 7)
    """

    record = Method(
        key="squid",
        family="paired",
        needs=("pairs", "profiles"),
        summary="each gene of bulk gets mean and SD of pseudobulk, then DWLS",
        reference="Avila Cobos et al. 2023",
    )
    state_type = SQUIDState

    def fit(self, data: PairedData, without: Collection[str] = ()) -> SQUIDState:
        """Compute the profiles and the map from bulk to pseudobulk.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        The learned state, a ``SQUIDState``.
        """
        pairs, signature = data.pairs(without), data.profiles(without)
        moments = MomentMap.of(to_shares(pairs.expression), pairs.fractions @ signature)
        return SQUIDState(
            signature=signature, moments=moments, summary=f"{len(pairs.donors)} paired samples, {describe(data)}"
        )
