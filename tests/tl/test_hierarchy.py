from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scdeconv import models, pl, pp, tl
from scdeconv._data.modalities import read_mudata, write_mudata
from scdeconv.models import HeldOut

mpl.use("Agg")

BAD = {
    "unknown type": ({"A": ["B cell", "Mast cell"]}, "found 1 others: 'Mast cell'"),
    "near match": ({"A": ["B cell", "NK cells"]}, "NK cells = NK cell"),
    "two parents": ({"A": ["B cell", "NK cell"], "C": ["NK cell", "T cell"]}, "several times: 'NK cell'"),
    "group with two parents": ({"A": ["B cell"], "C": ["A", "T cell"], "D": ["A", "NK cell"]}, "several times: 'A'"),
    "cycle": ({"A": ["C"], "C": ["A"]}, "found 'A' in 'C' in 'A'"),
    "cycle of one": ({"A": ["A", "B cell"]}, "found 'A' in 'A'"),
    "cycle of three": ({"A": ["C"], "C": ["D"], "D": ["A", "B cell"]}, "without cycles"),
    "name of a type": ({"B cell": ["NK cell", "T cell"]}, "found cell types: 'B cell'"),
    "text": ({"A": "B cell"}, "Expected hierarchy to be a dictionary of lists"),
    "nested": ({"A": {"C": ["B cell"]}}, "Expected hierarchy to be a dictionary of lists"),
    "empty": ({"A": []}, "found an empty list"),
    "list": (["B cell"], "Expected hierarchy to be a dictionary of lists"),
    "slash": ({"B/NK": ["B cell", "NK cell"]}, "without '/'"),
}


