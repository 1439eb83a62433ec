from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import pp
from scdeconv._data.modalities import make_mudata


@pytest.fixture
def fits(monkeypatch):
    """Calls of the training loop of networks on pairs: module, data, validation rows, loss, arguments and plan."""
    from scdeconv.models import _members

    calls = []
    fit = _members.fit

    def spy(module, data, loss, **arguments):
        plan = fit(module, data, loss, **arguments)
        calls.append({"module": module, "data": data, "loss": loss, "arguments": arguments, "plan": plan})
        calls[-1]["validation"] = arguments.get("validation")
        return plan

    monkeypatch.setattr(_members, "fit", spy)
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


@pytest.fixture
def interrupt_fit(monkeypatch):
    """Interrupt training of networks on pairs: at once or only in the refit; returns the networks."""
    from scdeconv.models import _members

    fit = _members.fit

    def start(*, refit_only=False):
        modules = []

        def interrupted(module, data, loss, **arguments):
            modules.append(module)
            stops = not refit_only or arguments.get("validation") is None
            plan = fit(module, data, loss, **({**arguments, "max_steps": 2} if stops else arguments))
            plan.stop = stops
            return plan

        monkeypatch.setattr(_members, "fit", interrupted)
        return modules

    return start


def known_rows(mdata):
    """Whether each bulk sample has measured fractions."""
    return mdata["bulk"].obsm["measured_fractions"].notna().all(axis=1).to_numpy()


@pytest.fixture
def donors_of_rows():
    """A function that returns the donor of every sample of a MuData that can be trained on."""
    return lambda mdata: mdata["bulk"].obs["donor"].to_numpy()[known_rows(mdata)].astype(str)


@pytest.fixture
def bulk_with_truth(pairs):
    """The bulk samples of the small cohort that have measured fractions."""
    return pairs["bulk"][known_rows(pairs)].copy()


@pytest.fixture
def empty_sample_pairs(cohort, pairs):
    """Pairs whose first sample has no count in the selected genes."""
    pp.select_genes(pairs, 20)
    selected, bulk = pairs["bulk"].var["selected"], cohort[1].copy()
    x = bulk.X.copy()
    x[0, bulk.var_names.isin(selected.index[selected])] = 0
    bulk.X = x
    mdata = pp.pair(cohort[0], bulk)
    mdata["bulk"].var["selected"] = selected
    return mdata
