"""Baseline: the mean composition of the training donors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv.models._cross_fitted import CrossFittedModel
from scdeconv.models._record import Method
from scdeconv.models._state import State

if TYPE_CHECKING:
    from collections.abc import Collection

    from scdeconv._data.paired_data import PairedData


@dataclass(frozen=True, kw_only=True)
class MeanCompositionState(State):
    """Mean composition, length cell types."""

    mean: np.ndarray

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return the mean composition for each sample."""
        return np.tile(self.mean, (len(expression), 1))


class MeanComposition(CrossFittedModel):
    """Baseline that predicts the mean composition of the training donors for each sample.

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
    >>> len(model.predict(mdata["bulk"], in_sample=True).drop_duplicates())
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

    state_type = MeanCompositionState

    def fit(self, data: PairedData, without: Collection[str] = ()) -> MeanCompositionState:
        """Average the measured fractions over the samples of each donor, then over donors.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        The learned state, a ``MeanCompositionState``.

        Raises
        ------
        ValueError
            If no sample has measured fractions.
        """
        pairs = data.pairs(without)
        if not len(pairs.donors):
            msg = (
                "Expected samples with measured fractions, found none. Pair bulk with cells, or pass fractions to "
                "pp.pair."
            )
            raise ValueError(msg)
        by_donor = pd.DataFrame(pairs.fractions).groupby(pairs.donors).mean()
        return MeanCompositionState(mean=by_donor.mean().to_numpy(), summary=f"mean of {len(by_donor)} donors")

    def _input_genes(self) -> pd.Index:
        # the prediction does not depend on expression
        return pd.Index([])
