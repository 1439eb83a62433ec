"""How much of the bulk expression the profiles of a reference explain, by gene and by sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scdeconv._stats.expression import LEVEL, to_shares

# bulk expression of a gene relative to its fit above which the reference does not explain it: platform shifts of single
# genes are rarely as large (docs/benchmarks/reference_fit.md)
MAX_FOLD = 8.0
# share of the expression in such genes above which a warning is given: between references of the right and of the wrong
# tissue in docs/benchmarks/reference_fit.md
LARGE_SHARE = 0.15
MILLION = 1e6


@dataclass(frozen=True)
class ReferenceFit:
    """Bulk against its fit by the reference.

    Attributes
    ----------
    bulk, fit
        Mean over samples, counts per million, length genes.
    log2_ratio
        Median over samples of the log2 ratio of bulk to fit, length genes.
    variation
        SD over samples of this log2 ratio, length genes; NaN for one sample.
    correlation
        Pearson correlation over genes of log expression in bulk and fit, length samples.
    unexplained
        Share of the expression in genes with more than 8 times the fit, length samples.
    """

    bulk: np.ndarray
    fit: np.ndarray
    log2_ratio: np.ndarray
    variation: np.ndarray
    correlation: np.ndarray
    unexplained: np.ndarray


def compare_with_fit(bulk: np.ndarray, fit: np.ndarray) -> ReferenceFit:
    """Compare bulk with its fit by a reference.

    Both are divided by their totals. A tenth of the mean expression of a gene is added before logarithms and ratios, so
    that genes with few reads have no large ratio.

    Parameters
    ----------
    bulk, fit
        Samples × genes, linear scale; each sample has expression.
    """
    observed, expected = to_shares(bulk), to_shares(fit)
    level = 1 / (LEVEL * bulk.shape[1])
    logs = np.log2(observed + level), np.log2(expected + level)
    ratio = logs[0] - logs[1]
    centred = [values - values.mean(axis=1, keepdims=True) for values in logs]
    norms = [np.sqrt((values**2).sum(axis=1)) for values in centred]
    with np.errstate(invalid="ignore"):
        correlation = (centred[0] * centred[1]).sum(axis=1) / (norms[0] * norms[1])
    return ReferenceFit(
        bulk=observed.mean(axis=0) * MILLION,
        fit=expected.mean(axis=0) * MILLION,
        log2_ratio=np.median(ratio, axis=0),
        variation=ratio.std(axis=0, ddof=1) if len(bulk) > 1 else np.full(bulk.shape[1], np.nan),
        correlation=correlation,
        unexplained=np.where(ratio > np.log2(MAX_FOLD), observed, 0).sum(axis=1),
    )
