"""The unit of expression, found from the values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .matrix import Matrix, extremes, is_integer

if TYPE_CHECKING:
    from .checks import Problems

COUNTS = "counts"
ESTIMATED = "estimated counts (not whole numbers)"
TPM = "TPM"
SHARES = "shares of each sample"
NORMALISED = "values normalised to one library size"
ARRAY = "array intensities"
# not on a linear scale or no expression: never accepted
LOG = "log-transformed values"
SCALED = "z-scores or log ratios"
TOO_SMALL, TOO_LARGE = "values close to 0", "values of an impossible size"
REFUSED = (LOG, SCALED, TOO_SMALL, TOO_LARGE)

# units of pp.pair: accepted findings and recorded unit
GIVEN_UNITS = {
    "counts": ((COUNTS, ESTIMATED, ARRAY, NORMALISED), COUNTS),
    "tpm": ((TPM, ESTIMATED, ARRAY, NORMALISED, SHARES), TPM),
    "array": ((COUNTS, ESTIMATED, ARRAY, NORMALISED, TPM, LOG), ARRAY),
}
# units of new bulk that do not fit a model trained on the unit
OTHER_UNITS: dict[str | None, tuple[str, ...]] = {
    COUNTS: (TPM, SHARES, NORMALISED, ARRAY),
    TPM: (COUNTS,),
    ARRAY: (TPM, SHARES),
}
ARRAY_ADVICE = " If they are log2 intensities of microarrays, pass unit='array'."

# log2(x + 1) of bulk is at most about 20, the maximum of TPM or counts is in the thousands (set by hand between them)
MAX_LOG2_EXPRESSION = 25.0
# a library has at most 1e9 reads, an array at most 65,536 levels: larger values are exponentiated twice (set by hand)
MAX_EXPRESSION = 1e10
# the sum of a few genes is at least this share of a sample (set by hand)
MIN_SHARE = 1e-6
# sums of TPM over the genes of a file; annotated subsets have less than a million (set by hand)
TPM_TOTALS = (0.3e6, 1.05e6)
# relative range of library sizes that were set to the same value, with rounding in single precision
EQUAL_TOTALS = 1e-3
# number of genes from which values without any zero are taken for array intensities (set by hand)
MIN_ARRAY_GENES = 100


@dataclass
class Summary:
    """Summary of values, from which :func:`find_unit` finds the unit.

    Parameters
    ----------
    totals
        Sum of each row.
    smallest, largest
        Extreme values, zeros included.
    whole
        Whether all values are whole numbers.
    n_columns
        Number of genes.
    """

    totals: np.ndarray
    smallest: float
    largest: float
    whole: bool
    n_columns: int


def find_unit(summary: Summary) -> str:
    """Return the unit of finite values, one of the constants of this module."""
    totals = summary.totals[summary.totals > 0]
    if summary.smallest < 0:
        return SCALED
    if summary.largest > MAX_EXPRESSION:
        return TOO_LARGE
    if summary.whole:
        return COUNTS
    if not len(totals) or np.median(totals) < MIN_SHARE:
        return TOO_SMALL
    if _near(totals, 100) or (summary.largest <= 1 and totals.max() <= 1 + EQUAL_TOTALS):
        return SHARES
    if summary.largest < MAX_LOG2_EXPRESSION:
        return LOG
    if _near(totals, 1e6):
        return TPM
    if summary.smallest > 0 and summary.n_columns >= MIN_ARRAY_GENES:
        return ARRAY
    if TPM_TOTALS[0] <= totals.min() and totals.max() <= TPM_TOTALS[1]:
        return TPM
    return NORMALISED if have_equal_totals(totals) else ESTIMATED


def have_equal_totals(totals: np.ndarray) -> bool:
    """Return whether several library sizes were set to the same value."""
    totals = totals[totals > 0]
    return len(totals) > 1 and _near(totals, float(np.median(totals)))


def _near(totals: np.ndarray, value: float) -> bool:
    return bool((np.abs(totals / value - 1) < EQUAL_TOTALS).all())


def to_linear(intensities: Matrix) -> Matrix:
    """Return array intensities on a linear scale: log2 values are exponentiated, others are returned unchanged."""
    return np.exp2(np.asarray(intensities, dtype=float)) if unit_of(intensities) == LOG else intensities


def choose_unit(problems: Problems, given: str | None, expression: Matrix) -> str:
    """Return the unit of bulk: found from the values, or as given; report a contradiction."""
    found = unit_of(expression)
    if given is None:
        return found
    fitting, unit = GIVEN_UNITS[given]
    if found not in fitting:
        problems.add(
            f"Expected bulk in the given unit={given!r}, found {found}. Omit unit, or pass the values in this unit."
        )
    # estimated counts have no counting noise of whole numbers
    return ESTIMATED if given == "counts" and found != COUNTS else unit


def summarise(expression: Matrix) -> Summary:
    """Return the summary of samples × genes in memory."""
    smallest, largest = extremes(expression)
    return Summary(
        totals=np.asarray(expression.sum(axis=1), dtype=float).ravel(),
        smallest=smallest,
        largest=largest,
        whole=is_integer(expression),
        n_columns=expression.shape[1],
    )


def unit_of(expression: Matrix) -> str:
    """Return the unit of samples × genes in memory."""
    return find_unit(summarise(expression))
