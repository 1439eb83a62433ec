"""Draw the figures of the start page and of the README: ``python docs/figures.py`` (one to two minutes).

Every donor of the retina pairs is predicted by a model that was trained without it. The errors of the methods are read from
docs/benchmarks/held_out_donors.md, which benchmarks/held_out_donors.py writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import scdeconv

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOCS = Path(__file__).parent
OUTPUT = DOCS / "_static"
PAGE = DOCS / "benchmarks" / "held_out_donors.md"
MEAN = "mean_composition"
WITHOUT_PAIRS = ("RobustNNLS", "NNLS")
N_PANELS = 4
# colours of Okabe and Ito (2008)
BLUE = "#0072b2"
COLORS = {
    "Rod": BLUE,
    "BC": "#e69f00",
    "MG": "#009e73",
    "AC": "#cc79a7",
    "Cone": "#56b4e9",
    "HC": "#d55e00",
    "RGC": "#f0e442",
}


def predict_held_out() -> anndata.AnnData:
    """Return the retina bulk with measured fractions and, in ``fractions``, out-of-fold predictions."""
    bulk, profiles, pseudobulk = scdeconv.datasets.retina_pairs()
    mdata = scdeconv.pp.pair(bulk=bulk, profiles=profiles, pseudobulk=pseudobulk)
    bulk = mdata["bulk"].copy()
    fractions = scdeconv.tl.cross_validate(mdata, "calibrated_map")
    bulk = bulk[fractions.index].copy()
    bulk.obsm["fractions"] = fractions
    return bulk


def draw_compositions(bulk: anndata.AnnData, ax: Axes) -> None:
    """Draw bars of measured and predicted compositions, with donors sorted by their measured fraction of rods."""
    tables = {"measured": bulk.obsm["measured_fractions"], "predicted": bulk.obsm["fractions"]}
    donors = tables["measured"]["Rod"].sort_values(ascending=False).index
    types = ["Rod", *(name for name in tables["measured"] if name != "Rod")]
    for number, (name, table) in enumerate(tables.items()):
        place = np.arange(len(donors)) + number * (len(donors) + 1)
        bottom = np.zeros(len(donors))
        for cell_type in types:
            height = table.loc[donors, cell_type].to_numpy()
            ax.bar(place, height, 1, bottom, color=COLORS[cell_type], label=cell_type if number == 0 else None)
            bottom += height
        ax.text(place.mean(), 1.03, f"{name} (n = {len(donors)})", ha="center", fontsize=9)
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(
        handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9, handlelength=1
    )
    ax.set(xticks=[], xlim=(-0.5, 2 * len(donors) + 0.5), ylim=(0, 1))
    ax.set_ylabel("cell fraction", fontsize=9)
    ax.set_xlabel("the same donors twice, by measured rods", fontsize=9)
    ax.spines[["top", "right", "bottom"]].set_visible(False)


def draw_scores(ax: Axes) -> None:
    """Draw the RMSE of each method on the retina pairs, read from the benchmark page."""
    lines = PAGE.read_text(encoding="utf-8").partition("## Retina")[2].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| method"))
    rmse = {}
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        method, score = (cell.strip() for cell in line.split("|")[1:3])
        rmse[method] = float(score.split()[0])
    mean = rmse.pop(MEAN)
    scores = pd.Series(rmse).sort_values(ascending=False)
    ax.barh(
        scores.index, scores, color=["#737373" if name in WITHOUT_PAIRS else BLUE for name in scores.index], height=0.75
    )
    for row, value in enumerate(scores):
        ax.text(1.02, row, f"{value:.3f}", transform=ax.get_yaxis_transform(), va="center", fontsize=8)
    ax.axvline(mean, color="black", linestyle="--", linewidth=1)
    ax.text(mean, 1.02, f"mean composition {mean:.3f}", transform=ax.get_xaxis_transform(), ha="center", fontsize=8)
    ax.set_xlim(0, 1.05 * scores.max())
    ax.set_xlabel("RMSE, donors held out", fontsize=9)
    ax.locator_params(axis="x", nbins=4)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(axis="y", length=0, labelsize=8)


def draw_agreement(bulk: anndata.AnnData, axes: list[Axes]) -> None:
    """Draw measured against predicted fractions of the most abundant cell types."""
    cell_types = bulk.obsm["measured_fractions"].mean().nlargest(len(axes)).index
    some = anndata.AnnData(obs=bulk.obs[[]], uns={"cell_type_colors": COLORS})
    for key in ("measured_fractions", "fractions"):
        some.obsm[key] = bulk.obsm[key][list(cell_types)]
    scdeconv.pl.measured_vs_predicted(some, axes=axes)
    for ax in axes:
        ax.set(xlabel="", ylabel="")
    figure = axes[0].figure
    figure.supxlabel("measured cell fraction", fontsize=10)
    figure.supylabel("predicted cell fraction", fontsize=10)


def draw_five_lines() -> Axes:
    """Run the five lines of the README and return the plot."""
    cells, bulk = scdeconv.datasets.paired_cohort()
    mdata = scdeconv.pp.pair(cells, bulk, donor_key="donor", cell_type_key="cell_type")
    model = scdeconv.tl.train(mdata)
    scdeconv.tl.predict(bulk, model, coverage=0.9)
    return scdeconv.pl.fractions(bulk)


def main() -> None:
    bulk = predict_held_out()
    figure = plt.figure(figsize=(7.5, 5.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    left, right = top.subfigures(1, 2, width_ratios=(1.25, 1))
    draw_compositions(bulk, left.subplots())
    draw_scores(right.subplots())
    draw_agreement(bulk, list(bottom.subplots(1, N_PANELS)))
    for letter, panel in zip("abc", (left, right, bottom), strict=True):
        panel.text(0.005, 0.995, letter, fontsize=13, fontweight="bold", ha="left", va="top")
    OUTPUT.mkdir(exist_ok=True)
    figure.savefig(OUTPUT / "overview.png", dpi=200)
    draw_five_lines().figure.savefig(OUTPUT / "five_lines.png", dpi=120)


if __name__ == "__main__":
    main()
