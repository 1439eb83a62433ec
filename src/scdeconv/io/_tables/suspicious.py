"""Samples and genes of a table whose values are of another kind than all others: positions, lengths, totals, ages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv._data.gene_names import ENSEMBL
from scdeconv._data.genes import SPIKE_IN_PREFIX

if TYPE_CHECKING:
    import pandas as pd

# in smaller tables, sums and constants occur by chance (set by hand)
MIN_GENES, MIN_SAMPLES = 5, 3
MIN_GENES_FOR_CORRELATION = 20
# mean relative to the largest mean of the others from which a column is no sample (set by hand)
MAX_MEAN_RATIO = 1000
# samples of one table correlate across genes, positions and lengths do not (set by hand)
MAX_CORRELATION_OF_POSITIONS, MIN_CORRELATION_OF_SAMPLES = 0.2, 0.5
N_GENES_FOR_CORRELATION = 1000
# share of Ensembl identifiers from which other names are suspicious (set by hand)
MIN_ENSEMBL_SHARE = 0.9


def suspicious_samples(values: np.ndarray, names: pd.Index) -> dict[str, str]:
    """Return samples that are constant, row numbers, sums, far larger than all others or of another kind of numbers."""
    n_samples, n_genes = values.shape
    found: dict[str, str] = {}
    if n_samples < 2:
        return found

    def add(where: np.ndarray, reason: str) -> None:
        for position in map(int, np.flatnonzero(where)):
            shown = ", ".join(f"{value:g}" for value in values[position, :3])
            found.setdefault(str(names[position]), f"{reason}: {shown}")

    sums = values.sum(axis=1, dtype=float)
    empty = sums == 0
    means = np.sort(sums / n_genes)
    if means[-2] > 0:
        add(sums / n_genes > MAX_MEAN_RATIO * means[-2], "far larger than all others")
    if n_genes < MIN_GENES:
        return found
    add(~empty & (values == values[:, :1]).all(axis=1), "constant")
    if n_samples >= MIN_SAMPLES:
        add(_is_range(values), "row numbers")
        add(_are_sums(values), "the sum of all others")
    if values.dtype.kind == "f":
        whole = (values == np.floor(values)).all(axis=1) | empty
        add(_single(whole & ~empty) & ((~whole).sum() == n_samples - 1), "whole numbers beside fractions")
        add(_single(~whole), "fractions beside whole numbers")
    add(_single(np.any(values < 0, axis=1)), "negative numbers beside others")
    add(_are_positions(values), "unrelated to all others, without zeros")
    return found


def suspicious_genes(values: np.ndarray, names: pd.Index) -> dict[str, str]:
    """Return genes that are the sum of all others, of another kind of numbers, or not named like the others."""
    n_samples, n_genes = values.shape
    if n_samples < MIN_SAMPLES or n_genes < MIN_GENES:
        return {}
    found = {str(name): "the sum of all others" for name in names[_are_sums(values.T)]}
    if values.dtype.kind == "f":
        fractions = (values != np.floor(values)).any(axis=0)
        found |= {str(name): "fractions beside whole numbers" for name in names[_single(fractions)]}
    found |= {str(name): "negative numbers beside others" for name in names[_single(np.any(values < 0, axis=0))]}
    known = names.str.match(ENSEMBL) | names.str.startswith(SPIKE_IN_PREFIX)
    if not known.all() and known.mean() >= MIN_ENSEMBL_SHARE:
        found |= {str(name): "no identifier of Ensembl like the others" for name in names[~known]}
    return found


def _single(where: np.ndarray) -> np.ndarray:
    """Return ``where`` if it is true once, else nowhere."""
    return where if where.sum() == 1 else np.zeros_like(where)


def _is_range(values: np.ndarray) -> np.ndarray:
    """Return the rows of consecutive numbers."""
    candidates = values[:, -1] - values[:, 0] == values.shape[1] - 1
    candidates[candidates] = (np.diff(values[candidates], axis=1) == 1).all(axis=1)
    return candidates


def _are_sums(values: np.ndarray) -> np.ndarray:
    """Return the rows that are the sum of all other rows."""
    totals = values.sum(axis=0, dtype=float)
    sums = values.sum(axis=1, dtype=float)
    candidates = (sums > 0) & np.isclose(2 * sums, totals.sum(), rtol=1e-6)
    candidates[candidates] = np.isclose(2 * values[candidates], totals, rtol=1e-6).all(axis=1)
    return candidates


def _are_positions(values: np.ndarray) -> np.ndarray:
    """Return the rows of whole numbers without zeros that do not correlate with others, while the others do."""
    n_samples, n_genes = values.shape
    none = np.zeros(n_samples, dtype=bool)
    candidates = np.all(values >= 1, axis=1)
    if n_genes < MIN_GENES_FOR_CORRELATION or not candidates.any() or (values < 0).any():
        return none
    candidates[candidates] = (values[candidates] == np.floor(values[candidates])).all(axis=1)
    columns = np.linspace(0, n_genes - 1, min(n_genes, N_GENES_FOR_CORRELATION)).astype(int)
    logs = np.log1p(values[:, columns].astype(float))
    logs -= logs.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(logs, axis=1, keepdims=True)
    logs = np.divide(logs, norms, out=np.zeros_like(logs), where=norms > 0)
    # mean correlation with the other samples, from the sum of all standardised samples
    correlation = (logs @ logs.sum(axis=0) - 1) / (n_samples - 1)
    positions = candidates & (correlation < MAX_CORRELATION_OF_POSITIONS)
    rest = logs[~positions]
    if not positions.any() or len(rest) < 2:
        return none
    among_rest = (rest @ rest.sum(axis=0) - 1) / (len(rest) - 1)
    with_rest = logs @ rest.sum(axis=0) / len(rest)
    return positions & (with_rest < MAX_CORRELATION_OF_POSITIONS) & (np.median(among_rest) > MIN_CORRELATION_OF_SAMPLES)
