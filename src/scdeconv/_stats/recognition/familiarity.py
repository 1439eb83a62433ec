"""Out-of-distribution measures of bulk samples against training samples or simulated samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from scdeconv._stats.conformal import angle

# SD on the angular scale that is added for each cell type, in radians (set by hand)
LEAST_SPREAD = 0.01
# limit relative to the largest value of the held-out training donors (set by hand)
MARGIN = 1.25
# quantile of the simulated samples' distances that bounds the inside
INSIDE_QUANTILE = 0.95
# minimum singular value relative to the first: smaller components are rounding errors
RANK_TOLERANCE = 1e-9


def composition_distance(fractions: np.ndarray, usual: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return the largest absolute z-score over cell types on the angular scale, length samples."""
    return np.abs((angle(fractions) - usual) / spread).max(axis=1)


def usual_composition(fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each cell type on the angular scale."""
    angles = angle(fractions)
    return angles.mean(axis=0), angles.std(axis=0, ddof=1) + LEAST_SPREAD


@dataclass
class Familiarity:
    """Compositions of the training donors and limits of noise and composition from held-out donors."""

    usual: np.ndarray
    spread: np.ndarray
    limits: np.ndarray

    @classmethod
    def from_held_out(cls, noise: np.ndarray, fractions: np.ndarray, donors: np.ndarray) -> Self:
        """Set the limits from the noise and the measured fractions of held-out samples, by donor."""
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
        """Return a table with ``noise``, ``composition`` and ``outside`` (whether one of them exceeds its limit)."""
        distance = composition_distance(fractions.to_numpy(), self.usual, self.spread)
        measures = np.column_stack([noise, distance])
        table = pd.DataFrame(measures, index=fractions.index, columns=["noise", "composition"])
        table["outside"] = np.any(measures > self.limits, axis=1)
        return table


def overlap(real: np.ndarray, simulated: np.ndarray, *, n_components: int = 10) -> float:
    """Share of real samples within the 95 % region of simulated samples.

    Both are projected on the first principal components of the simulated samples. A real sample is inside if its
    Mahalanobis distance is at most the 95 % quantile of the simulated samples' distances.

    Parameters
    ----------
    real, simulated
        Log expression, samples × genes.
    n_components
        Number of principal components.

    Returns
    -------
    Share of real samples inside, 0 to 1.

    Notes
    -----
    A good simulation has a value of 0.95 or more. At values near 0, a method trained on the simulation extrapolates.
    Differences in directions with little variance in the simulation are not detected.

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
    real, simulated = np.asarray(real, dtype=float), np.asarray(simulated, dtype=float)
    if real.ndim != 2 or simulated.ndim != 2 or real.shape[1] != simulated.shape[1]:
        msg = (
            f"Expected real and simulated as samples × genes with the same genes, found shapes {real.shape} and "
            f"{simulated.shape}. Select the same genes in both."
        )
        raise ValueError(msg)
    centre = simulated.mean(axis=0)
    _, singular, components = np.linalg.svd(simulated - centre, full_matrices=False)
    kept = min(n_components, int((singular > RANK_TOLERANCE * singular[0]).sum()))
    axes = components[:kept].T / singular[:kept]
    distances = [(((samples - centre) @ axes) ** 2).sum(axis=1) for samples in (real, simulated)]
    return float((distances[0] <= np.quantile(distances[1], INSIDE_QUANTILE)).mean())
