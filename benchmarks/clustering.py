"""Cluster unlabelled cells with all methods and write docs/benchmarks/clustering.md.

Every run uses a separate process, so that its time and peak memory can be measured.
"""

from __future__ import annotations

import argparse
import datetime
import resource
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from held_out_donors import quietly
from report import PAGES, ROOT, markdown_table, provenance, write_page
from scipy.optimize import linear_sum_assignment

SETS = {
    "10X PBMC": "10X_PBMC_select_2100_top2000.h5",
    "human kidney": "human_kidney_select_2100_top2000.h5",
    "worm neuron": "worm_neuron_cell_select_2100_top2000.h5",
}
N_PAIRS = 2000
METHODS: dict[str, dict[str, Any]] = {
    "PCA + k-means": {},
    "PCA + Leiden": {},
    "DESC": {"method": "desc"},
    "ScDeepCluster": {"method": "scdeepcluster", "n_clusters": "as many as types"},
    "ScDeepCluster, ZINB, unit scaling, 300 epochs": {
        "method": "scdeepcluster",
        "n_clusters": "as many as types",
        "likelihood": "zinb",
        "scale": "unit",
        "pretrain_epochs": 300,
    },
    "ScDeepCluster, unit scaling": {"method": "scdeepcluster", "n_clusters": "as many as types", "scale": "unit"},
    "ScDeepCluster, ZINB": {"method": "scdeepcluster", "n_clusters": "as many as types", "likelihood": "zinb"},
    "ScDCC, a tenth labelled": {"method": "scdcc", "n_clusters": "as many as types"},
}
NOTES = """## Choice of the defaults

The defaults differ from the published programs. They were chosen on these data sets (one or two seeds), so the results here
are not an independent test of them:

- ScDeepCluster and ScDCC divide genes by the square root of their standard deviation (Pareto scaling) instead of the standard
  deviation. With otherwise equal settings the ARI of worm neurons increased from 0.36 to 0.54. K-means on principal components
  also improves on all three data sets.
- Counts are negative binomial instead of zero-inflated: kidney 0.70 and 0.65, worm 0.56 and 0.55.
- The fine-tuning of DESC has no momentum. With the momentum of the original (0.9, at learning rates decreasing from 1), the
  reconstruction is better and the clusters are worse (PBMC 0.77 and 0.80).

Each of the first two changed back alone is in the tables (ScDeepCluster, unit scaling and ScDeepCluster, ZINB; three seeds). On
PBMC, Pareto scaling costs 0.005 and the negative binomial 0.002, less than the range over seeds. Pareto scaling gains 0.10 on
kidney and 0.15 on worm, whichever set is left out of the choice. The negative binomial is better on kidney (+0.016), worse on
worm (-0.022), and takes two thirds of the time. With PBMC or kidney left out, zero inflation would be chosen by 0.003 or 0.012;
the time decides. Momentum is a setting of DESC only.

With the published likelihood, scaling, 300 epochs and Adadelta, ScDeepCluster of 2026-11-21 had 0.759, 0.616 and 0.486 (seed 0),
with the defaults of that day 0.762, 0.675 and 0.563 (median of five seeds). On PBMC, Pareto scaling and negative binomial counts
together therefore cost nothing. The length of the pretraining, the initial clusters and the second phase matter more. ARI of
seed 0, in the order PBMC, kidney, worm:

| k-means after pretraining | on the latent representation | on components of even spread |
| --- | --- | --- |
| 25 epochs | 0.790, 0.554, 0.307 | 0.783, 0.570, 0.298 |
| 50 epochs | 0.773, 0.598, 0.510 | 0.768, 0.618, 0.500 |
| 100 epochs | 0.774, 0.681, 0.524 | 0.775, 0.694, 0.544 |
| 150 epochs | 0.768, 0.604, 0.484 | 0.765, 0.660, 0.511 |

| second phase, after 100 epochs | ARI | epochs |
| --- | --- | --- |
| none | 0.775, 0.694, 0.544 | 0 |
| Adadelta, rate 1 (published) | 0.751, 0.704, 0.572 | 25, 36, – |
| Adam, a fifth of the first rate | 0.769, 0.695, 0.569 | 9, 10, 15 |
| Adam, half of the first rate | –, 0.692, 0.568 | –, 11, 11 |
| Student's t scaled to the clusters | 0.771, 0.588, 0.540 | 4, 10, 7 |
| Adadelta, clustering loss × 0.1 | 0.764, –, – | 64 |

With any one data set left out, the mean over the other two is highest for 100 epochs with even spread. The second phase was
chosen for its time: with PBMC left out, Adadelta is better by 0.006 on the other two; with kidney or worm left out, Adam is
better by 0.005 or 0.008. Adam needs less than half of the epochs. These choices rest on one seed. The numbers of this section are from
separate trials on 2026-11-21 and 2026-11-27, not from the run of this page.

More tries, ARI of k-means, seed 0, same order: a cosine learning rate in 75 epochs 0.791, 0.586, 0.332; rate 0.002 in 75 epochs
0.740, 0.621, 0.457; one dispersion per gene in 100 epochs 0.781, 0.586, 0.476, in two thirds of the time. Averaged weights
change nothing after 100 epochs (0.774, 0.681). After 100 epochs (latent representation 0.774, 0.681, 0.524) other initial
clusters had: Ward's method 0.765, 0.574, 0.499; Gaussian mixture with common covariance 0.765, 0.706, 0.516; Leiden
with the resolution that gives the known number 0.700, 0.717, 0.370; k-means on unit vectors 0.621, 0.616, 0.497.

CPU time, measured one after the other on one machine (PBMC): 10 epochs of the pretraining 7.1 s before and 5.2 s with the
likelihood in closed form, 10 epochs of the second phase with Adadelta 10.3 s and 7.0 s. Together with fewer epochs (100 and
9 instead of 150 and 28), a training takes about 0.43 of the time. The epochs of larger sets decrease further: 4,271 cells are
pretrained for 53 epochs.

ScDCC with constraints keeps Adadelta, the longer pretraining and k-means on the latent representation. After 100 epochs and with
even spread, worm had 0.561 with Adam and 0.586 with Adadelta (seed 0), compared with 0.649 (median of five seeds) before.

Early stopping on held-out cells ends the pretraining of ScDeepCluster after 50 to 100 epochs, at the best reconstruction. The
clusters are worse at this point (worm 0.49 and 0.55, kidney 0.58 and 0.65).

ScDCC as published overfits the few constrained cells. It satisfies 99.8 % of the constraints, and the ARI of the other cells
increases by 0.02 (PBMC, seed 0, 100 epochs of pretraining). With noise on the constrained cells the increase is 0.06, and with
initial centres of k-means from them 0.09. Stronger noise, a smaller clustering loss, and larger or smaller weights of the
constraints were not better (0.76–0.79 compared with 0.79)."""


