"""Every method on donors that it has not seen: writes docs/benchmarks/held_out_donors.md."""

from __future__ import annotations

import argparse
import contextlib
import io

import numpy as np
import pandas as pd
from report import PAGES, markdown_table, mean_and_range, provenance, use_shared_data, write_page

from scdeconv import datasets, pp, tl

DEFAULT = "SimpleDNN (default)"
METHODS = {
    DEFAULT: {"method": "simplednn"},
    "ensemble": {"method": "ensemble"},
    "CalibratedNNLS": {"method": "calibrated_nnls"},
    "ridge on the simulation": {"method": "simulation_ridge"},
    "ridge on the pairs": {"method": "ridge"},
    "Bisque": {"method": "bisque"},
    "RobustNNLS": {"method": "robust_nnls"},
    "NNLS": {"method": "nnls"},
}
ABLATION = {
    DEFAULT: {"method": "simplednn"},
    "its solution, no training": {"method": "simplednn", "max_epochs": 1, "learning_rate": 1e-12},
    "one member instead of five": {"method": "simplednn", "n_members": 1},
    "cross-entropy instead of squared error": {"method": "simplednn", "loss": "cross_entropy"},
    "no start from the solution (random weights)": {"method": "simplednn", "start_from_solution": False},
    "no simulation (solution: ridge on the pairs)": {"method": "simplednn", "simulate": None},
    "neither (the paper's: pairs alone, random weights)": {
        "method": "simplednn",
        "simulate": None,
        "start_from_solution": False,
    },
}


def quietly(function, *args, **kwargs):
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*args, **kwargs)


def retina():
    bulk, profiles, pseudobulk = datasets.retina_pairs()
    return quietly(pp.pair, bulk=bulk, profiles=profiles, pseudobulk=pseudobulk)


def ovarian():
    bulk, profiles, pseudobulk = datasets.ovarian_pairs()
    return quietly(pp.pair, bulk=bulk, profiles=profiles, pseudobulk=pseudobulk)


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """One row per method, best first."""
    pooled, by_type = (table[table["cell_type"] == name].groupby("method") for name in ("all entries", "mean of types"))
    rmse = pooled["rmse"].mean()
    columns = {
        "RMSE": pooled["rmse"].apply(mean_and_range),
        "against the mean": (rmse / rmse["mean_composition"] - 1).map("{:+.0%}".format),
        "MAE": pooled["mae"].apply(mean_and_range),
        "CCC per type": by_type["ccc"].apply(mean_and_range, digits=2),
        "r per type": by_type["pearson"].apply(mean_and_range, digits=2),
        "90 % interval covers": pooled["coverage"].mean().map("{:.0%}".format).replace("nan%", "–"),
        "its width": pooled["width"].mean().map("{:.3f}".format).replace("nan", "–"),
        "seconds": pooled["seconds"].mean().map("{:.0f}".format),
    }
    return pd.DataFrame(columns).loc[rmse.sort_values().index]


def shipped_intervals(mdata, seeds: list[int]) -> tuple[float, float]:
    """Coverage and mean width of the intervals that tl.train's model gives a donor that it has not seen."""
    inside, width = [], []
    for seed in seeds:
        for donor in pp.paired_donors(mdata):
            training, held_out = pp.hold_out(mdata, [donor])
            lower, upper = quietly(tl.train, training, seed=seed).predict_interval(held_out, 0.9)
            truth = held_out.obsm["measured_fractions"]
            inside.append(((lower <= truth) & (truth <= upper)).to_numpy().mean())
            width.append((upper - lower).to_numpy().mean())
    return float(np.mean(inside)), float(np.mean(width))


def main(seeds: list[int]) -> None:
    use_shared_data()
    mdata = retina()
    n_donors = len(pp.paired_donors(mdata))
    table = tl.benchmark(mdata, METHODS, seeds=seeds)
    ablation = tl.benchmark(mdata, ABLATION, seeds=seeds)
    types = (
        table[table["method"] == DEFAULT].groupby("cell_type", sort=False)[["rmse", "ccc", "coverage", "width"]].mean()
    )
    types["rmse, mean composition"] = table[table["method"] == "mean_composition"].set_index("cell_type")["rmse"]
    covered, width = shipped_intervals(mdata, seeds)
    parts = [
        "# Donors that the methods have not seen",
        "Leave-one-donor-out: each donor is predicted by a model that has not seen it, and genes, calibration, penalties, "
        "scaling, stopping and weights are made again in each fold. Mean over seeds, range in brackets. Intervals in the "
        "tables are made for each donor from the errors on all other donors, the same way for every method.",
        f"## Retina: {n_donors} pairs, {len(types) - 2} cell types",
        "Bulk and single nuclei of the same macular retina (Guo et al.). The profiles were given by the authors as means over "
        "donors, so what the held-out donor put into them cannot be taken out; that helps every method but the mean.",
        markdown_table(summarise(table)),
        "NNLS and RobustNNLS know the reference alone and use no pairs; nuclei and bulk do not see all genes equally well, "
        "which is what they pay for. All methods that use pairs are better than the mean composition in RMSE.",
        "### The default, cell type by cell type",
        markdown_table(types.map("{:.4f}".format)),
        "### What each part of the default brings",
        markdown_table(summarise(ablation)),
        "On so few pairs the solution (the most probable composition under the calibration) is the whole of the result: "
        "training goes on only where held-out donors confirm it by more than a standard error, and here they do not.",
        "### The intervals that the default model gives",
        f"`predict_interval(bulk, 0.9)` of a model that has not seen the donor holds {covered:.1%} of the measured fractions; "
        f"mean width {width:.3f}.",
    ]
    try:
        pairs = ovarian()
    except FileNotFoundError:
        parts += ["## Ovarian tumours", "Not measured: the data are not on this machine."]
    else:
        parts += ["## Ovarian tumours", markdown_table(summarise(tl.benchmark(pairs, METHODS, seeds=seeds)))]
    for seed in range(2):
        cohort = datasets.paired_cohort(n_donors=14, n_genes=1500, cells_per_donor=(200, 800), seed=seed)
        parts += [
            f"## Generated cohort, seed {seed}: 14 pairs, 7 cell types",
            markdown_table(summarise(tl.benchmark(quietly(pp.pair, *cohort), METHODS, seeds=seeds[:1]))),
        ]
    parts.append(provenance("retina pairs of the DeMixSC repository; the library's generator", seeds))
    write_page(PAGES / "held_out_donors.md", parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    main(parser.parse_args().seeds)
