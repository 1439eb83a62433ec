"""Write reports of generated fractions in several sizes, and docs/benchmarks/report_page.md with the sizes of the files."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from anndata import AnnData
from report import PAGES, markdown_table, mean_and_range, provenance, write_page

from scdeconv import pl

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZES = [(samples, types) for samples in (2, 30, 300) for types in (2, 8, 25)]
# half-width of the intervals
HALF_WIDTH = 0.05


def make_estimate(n_samples: int, n_types: int, seed: int) -> AnnData:
    """Return random fractions with intervals and flags."""
    rng = np.random.default_rng(seed)
    names = [f"sample_{number:03}" for number in range(n_samples)]
    types = [f"Cell type {number}" for number in range(1, n_types + 1)]
    adata = AnnData(obs=pd.DataFrame(index=names))
    fractions = rng.dirichlet(np.full(n_types, 0.6), n_samples)
    for side, change in (("", 0), ("_lower", -HALF_WIDTH), ("_upper", HALF_WIDTH)):
        adata.obsm[f"fractions{side}"] = pd.DataFrame(np.clip(fractions + change, 0, 1), names, types)
    quality = {"noise": rng.gamma(2, 0.5, n_samples), "outside": rng.random(n_samples) < 0.1}
    adata.obsm["fractions_quality"] = pd.DataFrame(quality, names)
    return adata


def pages_on_paper(html: Path) -> float:
    """Return the number of A4 pages that Chromium prints; NaN without Chromium."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return np.nan
    pdf = html.with_suffix(".pdf")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    profile = f"--user-data-dir={html.parent / 'profile'}"
    subprocess.run([browser, *flags, profile, f"--print-to-pdf={pdf}", html.as_uri()], check=True, capture_output=True)
    return len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes()))


def measure(n_samples: int, n_types: int, seed: int, folder: Path) -> dict[str, float]:
    path = folder / "report.html"
    adata = make_estimate(n_samples, n_types, seed)
    start = time.process_time()
    pl.report(adata, path)
    seconds = time.process_time() - start
    return {"MB": path.stat().st_size / 1e6, "CPU-seconds": seconds, "A4 pages": pages_on_paper(path)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only the smallest sizes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=PAGES / "report_page.md")
    args = parser.parse_args()
    mpl.use("Agg")
    sizes = SIZES[:2] if args.quick else SIZES
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            {"samples": samples, "cell types": types, **measure(samples, types, seed, Path(folder))}
            for samples, types in sizes
            for seed in args.seeds
        ]
    found = pd.DataFrame(rows).groupby(["samples", "cell types"], sort=False)
    digits = {"MB": 2, "CPU-seconds": 1, "A4 pages": 0}
    table = pd.DataFrame(
        {name: found[name].apply(lambda values, n=n: mean_and_range(values, n)) for name, n in digits.items()}
    )
    table = table.reset_index("cell types")
    parts = [
        "# Size of the report",
        provenance("generated fractions with prediction intervals and flags", args.seeds),
        "One HTML file of {func}`scdeconv.pl.report`, with bars, heat map, figure of the intervals, and the table of all "
        "samples. Each figure is SVG or PNG, whichever is smaller. Mean (range) over the seeds.",
        markdown_table(table),
        "The limit was 5 MB for 300 samples with 25 cell types.",
    ]
    write_page(args.output, parts)


if __name__ == "__main__":
    main()
