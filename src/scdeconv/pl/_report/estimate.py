"""Estimate of a report: fractions, bounds, quality flags and record, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import pandas as pd

from scdeconv import models, tl
from scdeconv._data.checks import Problems, examples, unit_problem
from scdeconv._data.fractions import get_fractions, levels_of
from scdeconv._data.keys import UNS
from scdeconv._data.labels import as_flags
from scdeconv.models import Method

if TYPE_CHECKING:
    from collections.abc import Collection

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
# classes of entries of the record of an estimate
RECORD: dict[str, type] = {
    "held_out": pd.DataFrame,
    "n_held_out_donors": Integral,
    "parameters": Mapping,
    "coverage": Real,
    "known": pd.DataFrame,
}
# what the record of an estimate and its model have in common
SAME_IN_MODEL = ("method", "trained_on", "n_genes")


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
        if table is None or "n_held_out_donors" not in self.record:
            return None
        return table if {*self.fractions} <= {*table.index} else None

    def flags_of_samples(self) -> pd.Series:
        """Return the short descriptions of the flags of each sample; empty without flags."""
        texts = pd.Series("", index=self.fractions.index)
        texts[self.missing] = NO_ESTIMATE
        for name, flagged in self.flags.items():
            more = flagged & (texts != "")
            texts = texts.mask(flagged & ~more, FLAGS[str(name)][0]).mask(more, texts + "; " + FLAGS[str(name)][0])
        return texts


def read_estimate(adata: AnnData, key: str, model: DeconvolutionModel | None) -> Estimate:
    """Read an estimate; a model tells about estimates without a record. Raise ``ValueError`` for tables with problems."""
    fractions = get_fractions(adata, key)
    fractions.index = fractions.index.astype(str)
    record = dict(adata.uns.get(UNS, {}).get(key, {}))
    problems = Problems("The report cannot be made")
    for name, kind in RECORD.items():
        if not isinstance(record.get(name), (kind, type(None))):
            problems.add(
                f"Expected the {name} of the estimate in adata.uns['{UNS}'][{key!r}], found {record[name]!r}. Delete it, or "
                "call tl.predict again."
            )
    _check_values(problems, fractions, key, levels_of(adata, key))
    bounds = _read_bounds(problems, adata, key, fractions)
    flags, measures = _read_quality(problems, adata, key, fractions.index)
    if model is not None:
        _check_model(problems, model, record, fractions)
        # merged or converted fractions have a record without the errors of the model
        record = record if "method" in record else {**tl.record_of(model), **record}
    problems.raise_if_any()
    method = models.records().get(record.get("method", "")) if model is None else model.record
    return Estimate(
        key=key, fractions=fractions, bounds=bounds, flags=flags, measures=measures, record=record, method=method
    )


def _check_values(problems: Problems, fractions: pd.DataFrame, key: str, levels: Mapping[str, Collection[str]]) -> None:
    """Report repeated samples, negative values and percent."""
    name, samples = f"adata.obsm[{key!r}]", fractions.index
    if not samples.is_unique:
        repeated = examples(samples[samples.duplicated()].unique())
        problems.add(f"Expected unique sample names, found {repeated} repeated. Call adata.obs_names_make_unique().")
    negative = samples[(fractions < 0).any(axis=1)]
    if len(negative):
        problems.add(
            f"Expected fractions of at least 0 in {name}, found negative values of {len(negative)} samples: "
            f"{examples(negative)}. Correct them, or use another key."
        )
    # levels overlap, so that their sums are no sums of fractions
    other_unit = "" if levels and {*fractions} <= {*levels} else unit_problem(fractions.to_numpy(), name)
    if other_unit:
        problems.add(other_unit)


def _read_bounds(
    problems: Problems, adata: AnnData, key: str, fractions: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Return the bounds of the prediction intervals; report cell types without bounds."""
    sides = [f"{key}_lower", f"{key}_upper"]
    if not all(side in adata.obsm for side in sides):
        return None
    tables = [get_fractions(adata, side) for side in sides]
    for side, table in zip(sides, tables, strict=True):
        lacking = fractions.columns.difference(table.columns, sort=False)
        if len(lacking):
            problems.add(
                f"Expected the cell types of adata.obsm[{key!r}] in adata.obsm[{side!r}], found none of {examples(lacking)}. "
                "Call tl.predict(..., coverage=0.9) again, or delete the bounds."
            )
    lower, upper = (table.reindex(columns=fractions.columns) for table in tables)
    return lower, upper


def _read_quality(problems: Problems, adata: AnnData, key: str, samples: pd.Index) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return flags and measures of the samples; report columns of other values."""
    name = f"{key}_quality"
    table = adata.obsm.get(name, pd.DataFrame(index=adata.obs_names))
    found: dict[str, pd.Series] = {}
    if not isinstance(table, pd.DataFrame):
        problems.add(
            f"Expected a DataFrame in adata.obsm[{name!r}], found {type(table).__name__}. Call tl.predict again or delete it."
        )
        table = pd.DataFrame(index=adata.obs_names)
    for column in (*FLAGS, *MEASURES):
        if column in table:
            try:
                found[column] = as_flags(table[column]) if column in FLAGS else table[column].astype(float)
            except (TypeError, ValueError):
                wanted = "True or False" if column in FLAGS else "numbers"
                problems.add(
                    f"Expected {wanted} in the column {column!r} of adata.obsm[{name!r}], found "
                    f"{examples(table[column].unique())}. Correct the column or delete it."
                )
    flags, measures = (
        pd.DataFrame({name: found[name].to_numpy() for name in names if name in found}, samples)
        for names in (FLAGS, MEASURES)
    )
    return flags, measures


def _check_model(
    problems: Problems, model: DeconvolutionModel, record: Mapping[str, Any], fractions: pd.DataFrame
) -> None:
    """Report a model of another estimate: of other cell types, or with another record."""
    of_model = tl.record_of(model)
    differing = [name for name in SAME_IN_MODEL if name in record and record[name] != of_model[name]]
    if differing:
        found = "; ".join(f"{name} {of_model[name]!r} instead of {record[name]!r}" for name in differing)
        problems.add(
            f"Expected the model of the estimate, found another one: {found}. Pass the model of tl.predict, or no model."
        )
    others = fractions.columns.difference([*model.cell_types_, *(model.training_.levels or {})], sort=False)
    if len(others) and "method" not in record:
        problems.add(
            f"Expected the model of the estimate, found one without the cell types {examples(others)}; it has "
            f"{examples(model.cell_types_)}. Pass the model of the estimate, or no model."
        )
