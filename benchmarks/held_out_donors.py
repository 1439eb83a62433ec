"""Evaluate every method on held-out donors and write docs/benchmarks/held_out_donors.md."""

from __future__ import annotations

import argparse
import contextlib
import io

import numpy as np
import pandas as pd
from report import PAGES, markdown_table, mean_and_range, provenance, use_shared_data, write_page

from scdeconv import datasets, pp, tl

DEFAULT = "ensemble (default)"
METHODS = {
    DEFAULT: {"method": "ensemble"},
    "CalibratedMAP": {"method": "calibrated_map"},
    "ResidualDNN": {"method": "residual_dnn"},
    "SimpleDNN": {"method": "simplednn"},
    "SimpleDNN, no mixing": {"method": "simplednn", "mix": 0},
    "CalibratedNNLS": {"method": "calibrated_nnls"},
    "ridge on the simulation": {"method": "simulation_ridge"},
    "ridge on the pairs": {"method": "ridge"},
    "SQUID": {"method": "squid"},
    "Bisque": {"method": "bisque"},
    "DeMixSC": {"method": "demixsc"},
    "DeMixSC, weighted residuals": {"method": "demixsc", "weighted_residuals": True},
    "Harp": {"method": "harp"},
    "RobustNNLS": {"method": "robust_nnls"},
    "NNLS": {"method": "nnls"},
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
    """Return one row per method, sorted by RMSE."""
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
    """Return coverage and mean width, on held-out donors, of the intervals of the model from tl.train."""
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
    types = (
        table[table["method"] == DEFAULT].groupby("cell_type", sort=False)[["rmse", "ccc", "coverage", "width"]].mean()
    )
    types["rmse, mean composition"] = table[table["method"] == "mean_composition"].set_index("cell_type")["rmse"]
    covered, width = shipped_intervals(mdata, seeds)
    parts = [
        "# Held-out donors",
        "Leave-one-donor-out cross-validation: each donor is predicted by a model that was trained on the other donors. Gene "
        "selection, calibration, penalties, scaling, early stopping and weights are computed again in each fold. Values are the "
        "mean over seeds, with the range in brackets. In the tables, the intervals of a donor are computed from the errors on "
        "all other donors. The calculation is the same for all methods.",
        f"## Retina: {n_donors} pairs, {len(types) - 2} cell types",
        "Bulk and single nuclei of the same macular retina (Guo et al.). The authors published the profiles as means over "
        "donors, so the held-out donor cannot be removed from them. All methods except the mean "
        "composition benefit from this.",
        markdown_table(summarise(table)),
        "NNLS and RobustNNLS use only the reference and no pairs. Their error is large because of the platform effect between "
        "nuclei and bulk. SQUID, Bisque, DeMixSC and Harp are published methods that use pairs; ours are compared with the "
        "original programs on their cards. DeMixSC with weighted residuals has the weights of the original program. Harp fits a "
        "profile value for each gene and type, and a weight for each gene.",
        "ResidualDNN corrects the composition of CalibratedMAP, if held-out donors confirm the correction by more than one "
        "standard error. Otherwise its estimates are those of CalibratedMAP. SimpleDNN learns from the pairs alone.",
        "### The default by cell type",
        markdown_table(types.map("{:.4f}".format)),
        "### Intervals of the default model",
        f"`predict_interval(bulk, 0.9)` of a model trained without the donor contains {covered:.1%} of the measured fractions. "
        f"The mean width is {width:.3f}.",
    ]
    try:
        pairs = ovarian()
    except FileNotFoundError:
        parts += ["## Ovarian tumours", "Not measured: the data were not available."]
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
