"""Ridge regression in closed form, its penalty chosen by leaving whole donors out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scipy.special import softmax

from scdeconv._data import keys
from scdeconv._data.annotated import values_of
from scdeconv._stats.expression import fill_missing, log_shares, to_shares
from scdeconv._stats.ridge import LEAST_SD, fit_log_ratios
from scdeconv.models._base import LinearModel
from scdeconv.models._record import Method

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np


class Ridge(LinearModel):
    """Ridge regression from log expression to centred log-ratios of the fractions, on the pairs.

    The penalty is the one whose predictions of left-out donors err least.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, all where none are selected.

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
        genes_per_type=150,
    )

    def _fit(self, without: Collection[str]) -> None:
        expression, fractions, groups = self._rows(without)
        shares = to_shares(expression)
        x = log_shares(expression)
        self.reference_, self.centre_, self.scale_ = shares.mean(axis=0), x.mean(axis=0), x.std(axis=0) + LEAST_SD
        fit = fit_log_ratios((x - self.centre_) / self.scale_, fractions, groups)
        self.coefficients_, self.intercept_ = fit.coefficients, fit.intercept
        self.summary_ = f"{len(x)} samples, {len(self.genes_)} genes, penalty {fit.penalty:.2g}"

    def _rows(self, without: Collection[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return expression, fractions and group of the samples to learn from."""
        bulk = self._require_data()[keys.BULK]
        known = self._known(without)
        donors = bulk.obs[keys.DONOR].to_numpy()[known].astype(str)
        return values_of(bulk, known, self.genes_), bulk.obsm[keys.MEASURED].to_numpy(dtype=float)[known], donors

    def _fractions(self, expression: np.ndarray) -> np.ndarray:
        x = (log_shares(fill_missing(expression, self.reference_)) - self.centre_) / self.scale_
        return softmax(x @ self.coefficients_ + self.intercept_, axis=1)

    def _arrays(self) -> dict[str, np.ndarray]:
        names = ("reference", "centre", "scale", "coefficients", "intercept")
        return {name: getattr(self, f"{name}_") for name in names}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            setattr(self, f"{name}_", array)
