"""Log-ratios of compositions."""

from __future__ import annotations

import numpy as np

# fractions below this count as this: their logarithms are counting noise
FLOOR = 1e-3


def centred_log_ratio(fractions: np.ndarray, floor: float = FLOOR) -> np.ndarray:
    """Return log fractions less their mean over cell types, samples × cell types; smaller fractions are raised to the floor."""
    logs = np.log(np.maximum(fractions, floor))
    return logs - logs.mean(axis=-1, keepdims=True)
