"""Generated profiles and mixtures for the tests of DWLS and its options."""

from __future__ import annotations

import numpy as np

from scdeconv._stats.expression import to_shares

TYPES = ["Alpha cell", "Beta cell", "Delta cell", "Duct cell", "Mast cell", "T cell"]


def make_profiles(seed=0, n_genes=800, similar=0.3):
    """RNA shares of six types: the first two differ by this log-fold change, the others also by their own markers."""
    rng = np.random.default_rng(seed)
    own = rng.normal(0, 0.6, (len(TYPES), n_genes))
    marker = np.flatnonzero(rng.random(n_genes) < 0.2)
    own[rng.integers(0, len(TYPES), len(marker)), marker] += 2.5
    own[1] = own[0] + similar * rng.normal(size=n_genes)
    return to_shares(np.exp(rng.normal(0, 1.1, n_genes) + own))


def noisy_mixtures(seed=0, n_samples=4, n_types=4, n_genes=60):
    rng = np.random.default_rng(seed)
    signature = rng.gamma(0.4, 1, (n_types, n_genes))
    weights = rng.dirichlet(np.ones(n_types), n_samples)
    return signature, weights @ signature * rng.lognormal(0, 0.4, (n_samples, n_genes)), weights
