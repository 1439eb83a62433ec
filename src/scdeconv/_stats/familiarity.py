"""Whether a bulk sample is like those that a model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from scdeconv._stats.conformal import angle

# standard deviation, on the angular scale, that a cell type has at least (a hundredth of the scale)
LEAST_SPREAD = 0.01
# a sample is outside when it is further off than any training donor was to the others, by this factor
MARGIN = 1.25


def composition_distance(fractions: np.ndarray, usual: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return, per sample, how many standard deviations the most unusual cell type is off, on the angular scale."""
    return np.abs((angle(fractions) - usual) / spread).max(axis=1)


def usual_composition(fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each cell type on the angular scale."""
    angles = angle(fractions)
    return angles.mean(axis=0), angles.std(axis=0, ddof=1) + LEAST_SPREAD


@dataclass
class Familiarity:
    """What the training donors look like: their compositions, and how noisy they are to a model without them."""

    usual: np.ndarray
    spread: np.ndarray
    limits: np.ndarray

    @classmethod
    def from_held_out(cls, noise: np.ndarray, fractions: np.ndarray, donors: np.ndarray) -> Self:
        """Learn the limits from the noise of held-out samples and their measured compositions, donors the units."""
        names, codes = np.unique(donors, return_inverse=True)
        of_donor = np.stack([fractions[codes == code].mean(axis=0) for code in range(len(names))])
        composition = max(
            float(
                composition_distance(fractions[codes == code], *usual_composition(np.delete(of_donor, code, 0))).max()
            )
            for code in range(len(names))
        )
        return cls(*usual_composition(of_donor), MARGIN * np.array([noise.max(), composition]))

    def quality(self, noise: np.ndarray, fractions: pd.DataFrame) -> pd.DataFrame:
        """Return ``noise``, ``composition`` and whether one of them is ``outside``, from noise and estimates."""
        distance = composition_distance(fractions.to_numpy(), self.usual, self.spread)
        measures = np.column_stack([noise, distance])
        table = pd.DataFrame(measures, index=fractions.index, columns=["noise", "composition"])
        table["outside"] = np.any(measures > self.limits, axis=1)
        return table