@pytest.mark.parametrize(("hierarchy", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("source", ["cells", "profiles", "fractions"])
def test_bad_hierarchies_are_refused(source, hierarchy, message, inputs, reference_inputs):
    given = {
        "cells": dict(zip(("cells", "bulk"), inputs, strict=True)),
        "profiles": reference_inputs,
        "fractions": {"bulk": reference_inputs["bulk"]},
    }[source]
    with pytest.raises((TypeError, ValueError), match=message):
        pp.pair(**given, hierarchy=hierarchy)


@pytest.fixture(autouse=True)
def _figures_are_closed():
    yield
    plt.close("all")


@pytest.fixture
def paired(cohort):
    """Pairs with two levels: A (two types), and Top (A and a third type)."""
    first, second, third, _ = cohort[0].obs["cell_type"].astype("category").cat.categories
    return pp.pair(*cohort, hierarchy={"A": [first, second], "Top": ["A", third]})


@pytest.fixture
def bulk(cohort):
    """New samples with the genes of the cohort."""
    rng = np.random.default_rng(0)
    bulk = cohort[1].copy()
    bulk.X = rng.poisson(bulk.X * rng.uniform(0.5, 2, bulk.shape)).astype(np.float32)
    return bulk


@pytest.mark.parametrize("method", ["nnls", "ridge", "calibrated_map", "mean_composition"])
def test_levels_are_sums_of_their_types(method, paired, bulk):
    tl.predict(bulk, tl.train(paired, method))
    types = list(bulk.obsm["fractions"])
    levels = bulk.obsm["fractions_by_level"]
    assert list(levels) == ["A", "Top"]
    np.testing.assert_allclose(levels["A"], bulk.obsm["fractions"][types[:2]].sum(axis=1))
    np.testing.assert_allclose(levels["Top"], bulk.obsm["fractions"][types[:3]].sum(axis=1))


@pytest.mark.parametrize(
    ("method", "arguments"),
    [("ridge", {}), ("simplednn", {"n_members": 2, "max_epochs": 2, "hidden": (4,), "accelerator": "cpu"})],
)
def test_intervals_are_from_errors_of_the_levels(method, arguments, paired, bulk):
    model = tl.train(paired, method, **arguments)
    tl.predict(bulk, model, coverage=0.8)
    of = np.array([[1, 1], [1, 1], [0, 1], [0, 0]])
    held_out = model.held_out_
    members = None if held_out.members is None else held_out.members @ of
    held_out = HeldOut(held_out.measured @ of, held_out.predicted @ of, held_out.donors, members)
    spread = model.state_.estimate(model._aligned(bulk, None)[0]).sums(of).spread
    expected = held_out.intervals(bulk.obsm["fractions"].to_numpy() @ of, 0.8, spread)
    for side, bound in zip(("lower", "upper"), expected, strict=True):
        np.testing.assert_allclose(bulk.obsm[f"fractions_by_level_{side}"], bound, atol=1e-6)
    assert [ax.get_title() for ax in pl.intervals(bulk, "fractions_by_level")] == ["A", "Top"]


def test_results_of_an_earlier_model_are_removed(paired, pairs, bulk):
    tl.predict(bulk, tl.train(paired, "ridge"), coverage=0.8)
    tl.predict(bulk, tl.train(pairs, "ridge"))
    assert not [key for key in [*bulk.obsm, *bulk.uns["scdeconv"]] if "by_level" in key]


def test_hierarchy_is_kept_in_files(paired, bulk, tmp_path):
    write_mudata(paired, tmp_path / "pairs.h5mu")
    model = tl.train(read_mudata(tmp_path / "pairs.h5mu"), "ridge")
    model.save(tmp_path / "model")
    tl.predict(bulk, models.load_model(tmp_path / "model"), coverage=0.8)
    bulk.write_h5ad(tmp_path / "bulk.h5ad")
    assert list(bulk.obsm["fractions_by_level_lower"]) == ["A", "Top"]


def test_hierarchy_is_kept_without_held_out_donors(paired):
    train, _ = pp.hold_out(paired, pp.paired_donors(paired)[:2])
    assert tl.train(train, "ridge").training_.levels == tl.train(paired, "ridge").training_.levels


class TestEvaluate:
    @pytest.fixture
    def estimated(self, paired):
        tl.predict(paired["bulk"], tl.train(paired, "ridge"))
        return paired["bulk"]

    def test_levels_have_rows(self, estimated):
        table = tl.evaluate(estimated)
        types = list(estimated.obsm["fractions"])
        assert list(table.index) == [*types, "A", "Top", "all entries", "mean of types"]
        measured = estimated.obsm["measured_fractions"].dropna()
        error = (estimated.obsm["fractions"].loc[measured.index] - measured)[types[:2]].sum(axis=1)
        assert table.loc["A", "rmse"] == pytest.approx(np.sqrt((error**2).mean()))
        mean = measured[types[:2]].sum(axis=1)
        assert table.loc["A", "rmse_mean_composition"] == pytest.approx(mean.std(ddof=0))

    def test_measured_level_is_compared_with_its_sum(self, estimated):
        expected = tl.evaluate(estimated)
        types = list(estimated.obsm["fractions"])
        estimated.obsm["measured_fractions"] = tl.merge_types(estimated.obsm["measured_fractions"], {"A": types[:2]})
        table = tl.evaluate(estimated)
        assert list(table.index) == ["A", *types[2:], "Top", "all entries", "mean of types"]
        for name in ("A", *types[2:], "Top"):
            np.testing.assert_allclose(table.loc[name], expected.loc[name])
        assert [ax.get_title() for ax in pl.measured_vs_predicted(estimated)] == ["A", *types[2:]]
        assert [ax.get_title() for ax in pl.bland_altman(estimated)] == ["A", *types[2:]]

    def test_table_of_levels_can_be_compared(self, estimated):
        expected = tl.evaluate(estimated)
        table = tl.evaluate(estimated, "fractions_by_level")
        assert list(table.index) == ["A", "Top", "all entries", "mean of types"]
        pd.testing.assert_frame_equal(table.loc[["A", "Top"]], expected.loc[["A", "Top"]])
        assert [ax.get_title() for ax in pl.measured_vs_predicted(estimated, "fractions_by_level")] == ["A", "Top"]

    def test_levels_with_unmeasured_types_have_no_row(self, estimated):
        types = list(estimated.obsm["fractions"])
        measured = estimated.obsm["measured_fractions"].rename(columns={types[2]: "Unmeasured"})
        estimated.obsm["measured_fractions"] = measured
        with pytest.warns(UserWarning, match="3 other types"):
            table = tl.evaluate(estimated)
        assert list(table.index) == [*types[:2], types[3], "A", "all entries", "mean of types"]


class TestMergeTypes:
    def test_levels_are_kept_with_the_merged_types(self, paired):
        types = list(paired["profiles"].obs["cell_type"])
        merged = tl.merge_types(paired, {"A": types[:2]})
        assert merged.uns["scdeconv"]["pair"]["hierarchy"] == {"Top": ["A", types[2]]}
        assert paired.uns["scdeconv"]["pair"]["hierarchy"]["A"] == types[:2]

    def test_levels_that_a_group_cuts_are_dropped(self, paired, bulk):
        types = list(paired["profiles"].obs["cell_type"])
        tl.predict(bulk, tl.train(paired, "ridge"))
        merged = tl.merge_types(bulk, {"New": types[1:3]})
        assert list(merged.obsm["fractions_by_level"]) == ["Top"]
        pd.testing.assert_series_equal(merged.obsm["fractions_by_level"]["Top"], bulk.obsm["fractions_by_level"]["Top"])
        assert merged.uns["scdeconv"]["fractions"]["levels"] == {"Top": ["New", types[0]]}
