"""Compare the speed of our methods with loops over samples and write docs/benchmarks/reference_speed.md."""

from __future__ import annotations

import contextlib
import io
import time
import warnings

import numpy as np
import pandas as pd
from anndata import AnnData
from report import PAGES, markdown_table, provenance, write_page
from scipy.optimize import nnls

from scdeconv import pp, tl
from scdeconv._data.reference import Reference

SEED = 0
N_TYPES, N_DONORS, CELLS_PER_DONOR = 20, 4, 10
# number of samples in the timed loop; its time is scaled to all samples
LOOPED = 50


def quietly(function, *args, **kwargs):
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


def generate(n_genes: int, n_samples: int) -> tuple[AnnData, AnnData]:
    """Return cells of several donors and noisy counts of mixtures of their cell types."""
    rng = np.random.default_rng(SEED)
    profiles = rng.gamma(0.3, 1, (N_TYPES, n_genes)) * rng.uniform(0.5, 2, (N_TYPES, 1))
    types = np.tile(np.repeat(np.arange(N_TYPES), CELLS_PER_DONOR), N_DONORS)
    donors = np.repeat(np.arange(N_DONORS), N_TYPES * CELLS_PER_DONOR)
    obs = pd.DataFrame({"cell_type": [f"type{t:02}" for t in types], "donor": [f"donor{d}" for d in donors]})
    obs.index = [f"cell{i}" for i in range(len(obs))]
    var = pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)])
    of_donor = np.exp(rng.normal(0, 0.3, (N_DONORS, n_genes)))
    cells = AnnData(rng.poisson(3 * profiles[types] * of_donor[donors]).astype(np.float32), obs=obs, var=var)
    mixed = rng.dirichlet(np.full(N_TYPES, 0.5), n_samples) @ profiles
    counts = rng.poisson(1000 * mixed * np.exp(rng.normal(0, 0.3, n_genes))).astype(np.float32)
    return cells, AnnData(counts, obs=pd.DataFrame(index=[f"sample{i}" for i in range(n_samples)]), var=var)


def nnls_loop(profiles: np.ndarray, bulk: np.ndarray) -> None:
    for sample in bulk:
        nnls(profiles.T, sample / sample.mean())


def music_loop(design: np.ndarray, variance: np.ndarray, sizes: np.ndarray, bulk: np.ndarray) -> None:
    """Wang et al. 2019, sample by sample."""
    for sample in 100 * bulk / bulk.sum(axis=1, keepdims=True):
        x = nnls(design.T, sample)[0]
        residual, before = sample - x @ design, np.full(len(x), np.inf)
        while np.abs(x / x.sum() - before).sum() >= 0.01:
            before = x / x.sum()
            root = 1 / np.sqrt(1e-4 + residual**2 + (x * sizes) ** 2 @ variance)
            x = nnls((design * root).T, sample * root)[0]
            residual = root * (sample - x @ design)


def bayesprism_loop(profiles: np.ndarray, bulk: np.ndarray) -> None:
    """Hu & Chikina 2024, sample by sample."""
    for sample in bulk:
        theta = np.full(len(profiles), 1 / len(profiles))
        for _ in range(100):
            theta = theta * (profiles @ (sample / (theta @ profiles)))
            theta /= theta.sum()


def timed(function, *args, **kwargs) -> float:
    start = time.perf_counter()
    quietly(function, *args, **kwargs)
    return time.perf_counter() - start


def compare(method: str, n_genes: int, n_samples: int) -> dict[str, object]:
    cells, bulk = generate(n_genes, n_samples)
    mdata = quietly(pp.pair, cells, bulk)
    mdata["bulk"].var["selected"] = True
    model = quietly(tl.train, mdata, method)
    together = timed(model.predict, bulk)
    some = np.asarray(bulk.X[:LOOPED], dtype=float)
    profiles = np.asarray(mdata["profiles"].X, dtype=float)
    if method == "nnls":
        one_by_one = timed(nnls_loop, profiles, some)
    elif method == "bayesprism":
        shares = profiles / profiles.sum(axis=1, keepdims=True)
        one_by_one = timed(bayesprism_loop, shares + shares[shares > 0].min(), some)
    else:
        sums, totals, n_cells = Reference(mdata, mdata.var_names).by_donor()
        shares, sizes = sums / totals[:, :, None], (totals / n_cells).mean(axis=0)
        design = shares.mean(axis=0) * sizes[:, None]
        one_by_one = timed(music_loop, design, shares.var(axis=0, ddof=1), sizes, some)
    one_by_one *= n_samples / LOOPED
    return {
        "method": method,
        "samples": f"{n_samples:,}",
        "genes": f"{n_genes:,}",
        "seconds": f"{together:.2f}",
        "seconds of a loop": f"{one_by_one:.1f}",
        "ratio": f"{one_by_one / together:.1f}",
    }


def cibersort(n_genes: int, n_samples: int) -> dict[str, object]:
    cells, bulk = generate(n_genes, n_samples)
    mdata = quietly(pp.pair, cells, bulk)
    mdata["bulk"].var["selected"] = True
    seconds = {n: timed(quietly(tl.train, mdata, "cibersort", n_jobs=n).predict, bulk) for n in (1, 2)}
    return {
        "method": "cibersort, n_jobs=2",
        "samples": f"{n_samples:,}",
        "genes": f"{n_genes:,}",
        "seconds": f"{seconds[2]:.2f}",
        "seconds of a loop": f"{seconds[1]:.1f}",
        "ratio": f"{seconds[1] / seconds[2]:.1f}",
    }


def main() -> None:
    rows = [
        compare("nnls", 1000, 10_000),
        compare("music", 6000, 1000),
        compare("bayesprism", 6000, 1000),
        cibersort(1000, 100),
    ]
    write_page(
        PAGES / "reference_speed.md",
        [
            "# Speed of the methods that need no pairs",
            f"Generated bulk of {N_TYPES} cell types. The table shows the seconds of `model.predict` for all samples. In the same "
            f"run, a simple loop over samples with scipy and NumPy was timed on {LOOPED} samples and scaled to all samples. For "
            "CIBERSORT, two jobs are compared with one job.",
            markdown_table(pd.DataFrame(rows).set_index("method")),
            provenance("generated", [SEED]),
        ],
    )


if __name__ == "__main__":
    main()
