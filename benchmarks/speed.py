"""Compare speed and memory with Scaden 1.1.2 and with a lower limit, and write docs/benchmarks/speed.md.

Scaden 1.1.2 needs a separate environment (Python 3.8, ``pip install scaden==1.1.2``): ``--scaden PATH/TO/python``.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from clustering_scale import memory
from held_out_donors import quietly
from report import PAGES, markdown_table, mean_and_range, provenance, write_page

from scdeconv import datasets, metrics, pp, tl
from scdeconv._nn import LOSSES, Ensemble, TrainingData, fit
from scdeconv.models.simulated.scaden import MEMBERS, ScadenNetwork, scaden_input

ORIGINAL = Path(__file__).with_name("scaden_original.py")
N_GENES, N_TYPES, BATCH = 5800, 7, 128
STEPS = 5000


def shortest(function, clock=time.process_time, repeats: int = 3) -> float:
    """Return the shortest time of several runs after one warm-up run; by default in CPU-seconds."""
    function()
    times = []
    for _ in range(repeats):
        start = clock()
        function()
        times.append(clock() - start)
    return min(times)


def cohort(n_genes: int, seed: int = 0, **sizes: Any) -> tuple[AnnData, AnnData]:
    sizes = {"n_donors": 20, "cells_per_donor": (100, 200), **sizes}
    return datasets.paired_cohort(n_genes=n_genes, n_bulk_only=0, n_reference_only=0, seed=seed, **sizes)


def original(command: str, python: str | None, **data: Any) -> dict[str, Any]:
    """Run Scaden 1.1.2 on arrays; return an empty dict if it is not installed."""
    if python is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "in.npz"), **data)
        # keep our packages out of the environment of Scaden
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        arguments = [python, str(ORIGINAL), command, "in.npz", "out.npz"]
        subprocess.run(arguments, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        with np.load(Path(folder, "out.npz")) as found:
            return dict(found)


def simulation(python: str | None) -> dict[str, Any]:
    cells, bulk = cohort(6000, cells_per_donor=(450, 550))
    mdata = quietly(pp.pair, cells, bulk)
    options = {"n_samples": 1000, "cells_per_sample": 100}
    seconds = shortest(lambda: pp.simulate(mdata, across_donors=True, **options))
    rng = np.random.default_rng(0)
    drawn = rng.integers(cells.n_obs, size=100 * 1000)
    weights = sp.csr_matrix((np.ones(len(drawn), np.float32), drawn, np.arange(0, len(drawn) + 1, 100)))
    weights.resize(1000, cells.n_obs)
    counts = mdata["sc"].X.toarray().astype(np.float32)
    limit = shortest(lambda: weights @ counts)
    types = np.asarray(cells.obs["cell_type"], dtype=str)
    other = original("simulate", python, counts=counts, cell_types=types, **options)
    return {"ours": seconds, "limit": limit, "other": other.get("seconds"), "other, MB": other.get("peak")}


def scaden_floor(n_genes: int) -> float:
    """Return the time of the matrix products of one step and one pass of Adam over the weights."""
    layers = [
        (torch.rand(BATCH, a), torch.rand(a, b), torch.rand(BATCH, b), first)
        for hidden, _ in MEMBERS.values()
        for first, (a, b) in enumerate(zip((n_genes, *hidden), (*hidden, N_TYPES), strict=True))
    ]

    def products() -> None:
        for x, weight, gradient, inner in layers:
            _ = x @ weight, x.T @ gradient, gradient @ weight.T if inner else None

    weights = [torch.nn.Parameter(weight) for _, weight, _, _ in layers]
    for weight in weights:
        weight.grad = torch.rand_like(weight)
    optimizer = torch.optim.Adam(weights, fused=True)
    return shortest(products, repeats=10) + shortest(optimizer.step, repeats=10)


def scaden_step(accelerator: str = "cpu", precision: str = "32-true", n_steps: int = 50) -> float:
    """Return the seconds per step with the original settings: three members, batches of 128 (CPU-seconds on the CPU)."""
    clock = time.process_time if accelerator == "cpu" else time.perf_counter
    rng = np.random.default_rng(0)
    data = TrainingData(
        torch.as_tensor(scaden_input(rng.poisson(5, (2000, N_GENES))), dtype=torch.float32),
        torch.as_tensor(rng.dirichlet(np.ones(N_TYPES), (2000, 1)), dtype=torch.float32),
        torch.ones(len(MEMBERS), 2000),
    )
    settings: dict[str, Any] = {"batch_size": BATCH, "learning_rate": 1e-4, "precision": precision}

    def train(steps: int) -> float:
        start = clock()
        fit(ScadenNetwork(N_GENES, N_TYPES), data, LOSSES["mse"], max_steps=steps, accelerator=accelerator, **settings)
        return clock() - start

    train(10)
    return (train(10 + n_steps) - train(10)) / n_steps


def scaden_training(python: str | None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    expression = rng.poisson(5, (2000, N_GENES)).astype(np.float32)
    fractions = rng.dirichlet(np.ones(N_TYPES), 2000).astype(np.float32)
    found = [
        original("train", python, expression=expression, fractions=fractions, bulk=expression[:2], steps=steps, seed=0)
        for steps in (10, 60)
    ]
    result = {"ours": STEPS * scaden_step(), "limit": STEPS * scaden_floor(N_GENES)}
    if python is not None:
        other = STEPS * (found[1]["seconds"] - found[0]["seconds"]) / 50
        result |= {"other": float(other), "other, MB": float(found[1]["peak"])}
    return result


def loop(python: str | None) -> dict[str, Any]:
    """Train with the loop of the library, and with a minimal PyTorch loop on the same tensors."""
    n_rows = 1000
    x, targets = torch.randn(n_rows, 3000), torch.softmax(torch.randn(n_rows, 1, N_TYPES), dim=-1)

    def module() -> Ensemble:
        torch.manual_seed(0)
        return Ensemble(1, 3000, N_TYPES, (256, 128, 64, 32), (0.1,) * 4, linear=False)

    def ours() -> None:
        settings = {"max_steps": 350, "batch_size": BATCH, "learning_rate": 1e-3, "accelerator": "cpu"}
        fit(module(), TrainingData(x, targets, torch.ones(1, n_rows)), LOSSES["mse"], **settings)

    def bare() -> None:
        network = module().train()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
        for _ in range(50):
            order = torch.randperm(n_rows)
            for start in range(0, n_rows - BATCH + 1, BATCH):
                rows = order[start : start + BATCH]
                loss = (torch.softmax(network(x[rows]), dim=-1) - targets[rows, 0]).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    return {"ours": shortest(ours), "limit": shortest(bare)}


def prediction(python: str | None) -> dict[str, Any]:
    """Predict 10,000 samples × 20,000 genes with the default model, with quality, on all cores. The limit is one sum."""
    cells, bulk = cohort(20_000)
    model = quietly(tl.train, quietly(pp.pair, cells, bulk), max_epochs=3)
    rng = np.random.default_rng(0)
    mixtures = rng.dirichlet(np.full(bulk.n_obs, 0.3), 10_000) @ np.asarray(bulk.X, dtype=float)
    many = AnnData(rng.poisson(mixtures).astype(np.float32), var=bulk.var[[]])
    torch.set_num_threads(torch.get_num_threads() if torch.get_num_threads() > 1 else 2)
    tl.predict(many[:200].copy(), model)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    seconds = shortest(lambda: tl.predict(many, model), time.perf_counter)
    peak = memory("VmHWM") - before
    return {"ours": seconds, "limit": shortest(many.X.sum, time.perf_counter), "MB": peak}


def augmentation(python: str | None) -> dict[str, Any]:
    mdata = quietly(pp.pair, *cohort(300, n_donors=50, cells_per_donor=(500, 1000)))
    return {"ours": shortest(lambda: pp.augment(mdata, n_aug=20_000))}


PARTS = {
    "simulating 1,000 bulks of 100 cells × 6,000 genes, out of 10,000 cells": simulation,
    f"training Scaden, {STEPS:,} steps × {N_GENES:,} genes": scaden_training,
    "training loop, 1,000 × 3,000, batches of 128": loop,
    "predicting 10,000 bulks × 20,000 genes (wall)": prediction,
    "augmenting 50 donors to 1,000,000 rows": augmentation,
}


def measured(name: str, python: str | None) -> dict[str, Any]:
    """Run one part in this process, by default on one thread, and measure its peak memory."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    before = memory("VmRSS")
    result = PARTS[name](python)
    return {"MB": memory("VmHWM") - before, **result}


