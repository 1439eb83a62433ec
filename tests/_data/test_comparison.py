"""Truth in other words than the estimate: every function that compares them refuses it or scores it right."""

from __future__ import annotations

import inspect
import warnings

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import metrics, pl, tl

mpl.use("Agg")

TYPES = ["Neutrophil", "CD4 T", "NK", "B cell"]


def takes(function, argument):
    return inspect.isfunction(function) and argument in inspect.signature(function).parameters


# a new function with measured_key=, or a new metric, is tested without a change here
WITH_ADATA = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (tl, pl)
    for name in module.__all__
    if takes(getattr(module, name), "measured_key")
}
WITH_FRAMES = {f"metrics.{name}": getattr(metrics, name) for name in metrics.__all__ if name != "overlap"}


def adata_of(measured, predicted, **more):
    adata = AnnData(obs=pd.DataFrame(index=measured.index.astype(str)))
    tables = {"measured_fractions": measured, "fractions": predicted, **more}
    for side, shift in (("lower", -0.1), ("upper", 0.1)):
        try:
            tables[f"fractions_{side}"] = (predicted + shift).clip(0, 1)
        except TypeError:
            tables[f"fractions_{side}"] = predicted
    for key, table in tables.items():
        adata.obsm[key] = table.set_axis(adata.obs_names)
    return adata


def call(name, measured, predicted):
    if name in WITH_ADATA:
        return WITH_ADATA[name](adata_of(measured, predicted))
    return WITH_FRAMES[name](measured, predicted)


every_comparison = pytest.mark.parametrize("name", [*WITH_ADATA, *WITH_FRAMES])
every_comparison_of_adata = pytest.mark.parametrize("name", WITH_ADATA)


@pytest.fixture
def measured():
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.dirichlet(np.full(4, 2.0), 10), [f"s{i}" for i in range(10)], TYPES)


@pytest.fixture
def predicted(measured):
    noisy = measured + np.random.default_rng(1).uniform(0, 0.1, measured.shape)
    return noisy.div(noisy.sum(axis=1), axis=0)


@pytest.fixture(autouse=True)
def _figures_are_closed():
    plt.close("all")
    yield
    plt.close("all")


def with_rest(table):
    share = np.linspace(0.1, 0.3, len(table))
    return table.mul(1 - share, axis=0).assign(Unmeasured=share)


@every_comparison
@pytest.mark.parametrize(
    ("name_of_type", "other"),
    [
        ("Neutrophil", "Neutrophils"),
        ("Neutrophil", "neutrophil"),
        ("Neutrophil", "Neutrophyl"),
        ("CD4 T", "CD4+ T cells"),
        ("CD4 T", "T CD4"),
        ("CD4 T", "CD4_T"),
        ("B cell", "B.cells"),
        ("NK", "Natural killer cells"),
    ],
)
def test_near_matches_are_refused_with_the_renaming(name, name_of_type, other, measured, predicted):
    renamed = measured.rename(columns={name_of_type: other})
    with pytest.raises(ValueError, match="the same unique cell types") as error:
        call(name, renamed, predicted)
    assert f".rename(columns={{{other!r}: {name_of_type!r}}})" in str(error.value)
    assert not plt.get_fignums()


@every_comparison
def test_proposed_renaming_can_be_run(name, measured, predicted):
    other = measured.rename(columns={"NK": "NK cells", "B cell": "B.cells"})
    with pytest.raises(ValueError, match="the same unique") as error:
        call(name, other, predicted)
    line = str(error.value).split("rename them: ")[1].split("). ")[0].rstrip(".)") + ")"
    adata = adata_of(other, predicted)
    scope = {"adata": adata, "measured": other}
    exec(line, scope)
    assert list(adata.obsm["measured_fractions"] if name in WITH_ADATA else scope["measured"]) == TYPES


