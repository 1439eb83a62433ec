"""Non-negative ridge regression on the profiles, drawn towards the mean composition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv._data import keys
from scdeconv._data.annotated import values_of
from scdeconv._stats.expression import to_shares
from scdeconv._stats.least_squares import solve_nonnegative
from scdeconv.models._record import Method
from scdeconv.models._signature_model import SignatureModel
from scdeconv.models.reference.nnls import solve_nnls

if TYPE_CHECKING:
    from collections.abc import Collection

    from mudata import MuData

# in units of the largest squared singular value of the signature; the smallest leaves noise-free mixtures as they are
PENALTIES = np.logspace(-14, 3, 86)


def scale_mean(signature: np.ndarray, bulk: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the multiple of the mean composition that fits each sample best, samples × cell types."""
    fitted = mean @ signature
    return np.outer(bulk @ fitted / max(fitted @ fitted, np.finfo(float).tiny), mean)


def choose_penalties(signature: np.ndarray, bulk: np.ndarray, mean: np.ndarray) -> np.ndarray:
    r"""Choose the penalty of each sample by generalised cross-validation over genes (Golub, Heath & Wahba 1979).

    .. math:: \mathrm{GCV}(\lambda) = G \, |(I - H_\lambda) r|^2 \, / \, (G - \mathrm{tr} A_\lambda)^2

    with r what the scaled mean composition leaves of the sample, :math:`H_\lambda` the hat matrix of ridge regression
    on the signature, and :math:`A_\lambda = P + H_\lambda (I - P)` that of the whole fit, P the projection on the
    expression of the mean composition: the scale is estimated, too. All is diagonal in the singular vectors of the
    signature. The constraint of no negative weights is left out of it.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk
        Samples × genes.
    mean
        Composition to shrink to, length cell types.

    Returns
    -------
    Penalties out of ``PENALTIES``, length samples.
    """
    n_genes = signature.shape[1]
    _, singular, vectors = np.linalg.svd(signature, full_matrices=False)
    residual = bulk - scale_mean(signature, bulk, mean) @ signature
    squares = (residual @ vectors.T) ** 2
    outside = np.maximum((residual**2).sum(axis=1) - squares.sum(axis=1), 0)
    direction = mean @ signature
    direction = (vectors @ direction) ** 2 / max(direction @ direction, np.finfo(float).tiny)
    power = singular**2 / max(singular.max(initial=0) ** 2, np.finfo(float).tiny)
    kept = power / (power + PENALTIES[:, None])
    freedom = 1 + kept.sum(axis=1) - kept @ direction
    left = outside[:, None] + squares @ ((1 - kept) ** 2).T
    return PENALTIES[(left / np.maximum(n_genes - freedom, np.finfo(float).eps) ** 2).argmin(axis=1)]


def solve_nonnegative_ridge(
    signature: np.ndarray, bulk: np.ndarray, mean: np.ndarray, penalty: np.ndarray | float
) -> np.ndarray:
    r"""Minimise :math:`|b - S^\top x|^2 + \lambda s_1^2 |x - c \bar p|^2` over :math:`x \ge 0` for each sample.

    Parameters
    ----------
    signature
        S, cell types × genes.
    bulk
        b, samples × genes.
    mean
        Mean composition :math:`\bar p`, length cell types; c is its best multiple for the sample.
    penalty
        :math:`\lambda`, one or length samples, in units of the squared largest singular value :math:`s_1` of S.

    Returns
    -------
    Weights, samples × cell types, not normalised.
    """
    _, triangle = np.linalg.qr(signature.T)
    gram = triangle.T @ triangle
    strength = np.broadcast_to(penalty, len(bulk)) * np.linalg.norm(gram, 2)
    centre = scale_mean(signature, bulk, mean)
    system = gram + strength[:, None, None] * np.eye(len(gram))
    return solve_nonnegative(system, bulk @ signature.T + strength[:, None] * centre)


class NonNegativeRidge(SignatureModel):
    """Non-negative least squares that shrink to the mean composition instead of to nothing.

    What a sample does not tell, such as how two similar types divide their sum, is taken from the mean: that of the
    paired donors, where there are any, else of the non-negative least-squares solutions of the training bulk. The
    profiles are mean counts per cell, so the fractions are shares of cells.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, all where none are selected.
    penalty
        Strength, in units of the largest squared singular value of the signature: 0 gives non-negative least squares,
        much more than 1 the mean. By default chosen for each sample by generalised cross-validation.

    Notes
    -----
    Ridge regression (Hoerl & Kennard 1970) by non-negative least squares on the system that is augmented by the prior,
    ours in its centre. Benchmarks shrink to zero instead and cut negative weights off (Avila Cobos et al. 2020). The
    cross-validation counts genes as equally noisy and independent; where one platform sees whole groups of genes
    differently it shrinks too little. A sample without any expression gets equal fractions.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.NonNegativeRidge.setup_mudata(mdata)
    >>> model = scdeconv.models.NonNegativeRidge(mdata, penalty=0.1)
    >>> model.train()
    >>> model.predict(mdata["bulk"]).shape
    (12, 7)
    """

    record = Method(
        key="nonnegative_ridge",
        family="reference",
        needs=("profiles",),
        summary="non-negative ridge regression towards the mean composition",
        reference="Hoerl & Kennard 1970; centre: this library",
    )

    def __init__(self, mdata: MuData | None = None, *, penalty: float | None = None) -> None:
        if penalty is not None and not 0 <= penalty < np.inf:
            msg = f"Expected penalty of at least 0, or None, found {penalty}."
            raise ValueError(msg)
        super().__init__(mdata)
        self.penalty = penalty
        self.parameters_ = {"penalty": penalty}

    def _fit(self, without: Collection[str]) -> None:
        super()._fit(without)
        bulk, known = self._require_data()[keys.BULK], self._known(without)
        donors = bulk.obs[keys.DONOR].astype(str)
        if known.any():
            measured = bulk.obsm[keys.MEASURED][known].groupby(donors[known].to_numpy()).mean()
            self.mean_, origin = measured.mean().to_numpy(), f"{len(measured)} paired donors"
        else:
            expression = values_of(bulk, ~donors.isin(without).to_numpy(), self.genes_)
            solved = to_shares(solve_nnls(self.signature_, expression))
            self.mean_, origin = to_shares(solved.mean(axis=0)), f"{len(solved)} bulk samples"
        self.summary_ += f", mean of {origin}"

    def _solve(self, signature: np.ndarray, bulk: np.ndarray) -> np.ndarray:
        penalty = choose_penalties(signature, bulk, self.mean_) if self.penalty is None else self.penalty
        return solve_nonnegative_ridge(signature, bulk, self.mean_, penalty)

    def _arrays(self) -> dict[str, np.ndarray]:
        return super()._arrays() | {"mean": self.mean_}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        super()._restore(arrays)
        self.mean_ = arrays["mean"]
