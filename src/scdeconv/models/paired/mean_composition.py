"""The baseline that every other method must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv.models._base import LinearModel
from scdeconv.models._record import Method

if TYPE_CHECKING:
    from collections.abc import Collection


class MeanComposition(LinearModel):
    """Predicts the mean composition of the training donors for every sample, whatever its expression.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`, with at least one paired donor.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.MeanComposition.setup_mudata(mdata)
    >>> model = scdeconv.models.MeanComposition(mdata)
    >>> model.train()
    >>> len(model.predict(mdata["bulk"]).drop_duplicates())
    1
    """

    record = Method(
        key="mean_composition",
        family="paired",
        needs=("pairs",),
        summary="baseline: the mean composition of the pairs for every sample",
        reference="baseline",
        fewest_pairs=1,
    )

    def _fit(self, without: Collection[str]) -> None:
        bulk = self._require_data()[keys.BULK]
        known = self._known(without)
        # samples within donors, then donors
        by_donor = bulk.obsm[keys.MEASURED][known].groupby(bulk.obs[keys.DONOR].to_numpy()[known]).mean()
        if by_donor.empty:
            msg = "Expected a sample with measured fractions, found none. Pair bulk with cells, or give fractions."
            raise ValueError(msg)
        self.mean_ = by_donor.mean().to_numpy()
        self.summary_ = f"mean of {len(by_donor)} donors"

    def _input_genes(self) -> pd.Index:
        # the prediction does not read expression, so it must not ask for any gene
        return pd.Index([])

    def _fractions(self, expression: np.ndarray) -> np.ndarray:
        return np.tile(self.mean_, (len(expression), 1))

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"mean": self.mean_}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.mean_ = arrays["mean"]
