from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData

from scdeconv import pp, tl
from scdeconv.models import HeldOut

LYMPHOID = {"Lymphoid": ["B cell", "NK cell"]}
TYPES = ["B cell", "NK cell", "T cell"]


@pytest.fixture
def fractions():
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.dirichlet(np.ones(3), 8), [f"s{i}" for i in range(8)], TYPES)


@pytest.fixture
def adata(fractions):
    adata = AnnData(obs=pd.DataFrame(index=fractions.index))
    adata.obsm["measured_fractions"] = fractions.iloc[:, ::-1]
    adata.obsm["fractions"] = fractions
    adata.obsm["cluster_means"] = pd.DataFrame({"x": range(8)}, index=fractions.index)
    return adata


def relabelled(cells, groups):
    new = {member: name for name, members in groups.items() for member in members}
    cells = cells.copy()
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(str).replace(new)
    return cells


class TestFrame:
    def test_members_are_added_in_the_first_place(self, fractions):
        merged = tl.merge_types(fractions, {"NK or T": ["NK cell", "T cell"]})
        assert list(merged) == ["B cell", "NK or T"]
        np.testing.assert_allclose(merged["NK or T"], fractions["NK cell"] + fractions["T cell"])
        pd.testing.assert_series_equal(merged["B cell"], fractions["B cell"])

    def test_rows_of_nan_stay_nan(self, fractions):
        fractions.iloc[2] = np.nan
        assert tl.merge_types(fractions, LYMPHOID).iloc[2].isna().all()

    def test_name_of_a_member_can_be_kept(self, fractions):
        assert list(tl.merge_types(fractions, {"T cell": ["B cell", "T cell"]})) == ["T cell", "NK cell"]

    def test_types_are_added_to_the_unmeasured_rest(self, fractions):
        table = (fractions * 0.8).assign(Unmeasured=0.2)
        merged = tl.merge_types(table, {"Unmeasured": ["NK cell"]})
        assert list(merged) == ["B cell", "Unmeasured", "T cell"]
        np.testing.assert_allclose(merged["Unmeasured"], table["NK cell"] + 0.2)

    def test_input_is_not_changed(self, fractions):
        before = fractions.copy()
        tl.merge_types(fractions, LYMPHOID)
        pd.testing.assert_frame_equal(fractions, before)


BAD_GROUPS = {
    "unknown type": ({"L": ["B cell", "Mast cell"]}, "found 1 others: 'Mast cell'"),
    "near match": ({"L": ["B cell", "NK cells"]}, "NK cells = NK cell"),
    "type in two groups": ({"L": ["B cell", "NK cell"], "M": ["NK cell", "T cell"]}, "several times: 'NK cell'"),
    "type twice in a group": ({"L": ["B cell", "B cell"]}, "several times: 'B cell'"),
    "name of another type": ({"T cell": ["B cell", "NK cell"]}, "found another cell type of this name"),
    "text": ({"L": "B cell"}, "Expected groups to be a dictionary of lists"),
    "nested": ({"L": {"M": ["B cell"]}}, "Expected groups to be a dictionary of lists"),
    "number": ({"L": 3}, "Expected groups to be a dictionary of lists"),
    "empty list": ({"L": []}, "found an empty list of 'L'"),
    "empty dict": ({}, "found an empty dictionary"),
    "list": (["B cell"], "Expected groups to be a dictionary of lists"),
    "None": (None, "Expected groups to be a dictionary of lists"),
    "slash": ({"B/NK": ["B cell", "NK cell"]}, "without '/'"),
    "no name": ({"": ["B cell", "NK cell"]}, "without name"),
}


@pytest.mark.parametrize("kind", ["frame", "adata", "mdata", "profiles"])
@pytest.mark.parametrize(("groups", "message"), BAD_GROUPS.values(), ids=BAD_GROUPS)
def test_bad_groups_are_refused(kind, groups, message, fractions, adata, mdata, unchanged):
    data = {"frame": fractions, "adata": adata, "mdata": mdata, "profiles": mdata["profiles"]}[kind]
    with pytest.raises((TypeError, ValueError), match=message):
        tl.merge_types(data, groups)


def test_all_problems_are_listed_at_once(fractions):
    with pytest.raises(ValueError, match="(?s)2 problems.*without '/'.*Mast cell"):
        tl.merge_types(fractions, {"a/b": ["B cell", "Mast cell"]})


@pytest.mark.parametrize("model", ["ridge", tl.train])
def test_other_models_are_refused(model, adata):
    with pytest.raises(TypeError, match="Expected model to be a trained model"):
        tl.merge_types(adata, LYMPHOID, model=model)


