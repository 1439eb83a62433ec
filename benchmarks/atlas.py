"""A reference larger than memory: pairing, signature and simulated bulk from cells on disk.

``python benchmarks/atlas.py make`` writes generated atlases and resumes after an interruption. ``measure`` writes
docs/benchmarks/atlas.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
import zarr
from report import PAGES, ROOT, markdown_table, provenance, write_page

from scdeconv._data.progress import progress

SEED = 0
N_GENES, N_TYPES, N_DONORS, DENSITY = 20_000, 30, 50, 0.05
N_BULK, N_PSEUDOBULKS = 60, 10_000
# number of different cells per type; the atlas repeats them in random order
POOL_PER_TYPE = 300
CELLS_AT_ONCE = 10_000
FORMATS = ("h5ad", "zarr")
LIMIT_GB = 3


def names(letter: str, n: int) -> list[str]:
    return [f"{letter}{i}" for i in range(n)]


def gene_shares() -> np.ndarray:
    rng = np.random.default_rng(SEED)
    return rng.dirichlet(np.full(N_GENES, 0.3), N_TYPES) * 0.8 + 0.2 / N_GENES


def make_pool() -> sp.csr_matrix:
    """Return cells of every type, with Poisson counts at the depth that gives ``DENSITY``."""
    rng, shares = np.random.default_rng(SEED), gene_shares()
    depth = 100.0
    while (1 - np.exp(-depth * shares)).mean() < DENSITY:
        depth *= 1.05
    rows = [sp.csr_matrix(rng.poisson(depth * share, (POOL_PER_TYPE, N_GENES)).astype(np.float32)) for share in shares]
    return sp.vstack(rows, format="csr")


def labels(n_cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return donor and type of each cell; the cells of a donor are consecutive, as in most atlases."""
    rng = np.random.default_rng(SEED)
    return np.arange(n_cells) * N_DONORS // n_cells, rng.integers(0, N_TYPES, n_cells)


def cells_of(pool: sp.csr_matrix, kind: np.ndarray, start: int) -> sp.csr_matrix:
    rng = np.random.default_rng([SEED, start])
    return pool[kind * POOL_PER_TYPE + rng.integers(0, POOL_PER_TYPE, len(kind))]


def open_store(path: Path, form: str) -> h5py.File | zarr.Group:
    return h5py.File(path, "a") if form == "h5ad" else zarr.open_group(path, mode="a", zarr_format=2)


def make(folder: Path, n_cells: int, form: str) -> None:
    """Write an atlas in blocks to a file with a temporary name, and rename it at the end."""
    path = folder / f"atlas_{n_cells}.{form}"
    if path.exists():
        return
    partial = path.with_name("partial_" + path.name)
    donor, kind = labels(n_cells)
    store = open_store(partial, form)
    if "n_written" not in store.attrs:
        obs = pd.DataFrame(
            {
                "donor": pd.Categorical.from_codes(donor, names("D", N_DONORS)),
                "cell_type": pd.Categorical.from_codes(kind, names("T", N_TYPES)),
            },
            index=names("cell", n_cells),
        )
        empty = sp.csr_matrix((0, N_GENES), dtype=np.float32)
        empty.indices = empty.indices.astype(np.int32)
        anndata.io.write_elem(
            store, "/", anndata.AnnData(empty, obs=obs.iloc[:0], var=pd.DataFrame(index=names("G", N_GENES)))
        )
        anndata.io.write_elem(store, "obs", obs)
        del store["X"]
        store.require_group("X").attrs.update(
            {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [n_cells, N_GENES]}
        )
        for part, dtype in (("data", np.float32), ("indices", np.int32), ("indptr", np.int64)):
            more = {"maxshape": (None,)} if form == "h5ad" else {}
            store["X"].create_dataset(
                part, shape=(1,) if part == "indptr" else (0,), chunks=(1_000_000,), dtype=dtype, **more
            )
        store["X"]["indptr"][0] = 0
        store.attrs["n_written"] = 0
    pool, group = make_pool(), store["X"]
    with progress(n_cells, f"writing {path.name}") as bar:
        for start in range(0, n_cells, CELLS_AT_ONCE):
            if start >= store.attrs["n_written"]:
                block = cells_of(pool, kind[start : start + CELLS_AT_ONCE], start)
                before = int(group["indptr"][start])
                stop = start + block.shape[0]
                for part, at, values in (
                    ("data", before, block.data),
                    ("indices", before, block.indices),
                    ("indptr", start + 1, block.indptr[1:].astype(np.int64) + before),
                ):
                    group[part].resize((at + len(values),))
                    group[part][at : at + len(values)] = values
                store.attrs["n_written"] = stop
                if form == "h5ad":
                    store.flush()
            bar.update(CELLS_AT_ONCE)
    del store.attrs["n_written"]
    if form == "h5ad":
        store.close()
    else:
        zarr.consolidate_metadata(store.store)
    partial.rename(path)