def read(name: str) -> AnnData:
    """Return the cells with their known types in ``obs["known"]``."""
    with h5py.File(ROOT.parent / "shared" / "data" / "clustering" / SETS[name]) as file:
        cells = AnnData(sp.csr_matrix(file["X"][:]))
        cells.obs["known"] = file["Y"][:].astype(int).astype(str)
    return cells


def accuracy(known: np.ndarray, found: np.ndarray) -> float:
    """Return the share of correct cells under the best one-to-one assignment of clusters to types."""
    table = pd.crosstab(known, found).to_numpy()
    return float(table[linear_sum_assignment(-table)].sum() / len(known))


def principal_components(cells: AnnData) -> AnnData:
    """Return the cells by scanpy's usual way to 32 principal components."""
    import scanpy as sc

    work = cells.copy()
    sc.pp.normalize_total(work)
    sc.pp.log1p(work)
    sc.pp.scale(work, max_value=10)
    sc.pp.pca(work, n_comps=32)
    return work


def labels_of(cells: AnnData, method: str, seed: int, labelled: np.ndarray) -> np.ndarray:
    """Return the clusters that a method finds."""
    from scdeconv import pp, tl

    n_types = cells.obs["known"].nunique()
    if method == "PCA + k-means":
        from sklearn.cluster import KMeans

        return KMeans(n_types, n_init=20, random_state=seed).fit_predict(principal_components(cells).obsm["X_pca"])
    if method == "PCA + Leiden":
        import scanpy as sc

        work = principal_components(cells)
        sc.pp.neighbors(work, n_neighbors=15, random_state=seed)
        sc.tl.leiden(work, flavor="igraph", n_iterations=-1, random_state=seed)
        return work.obs["leiden"].to_numpy()
    options = {**METHODS[method], "seed": seed}
    if "n_clusters" in options:
        options["n_clusters"] = n_types
    if options["method"] == "scdcc":
        cells.obs["some"] = cells.obs["known"].where(labelled)
        options["constraints"] = quietly(pp.constraints, cells, labels_key="some", n_pairs=N_PAIRS, seed=seed)
    quietly(tl.cluster, cells, key_added="found", **options)
    return cells.obs["found"].to_numpy()


