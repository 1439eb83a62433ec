"""Whether a bulk sample is like those that a model was trained on, or real samples like simulated ones."""

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
# share of the simulated samples that count as inside
OVERLAP_QUANTILE = 0.95
# principal components with a singular value below this share of the first are rounding
RANK_TOLERANCE = 1e-9


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


def overlap(real: np.ndarray, simulated: np.ndarray, *, n_components: int = 10) -> float:
    """Share of real samples that lie where 95 % of the simulated ones do.

    Both are projected on the first principal components of the simulated samples. A real sample is inside when its
    Mahalanobis distance is within the 95 % quantile of theirs.

    Parameters
    ----------
    real, simulated
        Log expression, samples × genes.
    n_components
        Principal components to compare in.

    Returns
    -------
    A share from 0 to 1.

    Notes
    -----
    Expect 0.95 or more of a good simulation. Near 0, a method that learns from the simulation is applied outside of
    its training data. Differences in directions in which the simulation hardly varies are not seen.

    Examples
    --------
    >>> import numpy as np
    >>> from scdeconv import metrics
    >>> rng = np.random.default_rng(0)
    >>> simulated = rng.normal(size=(500, 20))
    >>> metrics.overlap(simulated[:100], simulated) > 0.9
    True
    >>> metrics.overlap(simulated[:100] + 3, simulated)
    0.0
    """
    centre = simulated.mean(axis=0)
    _, singular, components = np.linalg.svd(simulated - centre, full_matrices=False)
    kept = min(n_components, int((singular > RANK_TOLERANCE * singular[0]).sum()))
    axes = components[:kept].T / singular[:kept]
    distances = [(((samples - centre) @ axes) ** 2).sum(axis=1) for samples in (real, simulated)]
    return float((distances[0] <= np.quantile(distances[1], OVERLAP_QUANTILE)).mean())
