"""Overlap of simulated with real expression."""

from __future__ import annotations

import numpy as np

QUANTILE = 0.95
"""Share of the simulated samples that count as inside."""
RELATIVE_RANK_TOLERANCE = 1e-9
"""Principal components with a singular value below this share of the first are rounding."""


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
    kept = min(n_components, int((singular > RELATIVE_RANK_TOLERANCE * singular[0]).sum()))
    axes = components[:kept].T / singular[:kept]
    distances = [(((samples - centre) @ axes) ** 2).sum(axis=1) for samples in (real, simulated)]
    return float((distances[0] <= np.quantile(distances[1], QUANTILE)).mean())
