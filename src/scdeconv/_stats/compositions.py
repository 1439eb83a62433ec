"""Log-ratios and divergences of compositions."""

from __future__ import annotations

import numpy as np

# fractions below this count as this: their logarithms are counting noise
FLOOR = 1e-3


def centred_log_ratio(fractions: np.ndarray, floor: float = FLOOR) -> np.ndarray:
    """Return log fractions less their mean over cell types, samples × cell types; smaller fractions are raised to the floor."""
    logs = np.log(np.maximum(fractions, floor))
    return logs - logs.mean(axis=-1, keepdims=True)


def mean_kl(true: np.ndarray, estimate: np.ndarray, floor: float = 0.0) -> float:
    """Return the Kullback-Leibler divergence in nats, mean over rows; smaller fractions are raised to the floor."""
    p, q = (values / values.sum(axis=1, keepdims=True) for values in (np.maximum(x, floor) for x in (true, estimate)))
    return float(np.mean(np.sum(p * np.log(p / q), axis=1)))
