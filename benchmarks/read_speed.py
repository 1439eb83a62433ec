"""Compare the time of read_bulk with pandas.read_csv on the same files, and write docs/benchmarks/read_speed.md."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from held_out_donors import quietly
from report import PAGES, markdown_table, provenance, write_page

from scdeconv import read_bulk

if TYPE_CHECKING:
    from collections.abc import Callable


def shortest(function: Callable[[Path], object], path: Path, repeats: int) -> float:
    """Return the shortest time of several runs in CPU-seconds."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        quietly(function, path)
        times.append(time.process_time() - start)
    return min(times)


def main(n_samples: int, n_genes: int, repeats: int, output: Path) -> None:
    rng = np.random.default_rng(0)
    counts = rng.negative_binomial(0.5, 0.002, (n_genes, n_samples))
    genes, samples = [f"GENE{i}" for i in range(n_genes)], [f"S{i}" for i in range(n_samples)]
    values = {"counts": counts, "TPM, three decimals": np.round(counts / counts.sum(axis=0) * 1e6, 3)}
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for unit, matrix in values.items():
            table = pd.DataFrame(matrix, genes, samples)
            for orientation, turned in (("genes in rows", table), ("samples in rows", table.T)):
                path = Path(folder, "bulk.csv")
                turned.to_csv(path, index_label="gene" if turned is table else "sample")
                ours, pandas = (shortest(function, path, repeats) for function in (read_bulk, pd.read_csv))
                rows[f"{unit}, {orientation}"] = {
                    "read_bulk, s": f"{ours:.2f}",
                    "pandas.read_csv, s": f"{pandas:.2f}",
                    "ratio": f"{ours / pandas:.1f}",
                }
    parts = [
        "# Speed of reading tables",
        f"CSV files of {n_samples:,} samples × {n_genes:,} genes, in either orientation. CPU-seconds, the shortest of "
        f"{repeats} runs. `read_bulk` detects header, notation of the numbers and role of every column, and returns an "
        "`AnnData`. `pandas.read_csv` only parses the file.",
        markdown_table(pd.DataFrame(rows).T.rename_axis("file")),
        provenance("generated in the script", [0]),
    ]
    write_page(output, parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=PAGES / "read_speed.md")
    arguments = parser.parse_args()
    main(arguments.samples, arguments.genes, arguments.repeats, arguments.output)