def measure(name: str, method: str, seed: int) -> dict[str, Any]:
    """Run a method once and compare its clusters with the known types."""
    import torch
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    from scdeconv import clustering

    torch.set_num_threads(1)
    if "method" in METHODS[method]:
        # importing is no part of the method
        _ = clustering.ClusteringModel
    cells = read(name)
    known = cells.obs["known"].to_numpy()
    labelled = np.random.default_rng(seed).permutation(len(known)) < len(known) // 10
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    cpu = time.process_time()
    found = labels_of(cells, method, seed, labelled)
    return {
        "set": name,
        "method": method,
        "seed": seed,
        "date": str(datetime.date.today()),
        "clusters": len(np.unique(found)),
        "ARI": adjusted_rand_score(known, found),
        "NMI": normalized_mutual_info_score(known, found),
        "NMI, geometric": normalized_mutual_info_score(known, found, average_method="geometric"),
        "accuracy": accuracy(known, found),
        "ARI, unlabelled": adjusted_rand_score(known[~labelled], found[~labelled]),
        "seconds": time.perf_counter() - start,
        "CPU-seconds": time.process_time() - cpu,
        "MB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def table_of(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return one set's medians over the seeds, with the range of the ARI."""
    rows = {}
    for method in METHODS:
        mine = runs[(runs["set"] == name) & (runs["method"] == method)]
        if mine.empty:
            continue
        # labelled cells are no test
        column = "ARI, unlabelled" if method.startswith("ScDCC") else "ARI"
        median = mine.median(numeric_only=True)
        rows[method] = {
            "clusters": f"{median['clusters']:.0f}",
            "ARI": f"{median[column]:.3f} ({mine[column].min():.3f}–{mine[column].max():.3f})",
            **{key: f"{median[key]:.3f}" for key in ("NMI", "NMI, geometric", "accuracy")},
            **{key: f"{median[key]:.0f}" for key in ("CPU-seconds", "MB")},
            "seeds": len(mine),
            "made on": mine["date"].max(),
        }
    return pd.DataFrame(rows).T.rename_axis("method")


def section_of(page: str, title: str) -> str:
    """Return the text of a section of a page, without the title."""
    return page.split(f"## {title}\n\n")[1].split("\n\n## ")[0]


def with_earlier_rows(table: pd.DataFrame, page: str, name: str) -> pd.DataFrame:
    """Return the table, and the rows of methods that were not run again from the page of an earlier run."""
    cells = [line.strip("| ").split(" | ") for line in section_of(page, name).splitlines()]
    earlier = pd.DataFrame(cells[2:], columns=cells[0]).set_index("method")
    rows = table.combine_first(earlier.drop(index=table.index, errors="ignore"))
    order = dict.fromkeys([*METHODS, *earlier.index])
    return rows.loc[[method for method in order if method in rows.index], earlier.columns].rename_axis("method")


def constraints_section(runs: pd.DataFrame) -> str:
    """Return the text on the effect of constraints."""
    bounds = ", ".join(
        f"{name} {supervised_bound(name, 0.1):.2f} and {supervised_bound(name, 0.9):.2f}" for name in SETS
    )
    return "\n\n".join(
        [
            f"A tenth of the cells is labelled, and {N_PAIRS:,} random pairs of them are used as constraints. The ARI on the "
            "other cells is compared with the same model and seed without constraints (medians, and the lowest gain of all "
            "seeds).",
            markdown_table(gains(runs).rename_axis("set")),
            "For comparison, the ARI of a support vector machine that is trained on the labels of a tenth, and of nine tenths, "
            f"of the cells and evaluated on the other cells: {bounds}.",
        ]
    )


def gains(runs: pd.DataFrame) -> pd.DataFrame:
    """Return what the labels of a tenth of the cells bring on the others, run by run against no labels."""
    scores = runs.pivot_table(index=["set", "seed"], columns="method", values="ARI, unlabelled")
    without, with_labels = scores["ScDeepCluster"], scores["ScDCC, a tenth labelled"]
    summary = pd.DataFrame({"without": without, "with": with_labels, "gain": with_labels - without})
    return (
        summary.groupby("set")
        .median()
        .map("{:.3f}".format)
        .assign(lowest=summary["gain"].groupby("set").min().map("{:+.3f}".format))
    )


def supervised_bound(name: str, share: float) -> float:
    """Return the ARI of a classifier (SVM on 50 components) that is given the labels of a share of the cells, on the rest."""
    from sklearn.metrics import adjusted_rand_score
    from sklearn.model_selection import StratifiedShuffleSplit
    from sklearn.svm import SVC

    cells = read(name)
    known = cells.obs["known"].to_numpy()
    x = principal_components(cells).obsm["X_pca"]
    scores = []
    for train, test in StratifiedShuffleSplit(5, train_size=share, random_state=0).split(x, known):
        scores.append(adjusted_rand_score(known[test], SVC(C=3).fit(x[train], known[train]).predict(x[test])))
    return float(np.median(scores))


def run_all(jobs: list[tuple[str, str, int]], n_jobs: int, path: Path) -> pd.DataFrame:
    """Return the runs of all jobs. Runs in the file are not repeated; new runs are appended to it."""
    runs = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["set", "method", "seed"])
    done = set(runs[["set", "method", "seed"]].itertuples(index=False, name=None))
    with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for job in as_completed([pool.submit(measure, *job) for job in jobs if job not in done]):
            run = job.result()
            print(
                {key: round(value, 3) if isinstance(value, float) else value for key, value in run.items()}, flush=True
            )
            runs = pd.concat([runs, pd.DataFrame([run])], ignore_index=True) if len(runs) else pd.DataFrame([run])
            runs.to_csv(path, index=False)
    return runs


