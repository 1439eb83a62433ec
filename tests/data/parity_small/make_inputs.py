"""Make sc.npz, cells.csv, bulk.csv.gz, pairs_bulk.csv.gz, truth.csv and pairs_truth.csv (checked with numpy 2.4.6).

python make_inputs.py FOLDER
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

SEED = 7
TYPES = ["Mono", "CD4_T", "CD8_T", "B", "NK", "Epithelial"]
RNA_PER_CELL = np.array([1.9, 1.0, 1.05, 1.15, 0.95, 4.0])
LINEAGE = ["M", "L", "L", "L", "L", "S"]
OWN_SD = [0.30, 0.10, 0.10, 0.40, 0.25, 0.50]
N_MARKERS = [22, 8, 9, 25, 18, 35]
SHARED_MARKERS = [(("CD4_T", "CD8_T"), 14), (("CD8_T", "NK"), 12), (("CD4_T", "CD8_T", "NK", "B"), 12)]
N_TYPES, N_GENES, N_DONORS, N_CELLS_PER_DONOR, N_BULK, COUNTS_PER_CELL = len(TYPES), 500, 6, 60, 10, 450.0
FEWEST_CELLS = 6

# the order of all draws decides the files
rng = np.random.default_rng(SEED)


def make_profiles():
    base = rng.normal(0, 1.5, N_GENES) + 0.6 * rng.standard_t(4, N_GENES)
    lineages = {name: rng.normal(0, 0.35, N_GENES) for name in "LMS"}
    t_cell = rng.normal(0, 0.30, N_GENES)
    log = np.zeros((N_TYPES, N_GENES))
    for k, name in enumerate(TYPES):
        log[k] = base + lineages[LINEAGE[k]] + rng.normal(0, OWN_SD[k], N_GENES)
        if name in ("CD4_T", "CD8_T"):
            log[k] += t_cell
        if name == "NK":
            log[k] += 0.5 * t_cell
        markers = rng.choice(N_GENES, N_MARKERS[k], replace=False)
        log[k, markers] += rng.uniform(1, 3.5, N_MARKERS[k])
    for names, n in SHARED_MARKERS:
        markers, up = rng.choice(N_GENES, n, replace=False), rng.uniform(1, 3, n)
        for name in names:
            log[TYPES.index(name), markers] += up
    profiles = np.exp(log)
    return profiles / profiles.sum(1, keepdims=True)


def draw_donor(profiles):
    own = profiles * np.exp(rng.normal(0, 0.2, N_GENES)[None] + rng.normal(0, 0.15, (N_TYPES, N_GENES)))
    return own / own.sum(1, keepdims=True)


def draw_cells(profiles, dispersion):
    """Return counts, donors and types of the cells, the profiles of each donor and its shares of cells."""
    counts, types, donors, own, shares = [], [], [], [], []
    for donor in range(N_DONORS):
        own.append(draw_donor(profiles))
        free = N_CELLS_PER_DONOR - FEWEST_CELLS * N_TYPES
        n_cells = FEWEST_CELLS + rng.multinomial(free, rng.dirichlet([1.2, 1.5, 1.2, 0.9, 0.7, 0.9]))
        kind = rng.permutation(np.repeat(np.arange(N_TYPES), n_cells))
        shares.append(n_cells / n_cells.sum())
        depth = COUNTS_PER_CELL * np.exp(rng.normal(0, 0.25)) * RNA_PER_CELL[kind]
        depth = depth * np.exp(rng.normal(0, 0.35, N_CELLS_PER_DONOR))
        mean = depth[:, None] * own[-1][kind]
        counts.append(rng.poisson(mean * rng.gamma(1 / dispersion, dispersion, size=mean.shape)))
        types += [TYPES[k] for k in kind]
        donors += [f"D{donor}"] * N_CELLS_PER_DONOR
    return np.vstack(counts), np.array(donors), np.array(types), own, np.array(shares)


def draw_bulk(fractions, profiles, platform):
    depth = 8e5 * np.exp(rng.normal(0, 0.4))
    mean = (fractions * RNA_PER_CELL * np.exp(rng.normal(0, 0.08, N_TYPES))) @ profiles * platform
    mean = mean / mean.sum() * depth
    return rng.poisson(mean * rng.gamma(100, 0.01, N_GENES))


def draw_fractions():
    fractions = rng.dirichlet([1.3, 1.6, 1.2, 0.9, 0.6, 1.4], N_BULK)
    fractions[3, TYPES.index("NK")] = 0
    fractions /= fractions.sum(1, keepdims=True)
    fractions = fractions.round(6)
    fractions[:, 0] += 1 - fractions.sum(1)
    return fractions


def write_gzip(table, path):
    with (
        path.open("wb") as handle,
        gzip.GzipFile(filename="", mode="wb", fileobj=handle, mtime=0, compresslevel=9) as file,
    ):
        file.write(table.to_csv().encode())


def main(folder):
    profiles = make_profiles()
    dispersion = np.exp(rng.normal(np.log(0.25), 0.5, N_GENES))
    genes = [f"G{i:03d}" for i in range(N_GENES)]
    counts, donors, types, own, pairs_fractions = draw_cells(profiles, dispersion)
    order = rng.permutation(len(counts))
    counts = counts[order]
    names = [f"c{i:03d}" for i in range(len(counts))]
    cells = pd.DataFrame({"cell": names, "donor": donors[order], "cell_type": types[order]})
    platform = np.exp(rng.normal(0, 0.4, N_GENES))
    fractions = draw_fractions()
    bulk = np.array([draw_bulk(row, draw_donor(profiles), platform) for row in fractions])
    pairs_bulk = np.array([draw_bulk(*pair, platform) for pair in zip(pairs_fractions, own, strict=True)])

    samples, pairs = [f"S{i:02d}" for i in range(N_BULK)], [f"D{i}" for i in range(N_DONORS)]
    write_gzip(pd.DataFrame(bulk, samples, genes).rename_axis("sample"), folder / "bulk.csv.gz")
    write_gzip(pd.DataFrame(pairs_bulk, pairs, genes).rename_axis("sample"), folder / "pairs_bulk.csv.gz")
    for table, index, name, digits in (
        (fractions, samples, "truth.csv", "%.6f"),
        (pairs_fractions, pairs, "pairs_truth.csv", "%.10g"),
    ):
        pd.DataFrame(table, index, TYPES).rename_axis("sample").to_csv(folder / name, float_format=digits)
    state, total = cells["cell_type"].to_numpy(object).copy(), counts.sum(1)
    for name in ("Mono", "Epithelial"):  # two states each: more counts than the median, or not
        mine = cells["cell_type"].to_numpy() == name
        state[mine] = np.where(total[mine] > np.median(total[mine]), f"{name}_high", f"{name}_low")
    cells["cell_state"] = state
    cells.to_csv(folder / "cells.csv", index=False)
    assert counts.max() < 65536
    # compressed CSR: data, indices, indptr, shape, format (scipy.sparse.load_npz)
    sp.save_npz(folder / "sc.npz", sp.csr_matrix(counts.astype(np.uint16)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