@pytest.mark.parametrize("weights", [[1, 2], "n_cells", 3])
def test_other_weights_are_refused(weights, mdata):
    with pytest.raises(TypeError, match="Expected weights to be a dictionary of numbers"):
        tl.merge_types(mdata["profiles"], LYMPHOID, weights=weights)


def test_mudata_without_bulk_is_refused(adata):
    with pytest.raises(TypeError, match="Expected data to be .* a MuData of scdeconv.pp.pair"):
        tl.merge_types(MuData({"rna": adata}), LYMPHOID)


@pytest.mark.parametrize("data", [None, "fractions", np.ones((2, 2)), ["B cell"]])
def test_other_objects_are_refused(data):
    with pytest.raises(TypeError, match="Expected data to be a DataFrame of fractions"):
        tl.merge_types(data, LYMPHOID)


class TestSamples:
    def test_all_tables_with_the_types_are_merged(self, adata, unchanged):
        with unchanged(adata):
            merged = tl.merge_types(adata, LYMPHOID)
        for key in ("measured_fractions", "fractions"):
            pd.testing.assert_frame_equal(merged.obsm[key], tl.merge_types(adata.obsm[key], LYMPHOID))
        pd.testing.assert_frame_equal(merged.obsm["cluster_means"], adata.obsm["cluster_means"])

    def test_table_with_the_sums_is_kept(self, adata):
        adata.obsm["measured_fractions"] = tl.merge_types(adata.obsm["fractions"], LYMPHOID)
        merged = tl.merge_types(adata, LYMPHOID)
        pd.testing.assert_frame_equal(merged.obsm["measured_fractions"], adata.obsm["measured_fractions"])
        assert tl.evaluate(merged).loc["all entries", "rmse"] == pytest.approx(0, abs=1e-12)

    def test_table_with_part_of_a_group_is_refused(self, adata):
        adata.obsm["measured_fractions"] = adata.obsm["measured_fractions"].drop(columns="B cell")
        with pytest.raises(ValueError, match=r"measured_fractions'\], found only 'NK cell', not 'B cell'"):
            tl.merge_types(adata, LYMPHOID)

    def test_intervals_are_removed_without_model(self, adata):
        adata.obsm["fractions_lower"] = adata.obsm["fractions_upper"] = adata.obsm["fractions"]
        with pytest.warns(UserWarning, match="Removed 'fractions_lower', 'fractions_upper'.* Pass model="):
            merged = tl.merge_types(adata, LYMPHOID)
        assert set(merged.obsm) == {"measured_fractions", "fractions", "cluster_means"}

    def test_sum_has_the_colour_of_its_first_member(self, adata):
        adata.uns["fractions_colors"] = ["red", "lime", "blue"]
        merged = tl.merge_types(adata, LYMPHOID)
        assert merged.uns["fractions_colors"] == {"T cell": "blue", "Lymphoid": "red"}

    def test_cells_are_refused_with_the_renaming(self, inputs):
        with pytest.raises(ValueError, match=r"replace\(\{'B cell': 'Lymphoid', 'NK cell': 'Lymphoid'\}\)"):
            tl.merge_types(inputs[0], LYMPHOID)


