"""Non-negative ridge regression on the profiles, shrunk to the mean composition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdeconv._data.checks import checked
from scdeconv._stats.expression import to_shares
from scdeconv._stats.least_squares import solve_nonnegative
from scdeconv.models._record import Method
from scdeconv.models._signature_model import SignatureModel, SignatureState, describe
from scdeconv.models.reference.nnls import solve_nnls

if TYPE_CHECKING:
    from collections.abc import Collection

    from mudata import MuData

    from scdeconv._data.paired_data import PairedData

# candidate penalties in units of the largest squared singular value of the signature; set by hand
PENALTIES = np.logspace(-14, 3, 86)


def scale_mean(signature: np.ndarray, bulk: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the least-squares multiple of the mean composition for each sample, samples × cell types."""
    fitted = mean @ signature
    return np.outer(bulk @ fitted / max(fitted @ fitted, np.finfo(float).tiny), mean)


def choose_penalties(signature: np.ndarray, bulk: np.ndarray, mean: np.ndarray) -> np.ndarray:
    r"""Choose the penalty of each sample by generalised cross-validation over genes (Golub, Heath & Wahba 1979).

    .. math:: \mathrm{GCV}(\lambda) = G \, |(I - H_\lambda) r|^2 \, / \, (G - \mathrm{tr} A_\lambda)^2

    with r the residual of the sample after the scaled mean composition, :math:`H_\lambda` the hat matrix of ridge
    regression on the signature, and :math:`A_\lambda = P + H_\lambda (I - P)` the hat matrix of the whole fit. P is the
    projection on the expression of the mean composition, because the scale is also estimated. The computation is
    diagonal in the singular vectors of the signature. It ignores the non-negativity constraint.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk
        Samples × genes.
    mean
        Mean composition, length cell types.

    Returns
    -------
    Elements of ``PENALTIES``, length samples.
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
        Mean composition :math:`\bar p`, length cell types; c is its least-squares multiple for the sample.
    penalty
        :math:`\lambda`, scalar or length samples, in units of the squared largest singular value :math:`s_1` of S.

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


@dataclass(frozen=True, kw_only=True)
class NonNegativeRidgeState(SignatureState):
    """Signature and mean composition.

    Parameters
    ----------
    mean
        Mean composition, length cell types.
    penalty
        Penalty; None: chosen for each sample.
    """

    mean: np.ndarray
    penalty: float | None

    def solve(self, signature: np.ndarray, bulk: np.ndarray) -> np.ndarray:
        """Return weights, samples × cell types."""
        penalty = choose_penalties(signature, bulk, self.mean) if self.penalty is None else self.penalty
        return solve_nonnegative_ridge(signature, bulk, self.mean, penalty)


class NonNegativeRidge(SignatureModel):
    """Non-negative ridge regression that shrinks to the mean composition.

    The mean composition determines fractions that the sample does not identify, such as the ratio of two similar types.
    It is the mean over paired donors. Without pairs, it is the mean of the non-negative least-squares solutions of the
    training bulk. The profiles are mean counts per cell, so the fractions are cell fractions.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, or all genes if none were selected.
    penalty
        Penalty in units of the largest squared singular value of the signature. 0: non-negative least squares. Much
        larger than 1: the mean composition. None: chosen for each sample by generalised cross-validation.

    Notes
    -----
    Ridge regression (Hoerl & Kennard 1970), solved by non-negative least squares on the augmented system. The shrinkage
    to the mean composition is our modification. Avila Cobos et al. (2020) shrink to zero and set negative weights to
    zero. The cross-validation assumes genes with independent noise of equal variance. With a platform effect that
    correlated genes share, the chosen penalty is too small. A sample without expression gets equal fractions.

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
    state_type = NonNegativeRidgeState

    @classmethod
    def tuning_space(cls) -> dict[str, Any]:
        """Return the default search space of :func:`scdeconv.tl.tune`, without the number of genes.

        Returns
        -------
        Dictionary from argument names to choices or Optuna distributions.
        """
        from optuna.distributions import FloatDistribution

        return {"penalty": FloatDistribution(1e-8, 10.0, log=True)}

    @checked()
    def __init__(self, mdata: MuData | None = None, *, penalty: float | None = None) -> None:
        super().__init__(mdata)
        self.parameters_ = {"penalty": penalty}

    def fit(self, data: PairedData, without: Collection[str] = ()) -> NonNegativeRidgeState:
        """Compute the signature and the mean composition.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        The learned state, a ``NonNegativeRidgeState``.
        """
        signature = self.signature(data, without)
        pairs = data.pairs(without)
        if len(pairs.donors):
            by_donor = pd.DataFrame(pairs.fractions).groupby(pairs.donors).mean()
            mean, origin = by_donor.mean().to_numpy(), f"{len(by_donor)} paired donors"
        else:
            solved = to_shares(solve_nnls(signature, data.bulk(without)))
            mean, origin = to_shares(solved.mean(axis=0)), f"{len(solved)} bulk samples"
        return NonNegativeRidgeState(
            signature=signature,
            mean=mean,
            penalty=self.parameters_["penalty"],
            summary=f"{describe(data)}, mean of {origin}",
        )