def accuracy(seed: int, n_genes: int, steps: int, python: str | None) -> dict[str, float]:
    """Train on the cells and pairs of half of the donors and predict the bulk of the other donors."""
    warnings.simplefilter("ignore")
    mdata = quietly(pp.pair, *cohort(n_genes, seed))
    donors = pp.paired_donors(mdata)
    training, held_out = pp.hold_out(mdata, list(np.random.default_rng(seed).permutation(donors)[: len(donors) // 2]))
    pp.simulate(training, 1000, seed=seed)
    truth = held_out.obsm["measured_fractions"]
    simulated = training["simulated"]
    scaden = quietly(tl.train, training, "scaden", max_steps=steps, var_cutoff=0.0, seed=seed)
    start = time.process_time()
    default = quietly(tl.train, training, "calibrated_map", seed=seed)
    default_seconds = time.process_time() - start
    of_mean = quietly(tl.train, training, "mean_composition")
    rmse = {
        "Scaden": metrics.rmse(truth, scaden.predict(held_out)),
        "CalibratedMAP": metrics.rmse(truth, default.predict(held_out)),
        "mean composition": metrics.rmse(truth, of_mean.predict(held_out)),
        "CalibratedMAP, CPU-seconds": default_seconds,
    }
    genes = scaden.genes_
    other = original(
        "train",
        python,
        expression=np.asarray(simulated[:, genes].X),
        fractions=simulated.obsm["measured_fractions"].to_numpy().astype(np.float32),
        bulk=np.asarray(held_out[:, genes].X.toarray() if sp.issparse(held_out.X) else held_out[:, genes].X),
        steps=steps,
        seed=seed,
    )
    if other:
        rmse["Scaden 1.1.2"] = metrics.rmse(truth.to_numpy(), other["predicted"])
        rmse["Scaden 1.1.2, CPU-seconds"] = float(other["seconds"])
    return rmse


def on_gpu() -> str:
    """Return a table of the training time of Scaden on GPU and CPU, or the reason why it was not measured."""
    if not torch.cuda.is_available():
        return 'Not measured: no GPU was available. `accelerator="auto"` would use it, with all data in GPU memory.'
    # one multiply-add per weight in the forward pass and two in the backward pass
    n_weights = sum(weight.numel() for weight in ScadenNetwork(N_GENES, N_TYPES).parameters())
    operations = 3 * 2 * BATCH * n_weights
    rows = {}
    for name, accelerator, precision, dtype in (
        ("GPU, float32", "gpu", "32-true", torch.float32),
        ("GPU, bfloat16", "gpu", "bf16-mixed", torch.bfloat16),
        ("CPU, one thread", "cpu", "32-true", torch.float32),
    ):
        seconds = scaden_step(accelerator, precision, n_steps=500 if accelerator == "gpu" else 50)
        side = 8192 if accelerator == "gpu" else 1024
        square = torch.rand(side, side, dtype=dtype, device="cuda" if accelerator == "gpu" else "cpu")

        def product(square: torch.Tensor = square) -> None:
            for _ in range(10):
                _ = square @ square
            if square.is_cuda:
                torch.cuda.synchronize()

        product()
        start = time.perf_counter()
        product()
        peak = 10 * 2 * side**3 / (time.perf_counter() - start)
        rows[name] = {
            "samples per second": f"{BATCH / seconds:,.0f}",
            "ms per step": f"{1000 * seconds:.2f}",
            "share of the fastest product": f"{operations / seconds / peak:.1%}",
        }
    return markdown_table(pd.DataFrame(rows).T.rename_axis("Scaden, three members"))


def main(python: str | None, seeds: list[int], n_genes: int, steps: int) -> None:
    torch.set_num_threads(1)
    runs = pd.DataFrame([accuracy(seed, n_genes, steps, python) for seed in seeds])
    scores = pd.DataFrame({"mean (range) over seeds": [mean_and_range(runs[name]) for name in runs]}, index=list(runs))
    print(scores, flush=True)
    # separate process per part, to measure its peak memory
    rows = {}
    for name in PARTS:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            rows[name] = pool.submit(measured, name, python).result()
        print(name, rows[name], flush=True)
    frame = pd.DataFrame(rows).T.astype(float)
    table = pd.DataFrame(
        {
            "seconds": frame["ours"].map("{:.2f}".format),
            "limit": frame["limit"].map("{:.2f}".format),
            "× limit": (frame["ours"] / frame["limit"]).map("{:.2f}".format),
            "Scaden 1.1.2": frame["other"].map("{:.1f}".format),
            "times faster": (frame["other"] / frame["ours"]).map("{:.1f}".format),
            "peak MB": frame["MB"].map("{:.0f}".format),
            "Scaden 1.1.2, MB": frame["other, MB"].map("{:.0f}".format),
        }
    ).replace("nan", "–")
    parts = [
        "# Speed",
        "CPU-seconds on one thread unless stated otherwise, the shortest of three runs. The limit is a minimal computation that is "
        "measured in the same run:\n\n"
        "- simulation: one product of a sparse matrix (samples × cells) with dense counts\n"
        "- Scaden: the matrix products of its steps and one Adam update of the weights\n"
        "- training loop: the same network, data and optimiser in a minimal PyTorch loop\n"
        "- prediction: one sum over all values\n\n"
        "Peak memory is the memory of the process of this part, including its input, without the memory of the imports.",
        markdown_table(table.rename_axis("what")),
        f"Machine: {platform.processor() or platform.machine()}, PyTorch {torch.__version__}.",
        "## On a GPU",
        on_gpu(),
        "## Accuracy in comparison",
        f"Generated cohorts of 20 donors and {n_genes:,} genes, one for each seed. Half of the donors are used for cells, pairs and "
        "1,000 simulated bulk samples. The bulk of the other donors is predicted (RMSE). Our Scaden and the original are trained "
        f"with {steps:,} steps on the same simulated bulk. The default of `tl.train` uses the genes that it selects.",
        markdown_table(scores.rename_axis("")),
        provenance("generated in the script", seeds),
    ]
    write_page(PAGES / "speed.md", parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--scaden", metavar="PYTHON", help="path of a Python with scaden 1.1.2; without it, Scaden is not measured"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--genes", type=int, default=1500, help="number of genes of the cohorts in the comparison of accuracy"
    )
    parser.add_argument(
        "--steps", type=int, default=STEPS, help="number of training steps in the comparison of accuracy"
    )
    arguments = parser.parse_args()
    main(arguments.scaden, arguments.seeds, arguments.genes, arguments.steps)
