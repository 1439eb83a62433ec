"""Quality measures by plain loops."""

from __future__ import annotations

import numpy as np

from scdeconv._stats.recognition.familiarity import LEAST_SPREAD


def distance_by_loops(sample, others):
    """Standard deviations, on the angular scale, of the most unusual type."""
    angles = [[np.arcsin(np.sqrt(value)) for value in row] for row in others]
    columns = list(zip(*angles, strict=True))
    return max(
        abs(np.arcsin(np.sqrt(sample[k])) - np.mean(columns[k])) / (np.std(columns[k], ddof=1) + LEAST_SPREAD)
        for k in range(len(sample))
    )
