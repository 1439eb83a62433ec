from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from scdeconv import metrics, pl


@pytest.fixture
def table() -> pd.DataFrame:
    """Three methods, two seeds, two cell types; "good" beats the mean composition and "bad" does not."""
    rng = np.random.default_rng(0)
    measured = pd.DataFrame(rng.dirichlet([2.0, 5.0, 3.0], 12), columns=["B", "T", "NK"])
    rows = []
    for seed in (0, 1):
        for method, noise in (("good", 0.1), ("mean_composition", None), ("bad", 1.5)):
            if noise is None:
                predicted = pd.DataFrame([measured.mean()] * len(measured))
            else:
                predicted = measured * np.exp(rng.normal(0, noise, measured.shape))
                predicted = predicted.div(predicted.sum(axis=1), axis=0)
            scores = metrics.table(measured, predicted).rename_axis("cell_type").reset_index()
            rows.append(scores.assign(method=method, seed=seed, seconds=1.0))
    return pd.concat(rows, ignore_index=True)


def methods(ax) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def summary(table: pd.DataFrame, metric: str, row: str) -> pd.Series:
    return table[table["cell_type"] == row].groupby("method")[metric].mean()


@pytest.mark.parametrize(
    ("metric", "row", "ascending"),
    [
        ("rmse", "all entries", True),
        ("mae", "all entries", True),
        ("ccc", "mean of types", False),
        ("pearson", "mean of types", False),
    ],
)
def test_best_method_is_at_the_top(table, metric, row, ascending):
    ax = pl.benchmark(table, metric=metric)
    expected = summary(table, metric, row).sort_values(ascending=ascending, na_position="last")
    assert methods(ax) == [name.replace("_", " ") for name in expected.index]
    assert ax.yaxis_inverted()
    large = [points.get_offsets()[0] for points in ax.collections if points.get_sizes()[0] > 50]
    np.testing.assert_allclose(np.ma.filled(large, np.nan)[:, 0], expected)
    shown = [text.get_text() for text in ax.texts]
    assert all(f"{value:.3f}".replace("-", "−").replace("nan", "undefined") in shown for value in expected)


def test_range_bar_spans_the_seeds(table):
    ax = pl.benchmark(table)
    rows = table[(table["cell_type"] == "all entries") & (table["method"] == "bad")]["rmse"]
    bar = ax.lines[methods(ax).index("bad")]
    assert list(bar.get_xdata()) == [rows.min(), rows.max()]
    assert any("range of 2 seeds" in text.get_text() for text in ax.get_legend().get_texts())


def test_small_dots_are_cell_types_averaged_over_seeds(table):
    ax = pl.benchmark(table)
    small = [points for points in ax.collections if points.get_sizes()[0] < 50]
    types = table[(table["method"] == "good") & table["cell_type"].isin(["B", "T", "NK"])]
    found = small[methods(ax).index("good")].get_offsets()[:, 0]
    expected = types.groupby("cell_type")["rmse"].mean()
    np.testing.assert_allclose(found, expected)
    legend = ax.get_legend()
    named = {text.get_text(): handle for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)}
    shown = small[methods(ax).index("good")].get_facecolor()
    for cell_type, color in zip(expected.index, shown, strict=True):
        assert to_hex(named[cell_type].get_color()) == to_hex(color)


def test_many_cell_types_have_no_unnamed_dots(table):
    rows = [table.assign(cell_type=table["cell_type"].replace("B", f"type {i}")) for i in range(15)]
    many = pd.concat(rows).drop_duplicates(["method", "seed", "cell_type"])
    ax = pl.benchmark(many)
    assert not any(len(points.get_offsets()) for points in ax.collections if points.get_sizes()[0] < 50)
    chosen = pl.benchmark(many, cell_types=["NK"], palette={"NK": "red"})
    assert [text.get_text() for text in chosen.get_legend().get_texts()][-1] == "NK"
    assert to_hex(chosen.collections[0].get_facecolor()[0]) == "#ff0000"
    with pytest.raises(KeyError, match=r"Expected columns \['X'\] in table\['cell_type'\]"):
        pl.benchmark(many, cell_types=["X"])


def test_dashed_line_is_the_mean_composition(table):
    ax = pl.benchmark(table)
    line = next(line for line in ax.lines if line.get_linestyle() == "--")
    expected = summary(table, "rmse", "all entries")["mean_composition"]
    assert list(line.get_xdata()) == [expected, expected]
    assert "mean composition" in [text.get_text() for text in ax.get_legend().get_texts()]
    without = pl.benchmark(table[table["method"] != "mean_composition"])
    assert not [line for line in without.lines if line.get_linestyle() == "--"]


def test_undefined_summary_is_last_and_labelled(table):
    table.loc[table["method"] == "good", "ccc"] = np.nan
    ax = pl.benchmark(table, metric="ccc")
    assert methods(ax)[-1] == "good"
    assert "undefined" in [text.get_text() for text in ax.texts]


def test_given_ax_is_used(table):
    _, ax = plt.subplots()
    assert pl.benchmark(table, ax=ax) is ax
    assert len(plt.get_fignums()) == 1


def test_table_is_not_changed(table):
    before = table.copy()
    pl.benchmark(table)
    pd.testing.assert_frame_equal(table, before)


def test_errors_list_the_available_choices(table):
    with pytest.raises(ValueError, match=r"metric to be one of \['rmse', 'mae', 'pearson', 'ccc'\], found 'accuracy'"):
        pl.benchmark(table, metric="accuracy")
    with pytest.raises(KeyError, match=r"Expected columns \['rmse'\] in table, found \['cell_type'"):
        pl.benchmark(table.drop(columns="rmse"))
    with pytest.raises(ValueError, match=r"Expected rows 'all entries' .* found \['B'\]"):
        pl.benchmark(table[table["cell_type"] == "B"])
    assert not plt.get_fignums()
