from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdeconv import tl
from scdeconv._data.annotated import make_adata


@pytest.fixture
def estimated(pairs):
    """Bulk with fractions, bounds and quality, and the model."""
    model = tl.train(pairs, "calibrated_map")
    bulk = pairs["bulk"].copy()
    tl.predict(bulk, model, coverage=0.8)
    return bulk, model


@pytest.fixture
def make_estimate():
    """Random fractions with bounds and flags, without expression and model."""

    def make(n_samples, n_types):
        rng = np.random.default_rng(n_samples)
        names = [f"s{number}" for number in range(n_samples)]
        types = [f"type {number}" for number in range(n_types)]
        adata = make_adata(obs=pd.DataFrame(index=names))
        fractions = rng.dirichlet(np.ones(n_types), n_samples)
        for side, change in (("", 0), ("_lower", -0.05), ("_upper", 0.05)):
            adata.obsm[f"fractions{side}"] = pd.DataFrame(np.clip(fractions + change, 0, 1), names, types)
        flags = {"noise": rng.random(n_samples), "outside": rng.random(n_samples) < 0.2}
        adata.obsm["fractions_quality"] = pd.DataFrame(flags, names)
        return adata

    return make
