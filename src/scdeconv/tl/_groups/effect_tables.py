"""Tables of the effects of groups on the expression of cell types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._stats.group_tests.log_ratios import adjust_p_values

if TYPE_CHECKING:
    from scdeconv._stats.type_expression.interactions import Interactions

    from .design import Design

# false discovery rate of the genes that are counted
ERROR_RATE = 0.05


def tidy_effects(
    found: Interactions,
    design: Design,
    cell_types: pd.Index,
    tested_types: pd.Index,
    genes: pd.Index,
    expressed: np.ndarray,
) -> pd.DataFrame:
    """Return one row for each cell type, contrast and gene.

    Parameters
    ----------
    found
        Effects on the tested types and the expressed genes.
    design
        Design of the groups.
    cell_types, tested_types
        All types, and those of ``found``; the others have NaN.
    genes, expressed
        All genes, and the mask of those of ``found``; the others have NaN.
    """
    tested = np.isfinite(found.p)
    columns = {
        "mean": found.mean,
        "effect": np.where(tested, found.effect, np.nan),
        "se": found.standard_error,
        "log2_fold_change": np.where(tested, _log2_fold_changes(found, design), np.nan),
        "t": found.effect / found.standard_error,
        "p_value": found.p,
    }
    shape = len(cell_types), len(design.contrasts), len(genes)
    places = np.ix_(cell_types.isin(tested_types), np.full(shape[1], fill_value=True), expressed)
    table = {
        "cell_type": np.repeat(cell_types.to_numpy(dtype=object), shape[1] * shape[2]),
        "contrast": np.tile(np.repeat(np.array(design.contrasts, dtype=object), shape[2]), shape[0]),
        "gene": np.tile(genes.to_numpy(dtype=object), shape[0] * shape[1]),
    }
    for name, values in columns.items():
        full = np.full(shape, np.nan)
        full[places] = values.transpose(1, 0, 2)
        table[name] = full.ravel()
    result = pd.DataFrame(table)
    p_values = result["p_value"].to_numpy().reshape(-1, shape[2])
    result["q_value"] = np.concatenate([adjust_p_values(row) for row in p_values])
    return result


def _log2_fold_changes(found: Interactions, design: Design) -> np.ndarray:
    """Return the log2 ratio of the expression to that in the reference; NaN where one of them is not positive."""
    lower = found.centre - found.effect / 2
    if design.groups is not None:
        # all tested variables are 0 in the reference group
        means = design.matrix[:, design.tested].mean(axis=0)
        lower = np.broadcast_to(found.centre - np.tensordot(means, found.effect, axes=1), found.effect.shape)
    upper = lower + found.effect
    positive = (lower > 0) & (upper > 0)
    return np.where(positive, np.log2(np.where(positive, upper, 1) / np.where(positive, lower, 1)), np.nan)


def summarise_types(
    table: pd.DataFrame,
    fractions: pd.DataFrame,
    tested_types: pd.Index,
    variance_inflation: np.ndarray,
    inflation: np.ndarray,
    samples_needed: np.ndarray,
) -> pd.DataFrame:
    """Return one row for each cell type and contrast.

    Parameters
    ----------
    table
        From :func:`tidy_effects`.
    fractions
        Samples × all cell types.
    tested_types
        Types of the arrays.
    variance_inflation, inflation, samples_needed
        Contrasts × tested types.
    """
    groups = table.groupby(["cell_type", "contrast"], sort=False)
    result = pd.DataFrame(
        {
            "n_tested": groups["p_value"].count(),
            "n_significant": groups["q_value"].agg(lambda q_values: int((q_values < ERROR_RATE).sum())),
        }
    ).reset_index()
    result.insert(2, "mean_fraction", fractions.mean().loc[result["cell_type"]].to_numpy())
    rows = result["cell_type"].isin(tested_types).to_numpy()
    for name, values in {
        "variance_inflation": variance_inflation,
        "inflation": inflation,
        "samples_needed": samples_needed,
    }.items():
        result[name] = np.nan
        result.loc[rows, name] = values.T.ravel()
    return result
