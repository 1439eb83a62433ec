"""Genes and cell types whose effects can be told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data.checks import examples
from scdeconv._data.warnings import warn
from scdeconv._stats.expression import to_shares
from scdeconv._stats.rounding import deviations_from_mean
from scdeconv._stats.type_expression.interactions import variance_inflation

if TYPE_CHECKING:
    from scdeconv._data.checks import Problems

    from .design import Design

# types with a lower mean fraction in a group are not tested: the error of an estimate is of this size (set by hand)
MIN_FRACTION = 0.005
# least number of expressed genes (set by hand)
MIN_GENES = 10
# least residual degrees of freedom (set by hand)
MIN_DF = 3


def frequent_types(table: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Return the fractions of the types that are frequent in every group, with rows that sum to 1."""
    groups = [np.full(len(table), fill_value=True)]
    if design.groups is not None:
        groups = [design.groups == level for level in design.groups.categories]
    frequent = np.all([table[rows].mean() >= MIN_FRACTION for rows in groups], axis=0)
    if not frequent.all():
        rare = table.columns[~frequent]
        warn(
            f"Expected mean fractions of at least {MIN_FRACTION:g} in every group, found less for {examples(rare, n=5)}. Genes "
            "are not tested in these types. Merge them with similar types: tl.merge_types."
        )
    kept = table.loc[:, frequent]
    totals = np.maximum(kept.to_numpy().sum(axis=1), np.finfo(float).tiny)
    return kept.div(totals, axis=0)


def check_genes(problems: Problems, expression: np.ndarray) -> None:
    """Report too few genes, and expression that is the same in all samples; samples × expressed genes."""
    n_genes = expression.shape[1]
    if n_genes < MIN_GENES:
        problems.add(
            f"Expected at least {MIN_GENES} expressed genes, because expression is relative to the total of a sample, found "
            f"{n_genes}. Pass all genes."
        )
    elif not deviations_from_mean(to_shares(expression)).any():
        problems.add(
            "Expected expression that differs between the samples, found the same in all. Pass other values as X or layer."
        )


def check_estimable(problems: Problems, fractions: pd.DataFrame, design: Design, n_factors: int | None) -> np.ndarray:
    """Return the variance inflation, variables × cell types; report too few samples and collinear fractions."""
    n_samples, n_types = fractions.shape
    if not n_types:
        problems.add(
            f"Expected cell types with mean fractions of at least {MIN_FRACTION:g} in every group, found none. Merge similar "
            "types: tl.merge_types."
        )
        return np.empty(0)
    tested, others = design.matrix[:, design.tested], design.matrix[:, 1 + len(design.contrasts) :]
    n_others = others.shape[1] + (n_factors or 0)
    needed = n_types * (1 + tested.shape[1]) + n_others + MIN_DF
    if n_samples < needed:
        problems.add(
            f"Expected at least {needed} samples with fractions for {n_types} cell types and {n_others} columns of covariates and "
            f"latent factors, found {n_samples}. Merge similar types (tl.merge_types), remove covariates, or add samples."
        )
        return np.empty(0)
    sizes = pd.Series(dtype=int) if design.groups is None else design.groups.value_counts()
    small = [f"{level} ({size} samples)" for level, size in sizes.items() if size < n_types]
    if small:
        problems.add(
            f"Expected at least {n_types} samples in every group, one for each cell type, found {examples(small)}. Merge "
            "similar types (tl.merge_types) or groups, or add samples."
        )
        return np.empty(0)
    inflation = variance_inflation(fractions.to_numpy(), tested, others)
    singular = fractions.columns[np.isinf(inflation).any(axis=0)]
    if len(singular):
        problems.add(
            f"Expected linearly independent fractions within the groups, found collinear ones: {examples(singular, n=10)}. "
            "The effects on these types cannot be told apart. Merge them: tl.merge_types."
        )
    return inflation
