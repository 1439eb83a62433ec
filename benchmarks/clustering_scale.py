"""Measure time and memory of the clustering models by number of cells and write docs/benchmarks/clustering_scale.md."""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from held_out_donors import quietly
from report import PAGES, markdown_table, provenance, write_page

SIZES = (2000, 8000, 32000)
N_GENES = 2000
N_TYPES = 8
# each model for a fixed number of epochs, so that only the cells differ; of DESC, each of its many phases
METHODS: dict[str, dict[str, Any]] = {
    "DESC": {"hidden": (64, 32), "max_epochs": 20},
    "ScDeepCluster": {"n_clusters": N_TYPES, "pretrain_epochs": 10, "max_epochs": 10, "tolerance": 0.0},
    "ScDCC": {"n_clusters": N_TYPES, "pretrain_epochs": 10, "max_epochs": 10, "tolerance": 0.0},
    "Scvis": {"max_epochs": 10},
    "ScGen": {"max_epochs": 10},
}


def simulated_cells(n_cells: int, seed: int) -> AnnData:
    """Return counts of types that differ in a tenth of the genes, about a quarter of them above zero."""
    rng = np.random.default_rng(seed)
    profiles = np.tile(rng.lognormal(-2.0, 1.5, N_GENES), (N_TYPES, 1))
    profiles *= np.where(rng.random(profiles.shape) < 0.1, rng.lognormal(0, 1.5, profiles.shape), 1)
    kinds = rng.integers(N_TYPES, size=n_cells)
    depths = rng.lognormal(0, 0.4, (n_cells, 1))
    blocks = [
        sp.csr_matrix(rng.poisson(profiles[kinds[start : start + 2000]] * depths[start : start + 2000] + 1e-3))
        for start in range(0, n_cells, 2000)
    ]
    cells = AnnData(sp.vstack(blocks).astype(np.float32).tocsr())
    cells.obs["kind"] = pd.Categorical(kinds.astype(str))
    return cells


def memory(name: str) -> float:
    """Return a figure of this process in MB: ``VmRSS`` now, or ``VmHWM``, the highest since it was reset."""
    status = Path("/proc/self/status").read_text()
    return float(status.split(f"{name}:")[1].split()[0]) / 1024


def measure(method: str, n_cells: int) -> dict[str, Any]:
    """Train once, in a process of its own."""
    import torch
    from sklearn.metrics import adjusted_rand_score

    from scdeconv import clustering, pp
    from scdeconv.models import SimpleDNN  # noqa: F401  importing is no part of a method
    from scdeconv.tl._train import split_arguments

    torch.set_num_threads(1)
    cls: Any = getattr(clustering, method)
    cells = simulated_cells(n_cells, seed=0)
    arguments = dict(METHODS[method])
    if method == "ScDCC":
        cells.obs["some"] = cells.obs["kind"].where(np.arange(n_cells) % 10 == 0)
        arguments["constraints"] = quietly(pp.constraints, cells, labels_key="some")
    architecture, training = split_arguments(cls, arguments)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = memory("VmRSS")
    start, cpu = time.perf_counter(), time.process_time()
    cls.setup_anndata(cells)
    model = cls(cells, **architecture)
    quietly(model.train, accelerator="cpu", **training)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    result = {
        "method": method,
        "cells": n_cells,
        "seconds": seconds,
        "CPU-seconds": cpu_seconds,
        "MB": memory("VmHWM") - before,
        "data, MB": sum(array.nbytes for array in (cells.X.data, cells.X.indices, cells.X.indptr)) / 2**20,
        "epochs": sum(len(curve) for name, curve in model.history.items() if name.endswith("train_loss")),
    }
    if hasattr(model, "get_clusters"):
        result["ARI"] = adjusted_rand_score(cells.obs["kind"], model.get_clusters())
    return result


def main(n_jobs: int) -> None:
    runs = []
    with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for job in as_completed([pool.submit(measure, method, size) for size in SIZES for method in METHODS]):
            runs.append(job.result())
            print(runs[-1], flush=True)
    frame = pd.DataFrame(runs)
    frame["ms per epoch and 1,000 cells"] = frame["CPU-seconds"] / frame["epochs"] / frame["cells"] * 1e6
    tables = {
        column: frame.pivot_table(index="method", columns="cells", values=column).reindex(METHODS)
        for column in ("CPU-seconds", "epochs", "ms per epoch and 1,000 cells", "MB")
    }
    data = frame.groupby("cells")["data, MB"].first()
    parts = [
        "# Clustering many cells",
        f"Simulated cells × {N_GENES:,} genes, sparse ({', '.join(f'{mb:.0f} MB' for mb in data)} for "
        f"{', '.join(f'{size:,}' for size in SIZES)} cells), with one thread. The number of epochs is small and fixed, so that "
        "only the number of cells differs. In DESC each phase of pretraining stops by itself. [A full training](clustering.md) of "
        "2,100 cells takes one to three minutes. Only mini-batches are dense. The memory is needed for the data and for arrays "
        "that grow with the number of cells: latent representation, soft assignments, neighbour graph (DESC), and sparse log "
        "expression for principal components (Scvis).",
    ]
    for column, table in tables.items():
        title = "Peak memory above the data, MB" if column == "MB" else column
        digits = 0 if column in ("epochs", "MB") else 1
        parts += [f"## {title}", markdown_table(table.map(f"{{:.{digits}f}}".format))]
    parts.append(provenance("generated in the script", [0]))
    write_page(PAGES / "clustering_scale.md", parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    main(parser.parse_args().jobs)