@every_comparison
@pytest.mark.parametrize("side", ["measured", "predicted"])
def test_types_of_one_side_are_refused(name, side, measured, predicted):
    tables = {"measured": measured, "predicted": predicted}
    tables[side] = tables[side].rename(columns={"NK": "Mast"})
    with pytest.raises(
        ValueError, match=r"only .*\['(NK|Mast)'\] \(1\), only .*\['(NK|Mast)'\] \(1\)\. If the estimate cannot"
    ):
        call(name, **tables)


@every_comparison
def test_missing_column_is_not_scored_as_zero(name, measured, predicted):
    with pytest.raises(ValueError, match=r"only .*\['B cell'\] \(1\)"):
        call(name, measured, predicted.drop(columns="B cell"))


@every_comparison
def test_finer_types_are_refused_with_the_merging(name, measured, predicted):
    halves = {"CD4 naive T": predicted["CD4 T"] / 2, "CD4 memory T": predicted["CD4 T"] / 2}
    with pytest.raises(ValueError, match=r"merge_types\(\w+, \{'CD4 T': \['CD4 naive T', 'CD4 memory T'\]\}\)"):
        call(name, measured, predicted.drop(columns="CD4 T").assign(**halves))


@every_comparison
@pytest.mark.parametrize("side", ["measured", "predicted"])
def test_percent_is_recognised(name, side, measured, predicted):
    tables = {"measured": measured, "predicted": predicted}
    tables[side] = tables[side] * 100
    with pytest.raises(ValueError, match=r"found percent .*Divide the table by 100"):
        call(name, **tables)


@every_comparison
def test_counts_are_recognised(name, measured, predicted):
    with pytest.raises(ValueError, match=r"found counts .*Divide each row by its sum"):
        call(name, (measured * 1000).round(), predicted)


@every_comparison
def test_text_is_refused(name, measured, predicted):
    with pytest.raises(ValueError, match=r"Expected numbers in .*found 4 non-numeric columns"):
        call(name, measured.astype(str), predicted)


@every_comparison
def test_partly_missing_rows_are_refused(name, measured, predicted):
    measured.iloc[2, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        call(name, measured, predicted)


@every_comparison
def test_repeated_types_are_refused(name, measured, predicted):
    with pytest.raises(ValueError, match=r"unique cell types .*('NK' repeated|repeated: 'NK')"):
        call(name, measured.set_axis(["NK", "NK", "CD4 T", "B cell"], axis=1), predicted)


@every_comparison
def test_all_problems_are_listed_at_once(name, measured, predicted):
    with pytest.raises(ValueError, match="(?s)2 problems found.*percent.*rename"):
        call(name, measured * 100, predicted.rename(columns={"NK": "NK cells"}))


@every_comparison
@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0.0, 1.0, 2.0, 3.0], list("0123")])
def test_numbers_and_text_are_the_same_labels(name, labels, measured, predicted):
    call(name, measured.set_axis(labels, axis=1), predicted.set_axis(list("0123"), axis=1))