class TestIntervals:
    @pytest.fixture
    def groups(self, pairs):
        first, second, *_ = pairs["bulk"].obsm["measured_fractions"]
        return {"Both": [first, second]}

    @pytest.mark.parametrize(
        ("method", "arguments"),
        [("ridge", {}), ("simplednn", {"n_members": 2, "max_epochs": 2, "hidden": (4,), "accelerator": "cpu"})],
    )
    def test_intervals_are_from_errors_of_the_sums(self, method, arguments, pairs, cohort, groups):
        model = tl.train(pairs, method, **arguments)
        bulk = cohort[1][-2:].copy()
        rng = np.random.default_rng(0)
        bulk.X = rng.poisson(bulk.X * rng.uniform(0.5, 2, bulk.shape)).astype(np.float32)
        tl.predict(bulk, model, coverage=0.8)
        merged = tl.merge_types(bulk, groups, model=model)
        of = np.zeros((len(model.cell_types_), len(model.cell_types_) - 1))
        of[:2, 0] = 1
        of[2:, 1:] = np.eye(len(model.cell_types_) - 2)
        held_out = model.held_out_
        members = None if held_out.members is None else held_out.members @ of
        held_out = HeldOut(held_out.measured @ of, held_out.predicted @ of, held_out.donors, members)
        spread = model.state_.estimate(model._aligned(bulk, None)[0]).sums(of).spread
        expected = held_out.intervals(merged.obsm["fractions"].to_numpy(), 0.8, spread)
        for side, bound in zip(("lower", "upper"), expected, strict=True):
            np.testing.assert_allclose(merged.obsm[f"fractions_{side}"], bound, atol=1e-6)

    @pytest.mark.parametrize("in_sample", [False, True])
    def test_training_samples_have_intervals_of_their_estimate(self, in_sample, pairs, groups):
        model = tl.train(pairs, "ridge")
        bulk = pairs["bulk"]
        tl.predict(bulk, model, coverage=0.8, in_sample=in_sample)
        merged = tl.merge_types(bulk, groups, model=model)
        lower, upper = (merged.obsm[f"fractions_{side}"] for side in ("lower", "upper"))
        assert ((lower <= merged.obsm["fractions"] + 1e-9) & (merged.obsm["fractions"] <= upper + 1e-9)).all(axis=None)

    def test_sums_of_sums_have_intervals(self, pairs, groups):
        model, bulk = tl.train(pairs, "ridge"), pairs["bulk"]
        third = list(bulk.obsm["measured_fractions"])[2]
        tl.predict(bulk, model, coverage=0.8)
        twice = tl.merge_types(tl.merge_types(bulk, groups, model=model), {"More": ["Both", third]}, model=model)
        once = tl.merge_types(bulk, {"More": [*groups["Both"], third]}, model=model)
        pd.testing.assert_frame_equal(twice.obsm["fractions_lower"], once.obsm["fractions_lower"])

    def test_other_model_is_refused(self, pairs, groups):
        bulk = pairs["bulk"]
        tl.predict(bulk, tl.train(pairs, "ridge"), coverage=0.8)
        with pytest.raises(ValueError, match="Expected estimates of the model with intervals"):
            tl.merge_types(bulk, groups, model=tl.train(pairs, "nnls"))

    def test_sum_is_covered_as_often_as_promised(self):
        # errors of the members cancel: bounds of the members added up would be far too wide
        rng = np.random.default_rng(0)
        measured = rng.dirichlet([20, 20, 40], 200)
        swapped, missed = rng.normal(0, 0.08, 200), rng.normal(0, 0.005, 200)
        error = np.column_stack([swapped + missed, missed - swapped, -2 * missed])
        predicted = np.clip(measured + error, 0, 1)
        of = np.array([[1, 0], [1, 0], [0, 1]])
        donors = np.arange(200).astype(str)
        lower, upper = HeldOut(measured, predicted, donors).intervals(predicted, 0.9)
        low, high = HeldOut(measured, predicted, donors).sums(of).intervals(predicted @ of, 0.9)
        assert ((low <= measured @ of) & (measured @ of <= high)).mean() == pytest.approx(0.9, abs=0.05)
        assert (high - low)[:, 0].mean() < 0.2 * (upper - lower)[:, :2].sum(axis=1).mean()


class TestPairs:
    def test_result_equals_pairing_with_merged_labels(self, inputs, assert_same, unchanged):
        cells, bulk = inputs
        mdata = pp.pair(cells, bulk)
        with unchanged(*mdata.mod.values()):
            merged = tl.merge_types(mdata, LYMPHOID)
        expected = pp.pair(relabelled(cells, LYMPHOID), bulk)
        for both in (merged, expected):
            table = both["bulk"].obsm["measured_fractions"]
            both["bulk"].obsm["measured_fractions"] = table.round(12)
        assert_same(merged, expected)

    def test_later_steps_are_repeated(self, cohort, unchanged):
        cells, bulk = cohort
        groups = {"Z": sorted(cells.obs["cell_type"].unique())[:2]}
        made = []
        for mdata in (pp.pair(cells, bulk), pp.pair(relabelled(cells, groups), bulk)):
            pp.calibrate(mdata)
            pp.simulate(mdata, 20, seed=1)
            pp.select_genes(mdata, 40)
            pp.augment(mdata, n_aug=3)
            made.append(mdata)
        merged, expected = tl.merge_types(made[0], groups), made[1]
        order = list(expected["profiles"].obs_names)
        np.testing.assert_array_equal(merged["bulk"].var["selected"], expected["bulk"].var["selected"])
        assert merged["simulated"].obsm["measured_fractions"].shape == (20, len(order))
        sizes = [pp.calibrate(mdata).cell_types["cell_size"][order] for mdata in (merged, expected)]
        np.testing.assert_allclose(*sizes, rtol=1e-3)
        assert merged["bulk"].obsm["augmented_fractions"].shape == (bulk.n_obs, 3, len(order))
        first, second = (tl.train(mdata, "calibrated_map").predict(bulk)[order] for mdata in (merged, expected))
        np.testing.assert_allclose(first, second, atol=1e-3)

    @pytest.mark.parametrize("method", ["nnls", "ridge", "calibrated_map", "mean_composition"])
    def test_methods_train_on_merged_pairs(self, method, pairs):
        types = list(pairs["profiles"].obs["cell_type"])
        merged = tl.merge_types(pairs, {"New": types[1:3]})
        assert list(tl.train(merged, method).cell_types_) == [types[0], "New", *types[3:]]

    def test_variance_of_uncertain_types_is_removed(self, inputs):
        cells, bulk = inputs
        cells.obsm["soft"] = pd.get_dummies(cells.obs["cell_type"].astype(str)).astype(float) * 0.7 + 0.1
        mdata = pp.pair(cells, bulk, probabilities_key="soft")
        with pytest.warns(UserWarning, match="Removed 'measured_variance'"):
            merged = tl.merge_types(mdata, LYMPHOID)
        assert set(merged["bulk"].obsm) == {"measured_fractions", "measured_cells"}

    def test_unmeasured_rest_is_kept(self, reference_inputs):
        bulk = reference_inputs["bulk"]
        bulk.obsm["measured_fractions"] *= 0.8
        mdata = pp.pair(bulk=bulk, profiles=reference_inputs["profiles"])
        merged = tl.merge_types(mdata, LYMPHOID)["bulk"].obsm["measured_fractions"].dropna()
        assert list(merged) == ["Lymphoid", "T cell", "Unmeasured"]
        np.testing.assert_allclose(merged["Unmeasured"], 0.2)


