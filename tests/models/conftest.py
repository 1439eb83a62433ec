from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv._data.modalities import make_mudata


@pytest.fixture
def fits(monkeypatch):
    """Every call of SimpleDNN's training loop: module, data, validation rows, loss, arguments and plan."""
    from scdeconv.models.paired import simplednn as _simplednn

    calls = []
    fit = _simplednn.fit

    def spy(module, data, loss, **arguments):
        plan = fit(module, data, loss, **arguments)
        calls.append({"module": module, "data": data, "loss": loss, "arguments": arguments, "plan": plan})
        calls[-1]["validation"] = arguments.get("validation")
        return plan

    monkeypatch.setattr(_simplednn, "fit", spy)
    return calls


@pytest.fixture
def repeated_pairs(pairs):
    """Donors with one, two and three samples: the bulk of a donor again at another depth, with other noise."""
    bulk = pairs["bulk"]
    rng = np.random.default_rng(0)
    repeats = 1 + np.arange(bulk.n_obs) % 3
    rows = np.repeat(np.arange(bulk.n_obs), repeats)
    names = pd.Index([f"sample{i}" for i in range(len(rows))])
    counts = rng.poisson(bulk.X[rows] * rng.uniform(0.3, 1, (len(rows), 1))).astype(np.int32)
    more = AnnData(counts, obs=bulk.obs.iloc[rows].set_index(names), var=bulk.var)
    more.obsm["measured_fractions"] = bulk.obsm["measured_fractions"].iloc[rows].set_index(names)
    return make_mudata({**pairs.mod, "bulk": more})