def main(seeds: list[int], n_jobs: int, methods: list[str], path: Path) -> None:
    # the published settings are slowest and serve only as a comparison
    jobs = [
        (name, method, seed)
        for seed in seeds
        for method in methods
        for name in SETS
        if method != "ScDeepCluster, ZINB, unit scaling, 300 epochs" or seed == seeds[0]
    ]
    frame = run_all(jobs, n_jobs, path)
    parts = [
        "# Cell types from unlabelled cells",
        "The labelled data sets of the scDeepCluster and scDCC papers, 2,100 cells × the 2,000 most informative genes. Values are "
        "medians over seeds (for ARI with the range) with the defaults of `tl.cluster`. K-means, ScDeepCluster and ScDCC are "
        "given the true number of types. Leiden (resolution 1, the default of scanpy) and DESC (resolution 0.8) are not. Each "
        "run uses one thread. CPU seconds depend on the load of the machine. Rows of methods that were not run again keep their "
        "date. MB is the peak memory of the process minus its memory before the run. ScDCC is evaluated on the "
        "cells without labels. {term}`ARI` and {term}`NMI` measure the agreement with the true types, 1 is perfect; accuracy is "
        "the share of cells with the right type after the best matching of clusters to types. ZINB is the zero-inflated negative "
        "binomial distribution of counts.",
    ]
    page = (PAGES / "clustering.md").read_text()
    for name in SETS:
        parts += [f"## {name}", markdown_table(with_earlier_rows(table_of(frame, name), page, name))]
    both = {"ScDeepCluster", "ScDCC, a tenth labelled"} <= set(frame["method"])
    parts += [
        "## Effect of constraints",
        constraints_section(frame) if both else section_of(page, "Effect of constraints"),
        NOTES,
        provenance("labelled sets of ttgump/scDCC", seeds),
    ]
    write_page(PAGES / "clustering.md", parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time; more than one blurs seconds")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD")
    parser.add_argument("--runs", type=Path, default=Path("clustering_runs.csv"), help="file of finished runs")
    arguments = parser.parse_args()
    main(arguments.seeds, arguments.jobs, arguments.methods, arguments.runs)
