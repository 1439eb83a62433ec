"""Variance of the errors of fractions, from the tables beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

from scdeconv._data import keys
from scdeconv._data.checks import SUM_TOLERANCE, examples
from scdeconv._data.fractions import get_fractions

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scdeconv._data.checks import Problems

INTERVALS, SUBSETS, NONE = "intervals", "measured_variance", "none"


def error_variances(
    problems: Problems, adata: AnnData, key: str, fractions: pd.DataFrame, known: np.ndarray
) -> tuple[np.ndarray, str]:
    """Return the variance of the error of each fraction, and where it comes from.

    Prediction intervals have nearly the same width for all fractions on the scale arcsin(sqrt(fraction)). Their half-width
    there, divided by the normal quantile of the coverage, is the standard error. It is converted at the mean fraction of
    the type. Unknown widths are the median of the type.

    Parameters
    ----------
    problems
        Collects the messages.
    adata
        Samples with fractions.
    key
        Key of the fractions.
    fractions
        ``adata.obsm[key]`` of the samples and cell types to test.
    known
        Mask of these samples among those of the object.
    """
    nothing = np.zeros(fractions.shape), NONE
    before = len(problems.messages)
    bounds = [f"{key}_lower", f"{key}_upper"]
    if not any(name in adata.obsm for name in bounds):
        if key != keys.MEASURED or keys.MEASURED_VARIANCE not in adata.obsm:
            return nothing
        variances = _values_beside(problems, adata, keys.MEASURED_VARIANCE, fractions, known)
        if (variances < 0).any():
            problems.add(
                f"Expected variances of at least 0 in adata.obsm[{keys.MEASURED_VARIANCE!r}], found {np.nanmin(variances):.3g}. "
                "Correct or delete this table."
            )
        return nothing if len(problems.messages) > before else (_filled(variances), SUBSETS)
    lower, upper = (_values_beside(problems, adata, name, fractions, known) for name in bounds)
    coverage = adata.uns.get(keys.UNS, {}).get(key, {}).get("coverage")
    n_wrong = int(((lower > upper) | (lower < -SUM_TOLERANCE) | (upper > 1 + SUM_TOLERANCE)).sum())
    if not (isinstance(coverage, float) and 0 < coverage < 1):
        problems.add(
            f"Expected the coverage of adata.obsm['{key}_lower'] and adata.obsm['{key}_upper'], between 0 and 1, in "
            f"adata.uns['scdeconv'][{key!r}]['coverage'], found {coverage}. Call tl.predict(..., coverage=0.9), or delete "
            "these tables."
        )
    if n_wrong:
        problems.add(
            f"Expected intervals from 0 to 1 in adata.obsm['{key}_lower'] and adata.obsm['{key}_upper'], found {n_wrong} "
            "outside or with the lower bound above the upper. Call tl.predict(..., coverage=0.9), or delete these tables."
        )
    if len(problems.messages) > before or not np.isfinite(lower + upper).any():
        return nothing
    low, centre, high = (np.arcsin(np.sqrt(values.clip(0, 1))) for values in (lower, fractions.to_numpy(), upper))
    # bounds end at 0 and 1: the wider side is the width
    se = _filled(np.maximum(centre - low, high - centre)) / norm.ppf((1 + coverage) / 2)
    mean = fractions.to_numpy().mean(axis=0)
    return 4 * mean * (1 - mean) * se**2, INTERVALS


def _values_beside(
    problems: Problems, adata: AnnData, name: str, fractions: pd.DataFrame, known: np.ndarray
) -> np.ndarray:
    """Return the values of another table of ``obsm`` for the samples and cell types of the fractions."""
    table = get_fractions(adata, name)
    lacking = [cell_type for cell_type in fractions if cell_type not in table]
    if lacking:
        problems.add(
            f"Expected the cell types of the fractions in adata.obsm[{name!r}], found no {examples(lacking)}. Add these "
            "columns, or delete the table."
        )
    return table.reindex(columns=fractions.columns)[known].to_numpy()


def _filled(values: np.ndarray) -> np.ndarray:
    """Return values (samples × cell types) with the median of the type for NaN, and 0 for types without values."""
    known = np.isfinite(values)
    medians = [np.median(column[found]) if found.any() else 0 for column, found in zip(values.T, known.T, strict=True)]
    return np.where(known, values, medians)
