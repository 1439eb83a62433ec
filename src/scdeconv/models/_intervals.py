"""Prediction intervals of fractions, made honest by donors that the model has not seen (conformal prediction)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# weight, in donors, of the error that all cell types share in the error of each
PRIOR_DONORS = 3


def angle(fractions: np.ndarray) -> np.ndarray:
    """Return ``arcsin(sqrt(f))``, on which errors of rare and frequent types are alike (variance-stabilising)."""
    return np.arcsin(np.sqrt(np.clip(fractions, 0, 1)))


@dataclass
class HeldOut:
    """Predictions of training donors by models that had not seen them: samples × cell types, and each sample's donor."""

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

        Errors are compared on the angular scale, in units of each cell type's typical error, and ranked over held-out
        donors, which are the exchangeable unit: a donor's errors share the weight 1 / (n + 1), and so does the unknown
        donor to come, whose errors count as infinite (Dunn, Wasserman & Ramdas 2023; Romano et al. 2019 for the
        scaling).

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
        weights = np.repeat(1 / np.bincount(codes)[codes], errors.shape[1]) / errors.shape[1] / (len(donors) + 1)
        order = np.argsort(scores, axis=None)
        reached = np.cumsum(weights[order])
        rank = min(int(np.searchsorted(reached, coverage - 1e-9)), len(order) - 1)
        half = scores.ravel()[order[rank]] * np.sqrt(_unit(squares.mean(axis=0), len(donors)) ** 2 + np.square(spread))
        middle = angle(predicted)
        return np.sin(np.maximum(middle - half, 0)) ** 2, np.sin(np.minimum(middle + half, np.pi / 2)) ** 2


def _unit(squares: np.ndarray, n_donors: int) -> np.ndarray:
    """Return the typical error of each type, drawn to that of all types where donors are few."""
    pooled = squares.mean(axis=-1, keepdims=True)
    return np.sqrt((n_donors * squares + PRIOR_DONORS * pooled) / (n_donors + PRIOR_DONORS)) + 1e-9
