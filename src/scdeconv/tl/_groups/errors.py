"""Variance of the errors of fractions, from the tables beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

from scdeconv._data import keys

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scdeconv._data.checks import Problems

INTERVALS, SUBSETS, NONE = "intervals", "measured_variance", "none"


def error_variances(problems: Problems, adata: AnnData, key: str, fractions: pd.DataFrame) -> tuple[np.ndarray, str]:
    """Return the variance of the error of each fraction, and where it comes from.

    Prediction intervals have nearly the same width for all fractions on the scale arcsin(sqrt(fraction)). Their half-width
    there, divided by the normal quantile of the coverage, is the standard error. It is converted at the mean fraction of
    the type.

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
    """
    lower, upper = (adata.obsm.get(f"{key}_{side}") for side in ("lower", "upper"))
    if lower is None or upper is None:
        variance = adata.obsm.get(keys.MEASURED_VARIANCE) if key == keys.MEASURED else None
        if variance is None:
            return np.zeros(fractions.shape), NONE
        return _filled(variance.loc[fractions.index, fractions.columns].to_numpy(dtype=float)), SUBSETS
    coverage = adata.uns.get(keys.UNS, {}).get(key, {}).get("coverage")
    lacking = [column for column in fractions if column not in lower or column not in upper]
    if coverage is None or lacking:
        problems.add(
            f"Expected adata.obsm['{key}_lower'] and adata.obsm['{key}_upper'] with the types of adata.obsm[{key!r}] and their "
            f"coverage in adata.uns['scdeconv'], found {'no coverage' if coverage is None else f'no columns {lacking}'}. Call "
            "tl.predict(..., coverage=0.9), or delete these tables."
        )
        return np.zeros(fractions.shape), NONE
    low, centre, high = (
        np.arcsin(np.sqrt(table.loc[fractions.index, fractions.columns].to_numpy(dtype=float).clip(0, 1)))
        for table in (lower, fractions, upper)
    )
    # bounds end at 0 and 1: the wider side is the width
    se = _filled(np.maximum(centre - low, high - centre)) / norm.ppf((1 + coverage) / 2)
    mean = fractions.to_numpy().mean(axis=0)
    return 4 * mean * (1 - mean) * se**2, INTERVALS


def _filled(values: np.ndarray) -> np.ndarray:
    """Return values (samples × cell types) with the median of the type for NaN, and 0 for types without values."""
    known = np.isfinite(values)
    medians = [np.median(column[found]) if found.any() else 0 for column, found in zip(values.T, known.T, strict=True)]
    return np.where(known, values, medians)
