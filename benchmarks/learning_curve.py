"""Error on unseen donors by the number of pairs: writes docs/benchmarks/learning_curve.md and its figure.

    python benchmarks/learning_curve.py --finished curve.jsonl

Finished trainings are appended to the file and not repeated, so an interrupted run can be continued.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
import warnings
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from held_out_donors import quietly, retina
from report import PAGES, ROOT, markdown_table, mean_and_range, provenance, use_shared_data, write_page

from scdeconv import datasets, metrics, pp, tl

SIZES = (4, 8, 16, 32, 64, 128, 300)
N_TEST = 40
N_GENES = 400
# SD over genes of the change of log expression per SD of the log fraction of another cell type
INTERACTION_SD = 0.4
SCADEN_STEPS = 1000
MEAN = "mean composition"
METHODS = {
    MEAN: {"method": "mean_composition"},
    "ridge": {"method": "ridge"},
    "CalibratedMAP": {"method": "calibrated_map"},
    "SimpleDNN": {"method": "simplednn"},
    "SimpleDNN, no mixing": {"method": "simplednn", "mix": 0},
    "ResidualDNN": {"method": "residual_dnn"},
    "Scaden on pairs": {"method": "scaden", "train_on": "pairs", "max_steps": SCADEN_STEPS},
    "Scaden on pseudobulk": {"method": "scaden", "max_steps": SCADEN_STEPS},
}
WITH_PROFILES = ("CalibratedMAP", "ResidualDNN")
WITH_CELLS = ("Scaden on pseudobulk",)
# colours of Okabe and Ito, which people with colour blindness can tell apart, and a marker each
STYLES = dict(
    zip(
        METHODS,
        [
            ("#999999", "x", ":"),
            ("#E69F00", "s", "-"),
            ("#009E73", "^", "-"),
            ("#0072B2", "o", "-"),
            ("#56B4E9", "o", "--"),
            ("#CC79A7", "v", "--"),
            ("#D55E00", "D", "--"),
            ("#000000", "D", ":"),
        ],
        strict=True,
    )
)
ADDITIVE, NOT_ADDITIVE = "generated cohort", "generated cohort, not additive"
REAL = {
    "retina": (None, "retina_paired", (4, 8)),
    "whole blood, arrays": ("array", "wholeblood_gse20300_array_cbc", (4, 8, 16)),
    "PBMC, arrays": ("array", "pbmc_cbs20_array_flow", (4, 8, 16)),
}

MEANING = """- With single cells or profiles and up to a few dozen pairs, use {doc}`CalibratedMAP <../methods/calibrated_map>`: the reference
  is worth more than many pairs. If bulk is far from a sum over cell types, methods that learn from the pairs alone pass it
  from about 32 pairs.
- With pairs only, a network learns from real pairs, and mixtures of the donors help it in most cells of the tables. On the
  generated cohorts it is better than ridge with up to 32 pairs and worse from 64 pairs on; on the small real sets it is
  better on whole blood and worse on PBMC, with differences smaller than the range over seeds. Deep learning is no clear winner.
  Scaden's larger networks, trained on the pairs, are slightly better on the arrays and worse on most other data. Compare
  {doc}`SimpleDNN <../methods/simplednn>` and {doc}`ridge <../methods/ridge>` on your own pairs with
  {func}`scdeconv.tl.benchmark`.