class TestProfiles:
    @pytest.fixture
    def profiles(self, reference_inputs):
        profiles = reference_inputs["profiles"]
        profiles.obs["n_cells"] = [30, 10, 5]
        return profiles

    def test_profiles_of_cells_are_averaged_by_their_number(self, inputs, capsys):
        cells, bulk = inputs
        profiles = pp.pair(cells, bulk)["profiles"]
        expected = pp.pair(relabelled(cells, LYMPHOID), bulk)["profiles"]
        merged = tl.merge_types(profiles, LYMPHOID)
        assert "profiles averaged by n_cells" in capsys.readouterr().out
        np.testing.assert_allclose(merged.X, expected.X, rtol=1e-5)
        pd.testing.assert_frame_equal(merged.obs[expected.obs.columns], expected.obs, check_dtype=False, rtol=1e-6)

    def test_weights_replace_the_number_of_cells(self, profiles):
        merged = tl.merge_types(profiles, LYMPHOID, weights={"B cell": 1, "NK cell": 3})
        np.testing.assert_allclose(merged.X[0], (profiles.X[0] + 3 * profiles.X[1]) / 4)
        np.testing.assert_allclose(merged.X[1], profiles.X[2])

    def test_unit_and_sizes_are_kept_apart(self, profiles):
        counts, tpm = profiles.copy(), profiles.copy()
        tpm.obs["cell_size_umi"] = counts.X.sum(axis=1)
        tpm.X = tpm.X / tpm.X.sum(axis=1, keepdims=True) * 1e6
        first, second = (tl.merge_types(each, LYMPHOID) for each in (counts, tpm))
        np.testing.assert_allclose(second.X.sum(axis=1), 1e6)
        np.testing.assert_allclose(
            second.X * (second.obs["cell_size_umi"] / second.obs["total"]).to_numpy()[:, None], first.X
        )

    @pytest.mark.parametrize(
        "weights", [None, {"B cell": 1}, {"B cell": 0, "NK cell": 0}, {"B cell": -1, "NK cell": 2}]
    )
    def test_unknown_weights_are_refused(self, weights, profiles):
        del profiles.obs["n_cells"]
        with pytest.raises(ValueError, match="Expected the relative number of cells of each merged type"):
            tl.merge_types(profiles, LYMPHOID, weights=weights)

    def test_mean_measured_fractions_are_the_weights_of_pairs(self, reference_inputs, capsys):
        mdata = pp.pair(**reference_inputs)
        mean = mdata["bulk"].obsm["measured_fractions"].dropna().mean()
        merged = tl.merge_types(mdata, LYMPHOID)["profiles"]
        assert "profiles averaged by mean measured fractions" in capsys.readouterr().out
        b, nk = mean["B cell"], mean["NK cell"]
        profiles = mdata["profiles"].X
        np.testing.assert_allclose(merged.X[0], (b * profiles[0] + nk * profiles[1]) / (b + nk), rtol=1e-5)
