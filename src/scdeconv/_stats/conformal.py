"""Prediction intervals of fractions by conformal prediction over held-out donors."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

# largest fraction of rounded values (set by hand)
MAX_FRACTION = 1.01
# weight, in donors, of the mean squared error over cell types as the prior of each cell type's; set by hand
PRIOR_DONORS = 3
# grid of candidate levels for the error quantile; set by hand
QUANTILE_LEVELS = np.linspace(0, 1, 401)
# tolerance for rounding errors of cumulative weights
ROUNDING_TOLERANCE = 1e-9


def angle(fractions: np.ndarray) -> np.ndarray:
    """Return ``arcsin(sqrt(f))``, the variance-stabilising transformation of proportions."""
    return np.arcsin(np.sqrt(np.clip(fractions, 0, 1)))


def spread_of(members: np.ndarray | None) -> np.ndarray | float:
    """Return the standard deviation over the members of an ensemble on the scale arcsin(sqrt(fraction)).

    ``members`` are members × samples × cell types; the result is samples × cell types. 0 for fewer than two members.
    """
    if members is None or len(members) < 2:
        return 0.0
    spread: np.ndarray = angle(members).std(axis=0, ddof=1)
    return spread


@dataclass
class HeldOut:
    """Out-of-fold predictions of the training donors (``held_out_`` of a trained model).

    It can also be created from the measured and predicted fractions of another method, to compute prediction intervals
    for that method.

    Attributes
    ----------
    measured
        Measured fractions, samples × cell types.
    predicted
        Out-of-fold predictions, samples × cell types.
    donors
        Donor of each sample, length samples.
    members
        Out-of-fold predictions of each member of an ensemble, members × samples × cell types. None for a single model.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> model = scdeconv.tl.train(mdata, "ridge")  # doctest: +ELLIPSIS
    ridge: ...
    >>> model.held_out_.predicted.shape, len(set(model.held_out_.donors))
    ((6, 7), 6)
    >>> lower, upper = model.held_out_.intervals(model.held_out_.predicted, coverage=0.8)
    >>> lower.shape, bool((lower <= upper).all())
    ((6, 7), True)
    """

    measured: np.ndarray
    predicted: np.ndarray
    donors: np.ndarray
    members: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Convert tables to arrays; raise ``ValueError`` for other samples or types, NaN, percent or counts."""
        tables: tuple[Any, Any] = self.measured, self.predicted
        frames = [table.axes for table in tables if isinstance(table, pd.DataFrame)]
        if len(frames) > 1 and not all(first.equals(second) for first, second in zip(*frames, strict=True)):
            msg = (
                "Expected measured and predicted with the same samples and cell types in the same order, found "
                "different names. Pass predicted.loc[measured.index, measured.columns]."
            )
            raise ValueError(msg)
        self.measured, self.predicted = (
            _as_fractions(table, name) for table, name in zip(tables, ("measured", "predicted"), strict=True)
        )
        self.donors = np.asarray(self.donors)
        if self.measured.shape != self.predicted.shape or self.donors.shape != self.measured.shape[:1]:
            msg = (
                f"Expected measured and predicted of the same shape (samples × cell types) and one donor for each "
                f"sample, found shapes {self.measured.shape}, {self.predicted.shape} and {self.donors.shape} of donors. "
                "Select the same samples and cell types."
            )
            raise ValueError(msg)
        if self.members is not None and np.shape(self.members)[1:] != self.predicted.shape:
            found = f"{np.shape(self.members)} for predictions of shape {self.predicted.shape}"
            msg = f"Expected members × samples × cell types, found shape {found}. Pass members for the same samples."
            raise ValueError(msg)
        if np.isnan(self.measured).any():
            msg = (
                f"Expected measured fractions without NaN, found NaN in {np.isnan(self.measured).any(axis=1).sum()} of "
                f"{len(self.measured)} samples. Drop these samples."
            )
            raise ValueError(msg)

    def errors(self) -> tuple[float, float]:
        """Return the out-of-fold errors of the model and of the mean composition.

        Returns
        -------
        Root mean squared error of the predictions, and that of the mean composition of the other donors.
        """
        tables = (self.predicted, self.mean_of_other_donors())
        rmse, of_mean = (np.sqrt(((values - self.measured) ** 2).mean()) for values in tables)
        return float(rmse), float(of_mean)

    def mean_of_other_donors(self) -> np.ndarray:
        """Return the mean composition of the samples of other donors, for each sample.

        Returns
        -------
        Samples × cell types.
        """
        return np.stack([self.measured[self.donors != donor].mean(axis=0) for donor in self.donors])

    def describe(self) -> str:
        """Return both errors of :meth:`errors` as text.

        Returns
        -------
        One line.
        """
        return "out-of-fold RMSE {:.4f} (mean composition {:.4f})".format(*self.errors())

    def without(self, donor: str) -> HeldOut:
        """Return the predictions of all other donors.

        Parameters
        ----------
        donor
            Donor to leave out.

        Returns
        -------
        The rows of the other donors.
        """
        others = self.donors != donor
        members = None if self.members is None else self.members[:, others]
        return HeldOut(self.measured[others], self.predicted[others], self.donors[others], members)

    def sums(self, of: np.ndarray) -> HeldOut:
        """Return the predictions of sums of cell types.

        Parameters
        ----------
        of
            Whether a cell type is part of a sum (0 or 1), cell types × sums.

        Returns
        -------
        Samples × sums.
        """
        members = None if self.members is None else self.members @ of
        return HeldOut(self.measured @ of, self.predicted @ of, self.donors, members)

    def widest_coverage(self) -> float:
        """Return the highest possible coverage of :meth:`intervals`.

        Returns
        -------
        n / (n + 1) for n donors.
        """
        n_donors = len(np.unique(self.donors))
        return n_donors / (n_donors + 1)

    def intervals(
        self, predicted: np.ndarray, coverage: float, spread: np.ndarray | float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper bounds of the fractions of new samples.

        Parameters
        ----------
        predicted
            Predicted fractions, samples × cell types.
        coverage
            Probability that the interval contains the fraction, above 0 and at most n / (n + 1) for n donors.
        spread
            :func:`spread_of` the members. It widens the interval, if ``members`` of the out-of-fold predictions are known.

        Returns
        -------
        Lower and upper bounds, samples × cell types.

        Raises
        ------
        ValueError
            If the number of donors is too small for the coverage.

        Notes
        -----
        Cross-conformal prediction (Vovk 2015) with donors as the exchangeable units (Dunn et al. 2023). Nonconformity
        scores are absolute errors on the scale arcsin(sqrt(fraction)), divided by the typical error of the cell type or,
        for an ensemble, by the root of the sum of its square and the squared spread of the sample's members.
        The threshold is a quantile of the scores with equal weight for each donor. Its level is the lowest one for
        which the thresholds of all other donors cover a share ``coverage * (1 + r / n)`` of a donor's scores, on average
        over n donors. Errors of k fractions that sum to 1 have the correlation ``-1 / (k - 1)``, and their squares
        ``r = 1 / (k - 1) ** 2``: with two cell types, both scores of a donor are equal, and the share is that of n scores
        in conformal prediction. With many types it is nearly ``coverage``.
        """
        if not isinstance(coverage, numbers.Real) or not 0 < coverage <= self.widest_coverage():
            n_donors = len(np.unique(self.donors))
            msg = (
                f"Expected coverage above 0 and at most {self.widest_coverage():.3f}, which is n / (n + 1) for the "
                f"{n_donors} held-out donors, found {coverage}. Use a lower coverage or pair more donors."
            )
            raise ValueError(msg)
        predicted = _as_fractions(predicted, "predicted")
        if predicted.shape[1] != self.measured.shape[1]:
            msg = (
                f"Expected {self.measured.shape[1]} cell types in predicted, as in the held-out predictions, found "
                f"{predicted.shape[1]}. Select the same cell types."
            )
            raise ValueError(msg)
        errors = np.abs(angle(self.measured) - angle(self.predicted))
        donors, codes = np.unique(self.donors, return_inverse=True)
        squares = np.stack([(errors[codes == code] ** 2).mean(axis=0) for code in range(len(donors))])
        # scale without the donor's own errors, as for a new donor
        others = (squares.sum(axis=0) - squares) / max(len(donors) - 1, 1)
        if self.members is None:
            spread = 0.0
        scores = errors / np.hypot(_typical_error(others, len(donors) - 1)[codes], spread_of(self.members))
        level = _calibrated_level(scores, codes, coverage)
        threshold = _quantile(scores, codes, np.array([level]))[0]
        half_width = threshold * np.hypot(_typical_error(squares.mean(axis=0), len(donors)), spread)
        centre = angle(predicted)
        return np.sin(np.maximum(centre - half_width, 0)) ** 2, np.sin(np.minimum(centre + half_width, np.pi / 2)) ** 2


def _as_fractions(values: np.ndarray | pd.DataFrame, name: str) -> np.ndarray:
    """Return fractions (samples × cell types) as an array; raise ``ValueError`` for other values than 0 to 1."""
    try:
        fractions = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        fractions = np.empty(0)
    if fractions.ndim != 2:
        msg = f"Expected {name} as a table of numbers, samples × cell types, found {type(values).__name__}. Pass an array."
        raise ValueError(msg)
    low, high = (np.nanmin(fractions), np.nanmax(fractions)) if np.isfinite(fractions).any() else (0.0, 0.0)
    if low < 0 or high > MAX_FRACTION:
        msg = (
            f"Expected {name} fractions from 0 to 1, found values from {low:.3g} to {high:.3g}. Divide percent by 100, "
            "and counts by the sum of their row."
        )
        raise ValueError(msg)
    return fractions


def _typical_error(squares: np.ndarray, n_donors: int) -> np.ndarray:
    """Return the root mean squared error of each cell type, shrunk to that of all cell types."""
    pooled = squares.mean(axis=-1, keepdims=True)
    return np.sqrt((n_donors * squares + PRIOR_DONORS * pooled) / (n_donors + PRIOR_DONORS)) + 1e-9


def _quantile(scores: np.ndarray, codes: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return quantiles of the scores (samples × cell types) with equal weight for each donor."""
    _, codes, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    weights = np.repeat(1 / sizes[codes], scores.shape[1]) / scores.shape[1] / len(sizes)
    order = np.argsort(scores, axis=None)
    rank = np.searchsorted(np.cumsum(weights[order]), levels - ROUNDING_TOLERANCE)
    return scores.ravel()[order[np.minimum(rank, len(order) - 1)]]


def _calibrated_level(scores: np.ndarray, codes: np.ndarray, coverage: float) -> float:
    """Return the lowest quantile level whose leave-one-donor-out coverage is enough for this coverage of new donors."""
    donors = np.unique(codes)
    correlation = 1 / max(scores.shape[1] - 1, 1) ** 2
    needed = min(coverage * (1 + correlation / len(donors)), 1.0)
    if len(donors) < 2:
        return 1.0

    def inside(own: np.ndarray) -> np.ndarray:
        thresholds = _quantile(scores[~own], codes[~own], QUANTILE_LEVELS)
        return np.asarray((scores[own][..., None] <= thresholds).mean(axis=(0, 1)))

    covered = np.mean([inside(codes == donor) for donor in donors], axis=0)
    enough = np.flatnonzero(covered >= needed - ROUNDING_TOLERANCE)
    return float(QUANTILE_LEVELS[enough[0]]) if len(enough) else 1.0
