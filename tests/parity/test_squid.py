"""SQUID against SQUID 0.1.0 @ c353e02, whose order of types, samples, stopping rule and caps are given to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scdeconv._stats.compositions import to_fractions
from scdeconv._stats.expression import to_shares
from scdeconv._stats.least_squares import solve_weighted
from scdeconv._stats.solvers import dampened_weights
from scdeconv.models.paired.squid import MomentMap

# change of the solution that ends the original's rounds; its solution sums to about 1
CHANGE = 0.01
# log2 of the caps of the original, found by search; they come from random halves of the genes
CAPS_ALL = (25, 24, 27, 26, 23, 25, 22, 22, 27, 23, 34, 22, 22, 19, 21, 18)
CAPS_LEFT_OUT = (18, 29, 30, 30, 23, 27)


@pytest.fixture(scope="module")
def tables(cells, paired, bulk):
    """Profiles in the order of the cells, and pseudobulk of the original, which takes fractions in alphabetical order."""
    order = list(pd.unique(cells.obs["cell_type"].astype(str)))
    assert order != sorted(order)
    profiles = paired["profiles"].to_df().set_axis(paired["profiles"].obs["cell_type"].astype(str)).loc[order]
    measured = paired["bulk"].obsm["measured_fractions"]
    # float32 profiles are not exact enough
    counts = (
        pd.DataFrame(cells.X.toarray(), columns=cells.var_names)
        .groupby(cells.obs["cell_type"].astype(str).to_numpy())
        .mean()
    )
    profiles = counts.loc[order, profiles.columns]
    pseudobulk = measured[sorted(order)].to_numpy() @ profiles.to_numpy()
    return profiles, pseudobulk, to_shares(paired["bulk"].X.astype(float)), to_shares(bulk.X)


def solve(profiles, transformed, caps, monkeypatch):
    found = []
    for sample, power in zip(transformed, caps, strict=True):
        start = solve_weighted(profiles.to_numpy(), sample[None], np.ones((1, len(sample))))
        # in percent of the sum of the first solution
        monkeypatch.setattr(dampened_weights, "TOLERANCE", 100 * CHANGE / start.sum())
        monkeypatch.setattr(
            dampened_weights, "choose_caps", lambda *args, power=power, **kwargs: np.array([2.0**power])
        )
        found.append(to_fractions(dampened_weights.solve_dwls(profiles.to_numpy(), sample[None]))[0])
    return np.array(found)


def test_all_samples_equal_the_original(tables, paired, bulk, assert_equals_original, monkeypatch):
    """Mean and SD of the bulk over pairs and new samples together."""
    profiles, pseudobulk, *shares = tables
    every = np.vstack(shares)
    of_all = MomentMap.of(every, pseudobulk)
    fractions = solve(profiles, of_all.transform(every), CAPS_ALL, monkeypatch)
    names = [*paired["bulk"].obs_names, *bulk.obs_names]
    # measured 4.9e-10: the rounding of the table
    assert_equals_original(pd.DataFrame(fractions, names, profiles.index), "squid", atol=1e-9)


def test_pairs_left_out_equal_the_original(tables, paired, assert_equals_original, monkeypatch):
    """Mean and SD of the bulk over the other pairs, those of the pseudobulk over all pairs."""
    profiles, pseudobulk, pairs, _ = tables
    of_all, transformed = MomentMap.of(pairs, pseudobulk), []
    for row, sample in enumerate(pairs):
        rest = np.delete(pairs, row, axis=0)
        left_out = replace(of_all, mean=rest.mean(axis=0), sd=rest.std(axis=0, ddof=1))
        transformed.append(left_out.transform(sample[None])[0])
    fractions = solve(profiles, transformed, CAPS_LEFT_OUT, monkeypatch)
    table = pd.DataFrame(fractions, paired["bulk"].obs_names, profiles.index)
    # measured 5.0e-10
    assert_equals_original(table, "squid_leave_one_out_pairs", atol=1e-9)