@pytest.mark.parametrize("name", ["scdeconv.tl.evaluate", "metrics.table"])
class TestUnmeasured:
    def test_rest_of_the_truth_is_rescaled(self, name, measured, predicted):
        with pytest.warns(
            UserWarning,
            match=r"unmeasured rest of 10% to 30% in .*measured.* 4 other types are compared after dividing",
        ):
            table = call(name, with_rest(measured), predicted)
        pd.testing.assert_frame_equal(table, call(name, measured, predicted))

    def test_rest_without_column_is_found(self, name, measured, predicted):
        with pytest.warns(UserWarning, match="unmeasured rest of 10% to 30%"):
            table = call(name, with_rest(measured)[TYPES], predicted)
        pd.testing.assert_frame_equal(table, call(name, measured, predicted))

    def test_rest_of_the_estimate_is_rescaled(self, name, measured, predicted):
        with pytest.warns(UserWarning, match="unmeasured rest"):
            table = call(name, measured, with_rest(predicted))
        pd.testing.assert_frame_equal(table, call(name, measured, predicted))

    def test_rest_of_both_is_a_type(self, name, measured, predicted):
        table = call(name, with_rest(measured), with_rest(predicted))
        assert list(table.index[:5]) == [*TYPES, "Unmeasured"]
        assert table.loc["Unmeasured", "rmse"] == pytest.approx(0, abs=1e-12)

    def test_types_in_the_rest_are_left_out(self, name, measured, predicted):
        shares = measured.rename(columns={"B cell": "Unmeasured"})
        with pytest.warns(UserWarning, match="3 other types"):
            table = call(name, shares, predicted)
        assert list(table.index[:3]) == TYPES[:3]
        closed = [frame[TYPES[:3]].div(frame[TYPES[:3]].sum(axis=1), axis=0) for frame in (measured, predicted)]
        pd.testing.assert_frame_equal(table, call(name, *closed))

    def test_other_names_of_the_rest_are_proposed(self, name, measured, predicted):
        with pytest.raises(ValueError, match=r"rename\(columns=\{'Other': 'Unmeasured'\}\)"):
            call(name, with_rest(measured).rename(columns={"Unmeasured": "Other"}), predicted)

    def test_unknown_content_is_zero_in_the_truth(self, name, measured, predicted):
        table = call(name, measured, (predicted * 0.9).assign(Unknown=0.1))
        assert table.loc["Unknown", "rmse"] == pytest.approx(0.1)

    def test_chosen_types_of_both_are_not_rescaled(self, name, measured, predicted):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            table = call(name, measured[TYPES[:2]], predicted[TYPES[:2]])
        assert table.loc["CD4 T", "rmse"] == call(name, measured, predicted).loc["CD4 T", "rmse"]


@every_comparison_of_adata
def test_samples_without_estimate_are_ignored_with_warning(name, measured, predicted):
    predicted.iloc[:3] = np.nan
    with (
        pytest.warns(UserWarning, match="3 measured samples have no estimate")
        if "intervals" not in name
        else (warnings.catch_warnings())
    ):
        call(name, measured, predicted)


@every_comparison_of_adata
def test_repeated_sample_names_do_not_matter(name, measured, predicted):
    adata = adata_of(measured, predicted)
    adata.obs_names = ["s", "s", *adata.obs_names[2:]]
    WITH_ADATA[name](adata)


def test_intervals_and_truth_have_one_scale(measured, predicted):
    adata = adata_of(measured.rename(columns={"B cell": "Unmeasured"}), predicted)
    with pytest.warns(UserWarning, match="unmeasured rest"):
        axes = pl.intervals(adata, cell_types=TYPES)
    shown = [
        np.sort(np.concatenate([c.get_offsets()[:, 0] for c in ax.collections if c.get_label().startswith("measured")]))
        for ax in axes
    ]
    share = predicted[TYPES[:3]].sum(axis=1) / measured[TYPES[:3]].sum(axis=1)
    for values, cell_type in zip(shown, TYPES[:3], strict=False):
        np.testing.assert_allclose(values, np.sort(measured[cell_type] * share))
    assert axes[3].texts[0].get_text() == "not measured"


class TestSampleNames:
    @pytest.mark.parametrize("labels", [range(10), np.arange(10.0)])
    def test_numbers_match_their_text(self, labels, measured, predicted):
        expected = metrics.table(measured, predicted)
        table = metrics.table(measured.set_axis(labels), predicted.set_axis([str(i) for i in range(10)]))
        pd.testing.assert_frame_equal(table, expected)

    @pytest.mark.parametrize("other", ["S{}", "s-{}", "s0{}"])
    def test_near_sample_names_are_refused(self, other, measured, predicted):
        with pytest.raises(ValueError, match=r"unique samples .*measured.rename\(index=\{"):
            metrics.rmse(measured.set_axis([other.format(i) for i in range(10)]), predicted)


def test_arrays_in_two_units_are_refused(measured, predicted):
    with pytest.raises(ValueError, match="found percent"):
        metrics.rmse(measured.to_numpy() * 100, predicted.to_numpy())
    with pytest.raises(TypeError, match="Expected measured to be a table of numbers, found an AnnData"):
        metrics.rmse(adata_of(measured, predicted), predicted)
