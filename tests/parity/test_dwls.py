"""DWLS and NNLS against DWLS @ b73dd13, whose signature and dampening constants are given to them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import tl
from scdeconv._data.reference import Reference
from scdeconv._stats.compositions import to_fractions
from scdeconv._stats.least_squares import solve_weighted
from scdeconv._stats.solvers import dampened_weights

# change of the solution, in cells, that ends the original's rounds
CHANGE_IN_CELLS = 0.01
TABLES = pytest.mark.parametrize("table", ["dwls", "dwls_all_genes"])


@pytest.fixture(scope="module")
def signatures(unpaired, read_original):
    """Mean counts per cell of the original's signature and of all genes, with the cell sizes, by table."""
    profiles = unpaired["profiles"]
    found = {}
    for table, genes in (
        ("dwls", pd.Index(read_original("dwls_signature").columns)),
        ("dwls_all_genes", profiles.var_names),
    ):
        means, size = Reference(unpaired, genes).profiles()
        obs = pd.DataFrame({"cell_type": profiles.obs_names, "cell_size_umi": size, "total": size}, profiles.obs_names)
        found[table] = AnnData(means, obs, pd.DataFrame(index=genes))
    return found


@pytest.fixture
def original_caps(read_original, bulk, monkeypatch):
    """A function that makes DWLS use the dampening constants of the original for some samples."""

    def give(table, samples=bulk.obs_names):
        power = read_original(f"{table}_dampening", samples)["j"].to_numpy() - 1
        monkeypatch.setattr(dampened_weights, "choose_caps", lambda *args, **kwargs: 2.0**power)

    return give


def test_mean_counts_of_the_genes_equal_the_signature(signatures, assert_equals_original):
    # measured 4.3e-9: the rounding of the table
    assert_equals_original(signatures["dwls"].to_df(), "dwls_signature", rtol=6e-9)


def test_nnls_equals_the_original(unpaired, bulk, signatures, assert_equals_original):
    model = tl.train(unpaired, "nnls", signature=signatures["dwls"])
    # measured 5.0e-10
    assert_equals_original(model.predict(bulk), "dwls_ols", atol=6e-10)


@TABLES
def test_fractions_are_close_to_the_original(unpaired, bulk, signatures, original_caps, assert_equals_original, table):
    """Rounds end at a change of 0.01 % of the solution, those of the original at 0.01 cells."""
    model = tl.train(unpaired, "dwls", signature=signatures[table])
    original_caps(table)
    # measured 2.5e-4 and 1.9e-4
    assert_equals_original(model.predict(bulk), table, atol=3e-4)


@pytest.mark.parametrize(("table", "bound"), [("dwls", 0.012), ("dwls_all_genes", 0.007)])
def test_fractions_of_different_seeds_agree(unpaired, bulk, signatures, monkeypatch, table, bound):
    """The caps come from random halves of the genes. The bounds are in the docstring of the class."""
    model, choose_caps, found = (
        tl.train(unpaired, "dwls", signature=signatures[table]),
        dampened_weights.choose_caps,
        [],
    )
    for seed in range(4):
        monkeypatch.setattr(dampened_weights, "choose_caps", partial(choose_caps, seed=seed))
        found.append(model.predict(bulk))
    # measured over 20 seeds: 0.0115 and 0.0065
    assert np.ptp(found, axis=0).max() < bound


@TABLES
def test_fractions_equal_the_original_with_its_stopping_rule(
    bulk, signatures, original_caps, assert_equals_original, monkeypatch, table
):
    signature = signatures[table]
    found = {}
    for sample in bulk.obs_names:
        expression = bulk[sample, signature.var_names].X
        start = solve_weighted(signature.X, expression, np.ones_like(expression))
        # in percent of the sum of the first solution
        monkeypatch.setattr(dampened_weights, "TOLERANCE", 100 * CHANGE_IN_CELLS / start.sum())
        original_caps(table, [sample])
        found[sample] = to_fractions(dampened_weights.solve_dwls(signature.X, expression))[0]
    fractions = pd.DataFrame.from_dict(found, orient="index", columns=signature.obs_names)
    # measured 4.9e-10 and 4.8e-10
    assert_equals_original(fractions, table, atol=6e-10)