- With few pairs, methods without a reference gain little: with four pairs, their error is at most a fifth smaller than that of the
  mean composition, with eight pairs at most about a third."""


def with_interactions(bulk, seed: int):
    """Return bulk in which the expression of half of the genes changes with the fraction of another cell type."""
    rng = np.random.default_rng(seed + 1000)
    log = np.log(np.maximum(bulk.obsm["true_fractions"].to_numpy(), 1e-3))
    z = (log - log.mean(axis=0)) / log.std(axis=0)
    effect = rng.normal(0, INTERACTION_SD, bulk.n_vars) * (rng.random(bulk.n_vars) < 0.5)
    shares = (
        bulk.X / bulk.X.sum(axis=1, keepdims=True) * np.exp(z[:, rng.integers(0, z.shape[1], bulk.n_vars)] * effect)
    )
    changed = bulk.copy()
    changed.X = rng.poisson(bulk.X.sum(axis=1, keepdims=True) * shares / shares.sum(axis=1, keepdims=True)).astype(
        np.int32
    )
    return changed


def generated(seed: int, *, additive: bool):
    """Return paired data and the true composition of its samples."""
    n_donors = SIZES[-1] + N_TEST
    cells, bulk = datasets.paired_cohort(
        n_donors=n_donors, n_bulk_only=0, n_reference_only=0, n_genes=N_GENES, cells_per_donor=(60, 150), seed=seed
    )
    return quietly(pp.pair, cells, bulk if additive else with_interactions(bulk, seed)), bulk.obsm["true_fractions"]


def load(name: str, seed: int):
    """Return paired data and the composition to predict."""
    if name in (ADDITIVE, NOT_ADDITIVE):
        return generated(seed, additive=name == ADDITIVE)
    unit, folder, _ = REAL[name]
    if name == "retina":
        mdata = retina()
    else:
        path = Path(os.environ["SCDECONV_DATA_DIR"]) / folder / "bulk.h5ad"
        mdata = quietly(pp.pair, bulk=anndata.read_h5ad(path), unit=unit)
    return mdata, mdata["bulk"].obsm["measured_fractions"]


def possible(name: str) -> list[str]:
    """Return the methods that the data allow."""
    excluded = {
        ADDITIVE: (),
        NOT_ADDITIVE: (),
        "retina": WITH_CELLS,
    }.get(name, (*WITH_PROFILES, *WITH_CELLS))
    return [method for method in METHODS if method not in excluded]


def runs(name: str, n: int, seed: int, methods: list[str]):
    """Yield the error of each method that is trained on n random pairs."""
    mdata, truth = load(name, seed)
    donors = np.random.default_rng(seed).permutation(pp.paired_donors(mdata))
    # the test donors do not depend on n in the generated cohorts; in the real data all others are test donors
    test = donors[-N_TEST:] if name in (ADDITIVE, NOT_ADDITIVE) else donors[n:]
    training, held_out = pp.hold_out(mdata, donors[n:])
    held_out = held_out[held_out.obs["donor"].isin(test).to_numpy()].copy()
    for method in methods:
        start = time.process_time()
        model = quietly(tl.train, training, **METHODS[method], seed=seed)
        predicted = model.predict(held_out)
        error = metrics.rmse(truth.loc[predicted.index, predicted.columns], predicted)
        yield {
            **{"data": name, "n": n, "seed": seed, "method": method},
            **{"rmse": float(error), "cpu": time.process_time() - start},
        }


def measure(finished: Path, seeds: list[int], minutes: float, methods: list[str]) -> None:
    """Run what is not in the file yet, until the time is over."""
    sizes = {name: chosen for name, (_, _, chosen) in REAL.items()}
    sizes |= dict.fromkeys((ADDITIVE, NOT_ADDITIVE), SIZES)
    end = time.monotonic() + 60 * minutes
    for seed, n, name in itertools.product(seeds, SIZES, sizes):
        done = read(finished)
        known = set(done[(done["data"] == name) & (done["n"] == n) & (done["seed"] == seed)]["method"])
        todo = [method for method in methods if method in possible(name) and method not in known]
        if n not in sizes[name] or not todo:
            continue
        for result in runs(name, n, seed, todo):
            with finished.open("a") as file:
                file.write(json.dumps(result) + "\n")
            if time.monotonic() > end:
                return


def read(finished: Path) -> pd.DataFrame:
    """Return the finished runs."""
    lines = finished.read_text().splitlines() if finished.exists() else []
    return pd.DataFrame([json.loads(line) for line in lines], columns=["data", "n", "seed", "method", "rmse", "cpu"])


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw one panel for each data set."""
    names = [name for name in (ADDITIVE, NOT_ADDITIVE, *REAL) if name in set(table["data"])]
    figure, axes = plt.subplots(2, 3, figsize=(9, 6), layout="constrained")
    for ax, name in zip(axes.flat, names, strict=False):
        panel = table[table["data"] == name]
        for method, (colour, marker, line) in STYLES.items():
            errors = panel[panel["method"] == method].groupby("n")["rmse"]
            if len(errors):
                mean = errors.mean()
                ax.plot(mean.index, mean, color=colour, marker=marker, linestyle=line, markersize=4.5, label=method)
                ax.fill_between(mean.index, errors.min(), errors.max(), color=colour, alpha=0.12, linewidth=0)
        ax.set(
            xscale="log",
            title=name,
            xlabel="pairs for training",
            ylim=(0, 1.9 * panel.loc[panel["method"] == MEAN, "rmse"].mean()),
        )
        ax.set_xticks(sorted(set(panel["n"])), sorted(set(panel["n"])))
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("RMSE on unseen donors")
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    axes[-1, -1].legend(*axes[0, 0].get_legend_handles_labels(), loc="center", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def tables(table: pd.DataFrame) -> list[str]:
    """Return a heading and a table of errors for each data set."""
    parts = []
    for name in (ADDITIVE, NOT_ADDITIVE, *REAL):
        panel = table[table["data"] == name]
        if not len(panel):
            continue
        errors = panel.groupby(["method", "n"])["rmse"].apply(mean_and_range).unstack("n").fillna("–")
        order = [method for method in METHODS if method in errors.index]
        parts += [f"### {name[0].upper()}{name[1:]}", markdown_table(errors.loc[order].rename_axis("method \\ pairs"))]
    return parts


def verdict(table: pd.DataFrame) -> str:
    """Return, for each data set, from how many pairs SimpleDNN is better than other methods."""
    lines = []
    for name in dict.fromkeys(table["data"]):
        errors = table[table["data"] == name].pivot(index=["n", "seed"], columns="method", values="rmse")
        found = []
        for other in (
            MEAN,
            "ridge",
            "SimpleDNN, no mixing",
            "CalibratedMAP",
            "Scaden on pairs",
            "Scaden on pseudobulk",
        ):
            if other in errors:
                # the seeds that were run for both
                both = errors[["SimpleDNN", other]].dropna().groupby("n").mean()
                better = both.index[both["SimpleDNN"] < both[other]]
                sizes = ", ".join(map(str, better)) or "never"
                found.append(f"{other}: {sizes}")
        numbers = ", ".join(map(str, errors.index.unique("n")))
        lines.append(f"- {name} ({numbers} pairs): " + "; ".join(found) + ".")
    return "\n".join(lines)


def main(finished: Path, seeds: list[int], minutes: float, methods: list[str], output: Path) -> None:
    use_shared_data()
    warnings.simplefilter("ignore")
    measure(finished, seeds, minutes, methods)
    table = read(finished)
    figure = ROOT / "docs" / "_static" / "learning_curve.png" if output.parent == PAGES else output.with_suffix(".png")
    draw(table, figure)
    cpu = table.groupby("method")["cpu"].median()
    times = ", ".join(f"{name} {cpu[name]:.0f} s" for name in METHODS if name in cpu)
    parts = [
        "# Can deep learning learn from real pairs?",
        "The SimpleDNN paper asks this question, but its split by row puts the same bulk sample into training and test "
        "data ({doc}`paper_table`). Here, all methods are trained on the same n pairs, and the error is measured on donors "
        "that none of them has seen. Gene selection, scaling, gene weights, mixing, early stopping and calibration are "
        "computed from the n training donors.",
        "![Error on unseen donors by the number of pairs](../_static/learning_curve.png)",
        "Lines are the mean and bands the range over seeds (other donors and other random weights). The mean composition "
        "is that of the training donors.",
        "## For how many pairs SimpleDNN is better",
        "Numbers of pairs at which the mean error of SimpleDNN is lower than that of the other method, over the seeds that were "
        "run for both:",
        verdict(table),
        *("## What it means", MEANING),
        "## RMSE on unseen donors",
        f"Mean and range over seeds. The generated cohorts have {SIZES[-1] + N_TEST} donors with 60–150 cells each, "
        f"{N_GENES} genes and 7 cell types; {N_TEST} donors are never used for training, and the error is that of the true "
        "composition. In the second one, the log expression of half of the genes changes with the log fraction of another "
        f"cell type (SD {INTERACTION_SD} per SD), so that bulk is not a sum over cell types. In the real data, the donors "
        "that are not drawn for training are the test donors. "
        f"Scaden is trained for {SCADEN_STEPS:,} steps instead of 5,000. A value without a range is of one seed. A dash was not run.",
        *tables(table),
        f"Median CPU time of a training: {times}.",
        provenance("cohorts of the library's generator; retina of Guo 2025, GSE20300, GSE65133", seeds),
    ]
    write_page(output, parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--finished", type=Path, required=True, help="file of finished trainings, created if missing")
    parser.add_argument("--minutes", type=float, default=600, help="stop after this time and write the page")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), help="names of the methods to run")
    parser.add_argument("--output", type=Path, default=PAGES / "learning_curve.md")
    given = parser.parse_args()
    main(given.finished, given.seeds, given.minutes, given.methods, given.output)
