"""Estimate of a report: fractions, bounds, quality flags and record, read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from scdeconv import models, tl
from scdeconv._data.fractions import get_fractions
from scdeconv._data.keys import UNS
from scdeconv.models import Method

if TYPE_CHECKING:
    from anndata import AnnData

    from scdeconv.models import DeconvolutionModel

# columns of the quality table that are flags: short and long description
FLAGS = {
    "outside": ("extrapolated", "differ from the training donors, so that their fractions are extrapolated"),
    "few_reads": ("few reads", "have few reads, so that their fractions are noisy"),
    "wide_intervals": ("wide intervals", "have wide intervals, which say little more than the mean composition"),
}
# columns that are numbers: description
MEASURES = {
    "noise": "Residual relative to its expectation",
    "composition": "Largest distance of a cell type from the mean of the training donors, in SD",
}
NO_ESTIMATE = "no estimate"


@dataclass(frozen=True)
class Estimate:
    """Tables and record of an estimate.

    Parameters
    ----------
    key
        Key of ``obsm``.
    fractions
        Samples × cell types.
    bounds
        Lower and upper bounds of the prediction intervals; None without.
    flags
        Samples × flags, True or False.
    measures
        Samples × quality measures.
    record
        What is known about the method and its training, as :func:`scdeconv.tl.predict` writes it.
    method
        Record of the method; None if unknown.
    """

    key: str
    fractions: pd.DataFrame
    bounds: tuple[pd.DataFrame, pd.DataFrame] | None
    flags: pd.DataFrame
    measures: pd.DataFrame
    record: dict[str, Any]
    method: Method | None

    @property
    def missing(self) -> list[str]:
        """Samples without estimate."""
        return list(self.fractions.index[self.fractions.isna().any(axis=1)])

    @property
    def held_out(self) -> pd.DataFrame | None:
        """Errors on held-out donors, if they are those of the cell types of this estimate."""
        table = self.record.get("held_out")
        return table if table is not None and {*self.fractions} <= {*table.index} else None

    def flags_of_samples(self) -> pd.Series:
        """Return the short descriptions of the flags of each sample; empty without flags."""
        texts = pd.Series("", index=self.fractions.index)
        texts[self.missing] = NO_ESTIMATE
        for name, flagged in self.flags.items():
            more = flagged & (texts != "")
            texts = texts.mask(flagged & ~more, FLAGS[str(name)][0]).mask(more, texts + "; " + FLAGS[str(name)][0])
        return texts


def read_estimate(adata: AnnData, key: str, model: DeconvolutionModel | None) -> Estimate:
    """Read an estimate; what a model tells replaces the record."""
    fractions = get_fractions(adata, key)
    fractions.index = fractions.index.astype(str)
    sides = [f"{key}_lower", f"{key}_upper"]
    bounds = None
    if all(side in adata.obsm for side in sides):
        lower, upper = (get_fractions(adata, side)[fractions.columns] for side in sides)
        bounds = lower, upper
    quality = adata.obsm.get(f"{key}_quality", pd.DataFrame(index=adata.obs_names))
    quality = quality.set_axis(fractions.index)
    record = dict(adata.uns.get(UNS, {}).get(key, {}))
    if model is not None:
        record |= tl.record_of(model)
    method = models.records().get(record.get("method", "")) if model is None else model.record
    return Estimate(
        key=key,
        fractions=fractions,
        bounds=bounds,
        # flags of tables from files are text
        flags=pd.DataFrame(
            {name: quality[name].astype(str) == "True" for name in FLAGS if name in quality}, fractions.index
        ),
        measures=pd.DataFrame(
            {name: quality[name].astype(float) for name in MEASURES if name in quality}, fractions.index
        ),
        record=record,
        method=method,
    )