def make_bulk() -> anndata.AnnData:
    rng = np.random.default_rng(SEED + 1)
    mixed = rng.dirichlet(np.ones(N_TYPES), N_BULK) @ gene_shares() * np.exp(rng.normal(0, 0.4, N_GENES))
    counts = rng.poisson(2e7 * mixed).astype(np.float32)
    obs = pd.DataFrame({"donor": names("D", N_BULK)}, index=names("bulk", N_BULK))
    return anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=names("G", N_GENES)))


def usage() -> tuple[float, float, float]:
    """Return wall-clock seconds, CPU-seconds and peak resident memory in GB."""
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024**2
    return time.perf_counter(), time.process_time(), peak


def measure_one(path: Path) -> None:
    """Run the steps on one atlas and print time and memory as JSON."""
    from scdeconv import pp

    bulk = make_bulk()
    start = usage()
    cells = anndata.read_h5ad(path, backed="r") if path.suffix == ".h5ad" else anndata.experimental.read_lazy(path)
    rows = []

    def note(step: str) -> None:
        nonlocal start
        now = usage()
        rows.append({"step": step, "seconds": now[0] - start[0], "cpu": now[1] - start[1], "peak": now[2]})
        start = usage()

    mdata = pp.pair(cells, bulk)
    note("pair")
    pp.calibrate(mdata)
    note("calibrate")
    for criterion in ("ratio", "moderated", "fold_change"):
        pp.signature(mdata, criterion=criterion)
        note(f"signature, {criterion}")
    pp.simulate(mdata, N_PSEUDOBULKS)
    note(f"{N_PSEUDOBULKS:,} pseudobulks")
    print("FIGURES " + json.dumps(rows))


def measure(folder: Path, sizes: list[int]) -> None:
    tables = []
    for form in FORMATS:
        for n_cells in sizes:
            path = folder / f"atlas_{n_cells}.{form}"
            command = [sys.executable, __file__, "measure-one", str(path)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                sys.exit(result.stderr)
            rows = json.loads(result.stdout.split("FIGURES ")[1])
            tables.append(pd.DataFrame(rows).assign(format=form, cells=n_cells))
            print(tables[-1], flush=True)
    figures = pd.concat(tables)
    seconds = figures.pivot_table(index=["format", "step"], columns="cells", values="seconds", sort=False)
    cpu = figures.pivot_table(index=["format", "step"], columns="cells", values="cpu", sort=False)
    shown = seconds.map("{:.1f}".format) + " (" + cpu.map("{:.1f}".format) + ")"
    shown.columns = [f"{n:,} cells" for n in shown.columns]
    if len(sizes) > 1:
        ratio = seconds[max(sizes)] / seconds[min(sizes)]
        shown[f"ratio for {max(sizes) / min(sizes):g}× the cells"] = ratio.map("{:.1f}".format)
    shown.index = pd.Index([f"{step} ({form})" for form, step in shown.index], name="seconds (CPU-seconds)")
    peak = figures.groupby(["format", "cells"], sort=False)["peak"].max().unstack().map("{:.2f}".format)
    peak.columns = [f"{n:,} cells" for n in peak.columns]
    peak.index.name = "peak of resident memory, GB"
    write_page(
        PAGES / "atlas.md",
        [
            "# References larger than memory",
            f"Generated atlases of {N_GENES:,} genes at a density of {DENSITY:.0%}, {N_TYPES} cell types and {N_DONORS} donors, "
            "on disk. They are read with `anndata.read_h5ad(backed='r')` (uncompressed, the default of writing) and with "
            "`anndata.experimental.read_lazy` from zarr (compressed, the default of writing). Each row is one step. One process runs "
            f"all steps, with {N_BULK} bulk samples. Requirements: less than {LIMIT_GB} GB of resident memory, and time linear "
            "in the number of cells.",
            markdown_table(shown),
            markdown_table(peak),
            provenance("generated", [SEED]),
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["make", "measure", "measure-one"])
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument(
        "--folder", type=Path, default=Path(os.environ.get("SCDECONV_ATLAS_DIR", ROOT.parent / "atlas_data"))
    )
    parser.add_argument("--cells", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    arguments = parser.parse_args()
    if arguments.command == "make":
        arguments.folder.mkdir(parents=True, exist_ok=True)
        for n_cells in arguments.cells:
            for form in FORMATS:
                make(arguments.folder, n_cells, form)
    elif arguments.command == "measure":
        measure(arguments.folder, arguments.cells)
    else:
        measure_one(arguments.path)


if __name__ == "__main__":
    main()
