"""Ridge regression in closed form, with the penalty chosen by leave-one-donor-out cross-validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from scdeconv._data.checks import checked
from scdeconv._stats.expression import fill_missing, log_shares, to_shares
from scdeconv._stats.mixing import mix_rows
from scdeconv._stats.ridge import LEAST_SD, fit_log_ratios
from scdeconv.models._cross_fitted import CrossFittedModel
from scdeconv.models._record import Method
from scdeconv.models._state import State
from scdeconv.models.paired._own_donors import mix_of, rna_per_cell

if TYPE_CHECKING:
    from collections.abc import Collection

    from mudata import MuData

    from scdeconv._data.paired_data import PairedData

# number of mixtures for each donor, and in total (set by hand)
MIXTURES_PER_DONOR, MAX_MIXTURES = 10, 1000


@dataclass(frozen=True, kw_only=True)
class RidgeState(State):
    """Regression of centred log-ratios on standardised log expression.

    Parameters
    ----------
    reference
        Mean share of each gene in the training bulk, used to impute missing genes.
    centre, scale
        Mean and standard deviation of the log expression of each gene.
    coefficients
        Regression coefficients, genes × cell types.
    intercept
        Length cell types.
    """

    reference: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    intercept: np.ndarray

    def log_expression(self, expression: np.ndarray) -> np.ndarray:
        """Return log expression with imputed missing genes, samples × genes."""
        return log_shares(fill_missing(expression, self.reference))

    def log_ratios(self, expression: np.ndarray) -> np.ndarray:
        """Return predicted log-ratios, samples × cell types."""
        return (self.log_expression(expression) - self.centre) / self.scale @ self.coefficients + self.intercept

    def solve(self, expression: np.ndarray) -> tuple[np.ndarray, None]:
        """Return log-ratios (samples × cell types); the regression does not estimate noise."""
        return self.log_ratios(expression), None

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return fractions, samples × cell types."""
        fractions: np.ndarray = softmax(self.log_ratios(expression), axis=1)
        return fractions


def fit_ridge(
    expression: np.ndarray,
    fractions: np.ndarray,
    groups: np.ndarray,
    mixtures: tuple[np.ndarray, np.ndarray] | None = None,
) -> RidgeState:
    """Fit the regression, with the penalty chosen by leave-one-group-out cross-validation.

    Parameters
    ----------
    expression
        Samples × genes, linear.
    fractions
        Samples × cell types.
    groups
        Donor of each sample.
    mixtures
        Expression and fractions of mixtures of the samples. They have no part in the choice of the penalty.

    Returns
    -------
    Fitted regression.
    """
    shares, x = to_shares(expression), log_shares(expression)
    centre, scale = x.mean(axis=0), x.std(axis=0) + LEAST_SD
    more = None if mixtures is None else ((log_shares(mixtures[0]) - centre) / scale, mixtures[1])
    fit = fit_log_ratios((x - centre) / scale, fractions, groups, more)
    return RidgeState(
        reference=shares.mean(axis=0),
        centre=centre,
        scale=scale,
        coefficients=fit.coefficients,
        intercept=fit.intercept,
        summary=f"{len(x)} samples, {x.shape[1]} genes, penalty {fit.penalty:.2g}",
    )


class Ridge(CrossFittedModel):
    """Ridge regression from log expression to centred log-ratios of the fractions, trained on the pairs.

    The penalty minimises the leave-one-donor-out error.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, or all genes if none were selected.
    mix
        Also train on mixtures of the donors, as in :class:`SimpleDNN`: sum of the parameters of the Dirichlet distribution
        of the donors' weights. 0: no mixtures. None: the value passed to :func:`scdeconv.pp.augment`, or else 0. The
        mixtures are drawn from a fixed seed.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.Ridge.setup_mudata(mdata)
    >>> model = scdeconv.models.Ridge(mdata)
    >>> model.train()
    >>> model.predict(mdata["bulk"]).shape
    (12, 7)
    """

    record = Method(
        key="ridge",
        family="paired",
        needs=("pairs",),
        summary="ridge regression of log-ratios on log expression",
        reference="this library",
    )
    state_type = RidgeState

    @classmethod
    def tuning_space(cls) -> dict[str, Any]:
        """Return the default search space of :func:`scdeconv.tl.tune`, without the number of genes.

        Returns
        -------
        Dictionary from argument names to choices.
        """
        return {"mix": [None, 1.0, 4.0]}

    @checked()
    def __init__(self, mdata: MuData | None = None, *, mix: float | None = None) -> None:
        super().__init__(mdata)
        self.parameters_ = {"mix": mix}

    def fit(self, data: PairedData, without: Collection[str] = ()) -> RidgeState:
        """Regress the measured fractions on the bulk of the pairs.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        The learned state, a ``RidgeState``.
        """
        pairs, mix = data.pairs(without), mix_of(self.parameters_["mix"], data.mdata, 0.0)
        if not mix:
            return fit_ridge(*pairs)
        rna = rna_per_cell(data, pairs.fractions, without)
        linear = to_shares(pairs.expression) * rna[:, None]
        n_mixtures = min(MIXTURES_PER_DONOR * len(set(pairs.donors)), MAX_MIXTURES)
        mixtures = mix_rows(linear, pairs.fractions, pairs.donors, mix, n_mixtures, np.random.default_rng(0))
        return fit_ridge(*pairs, mixtures)
