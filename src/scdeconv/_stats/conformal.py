"""Prediction intervals of fractions, made honest by donors that the model has not seen (conformal prediction)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# weight, in donors, of the error that all cell types share in the error of each
PRIOR_DONORS = 3
# levels of the quantile of errors to choose from
LEVELS = np.linspace(0, 1, 401)


def angle(fractions: np.ndarray) -> np.ndarray:
    """Return ``arcsin(sqrt(f))``, on which errors of rare and frequent types are alike (variance-stabilising)."""
    return np.arcsin(np.sqrt(np.clip(fractions, 0, 1)))


@dataclass
class HeldOut:
    """Predictions of training donors by models that had not seen them: what a trained model has as ``held_out_``.

    It can also be made of measured and predicted fractions from elsewhere, for intervals of any predictions.

    Attributes
    ----------
    measured, predicted
        Samples × cell types.
    donors
        The donor of each sample.

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

    def widest_coverage(self) -> float:
        """Return the highest coverage that so many donors can support: n of n + 1."""
        n_donors = len(np.unique(self.donors))
        return n_donors / (n_donors + 1)

    def intervals(
        self, predicted: np.ndarray, coverage: float, spread: np.ndarray | float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper bounds that hold a new donor's fraction with the given probability.

        Errors are compared on the angular scale, in units of each cell type's typical error. The threshold is a quantile of
        the held-out donors' errors, every donor with the same weight, at the level at which each donor's errors were held
        by the threshold of the others as often as asked: donors are the exchangeable unit (cross-conformal prediction
        with a calibrated level; Vovk 2015, Dunn et al. 2023).

        Parameters
        ----------
        predicted
            Samples × cell types.
        coverage
            Share of entries to hold, above 0 and up to n / (n + 1).
        spread
            Standard deviation of an ensemble's members on the angular scale, which widens the interval.

        Raises
        ------
        ValueError
            Where so few donors cannot support the coverage.
        """
        if not 0 < coverage <= self.widest_coverage():
            n_donors = len(np.unique(self.donors))
            msg = (
                f"Expected a coverage above 0 and up to {self.widest_coverage():.3f}, which is what {n_donors} held-out donors can "
                f"support (n / (n + 1)), found {coverage}. Ask for less or pair more donors."
            )
            raise ValueError(msg)
        errors = np.abs(angle(self.measured) - angle(self.predicted))
        donors, codes = np.unique(self.donors, return_inverse=True)
        squares = np.stack([(errors[codes == code] ** 2).mean(axis=0) for code in range(len(donors))])
        # a donor's own errors stay out of the unit that they are measured in, as those of a new donor do
        others = (squares.sum(axis=0) - squares) / max(len(donors) - 1, 1)
        scores = errors / _unit(others, len(donors) - 1)[codes]
        level = _confirmed_level(scores, codes, coverage)
        threshold = _quantile(scores, codes, np.array([level]))[0]
        half = threshold * np.sqrt(_unit(squares.mean(axis=0), len(donors)) ** 2 + np.square(spread))
        middle = angle(predicted)
        return np.sin(np.maximum(middle - half, 0)) ** 2, np.sin(np.minimum(middle + half, np.pi / 2)) ** 2


def _unit(squares: np.ndarray, n_donors: int) -> np.ndarray:
    """Return the typical error of each type, drawn to that of all types where donors are few."""
    pooled = squares.mean(axis=-1, keepdims=True)
    return np.sqrt((n_donors * squares + PRIOR_DONORS * pooled) / (n_donors + PRIOR_DONORS)) + 1e-9


def _quantile(scores: np.ndarray, codes: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return quantiles of the scores of several donors (samples × types), each donor with the same weight."""
    _, codes, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    weights = np.repeat(1 / sizes[codes], scores.shape[1]) / scores.shape[1] / len(sizes)
    order = np.argsort(scores, axis=None)
    rank = np.searchsorted(np.cumsum(weights[order]), levels - 1e-9)
    return scores.ravel()[order[np.minimum(rank, len(order) - 1)]]


def _confirmed_level(scores: np.ndarray, codes: np.ndarray, coverage: float) -> float:
    """Return the lowest level whose quantiles of all other donors hold this share of a donor's scores, on average."""
    donors = np.unique(codes)
    if len(donors) < 2:
        return 1.0
    inside = np.mean(
        [
            (
                scores[codes == donor][..., None] <= _quantile(scores[codes != donor], codes[codes != donor], LEVELS)
            ).mean(axis=(0, 1))
            for donor in donors
        ],
        axis=0,
    )
    enough = np.flatnonzero(inside >= coverage - 1e-9)
    return float(LEVELS[enough[0]]) if len(enough) else 1.0
