"""Compare methods on bulk with measured fractions and nothing else; write docs/benchmarks/without_reference.md."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import pandas as pd
from report import PAGES, markdown_table, mean_and_range, provenance, use_shared_data, write_page

from scdeconv import pp, tl

if TYPE_CHECKING:
    from mudata import MuData

N_FOLDS = 5
DATA = {
    "whole blood, 24 arrays, blood count": ("wholeblood_gse20300_array_cbc", "array"),
    "PBMC, 20 arrays of 511 genes, flow cytometry": ("pbmc_cbs20_array_flow", "array"),
    "retina, 14 samples, nuclei": ("retina_paired", None),
}
GENES_PER_TYPE = (20, 50, 150, 500)
MEAN = "mean composition"


def labelled_methods(n_types: int, n_genes: int) -> dict[str, dict[str, object]]:
    """Return the compared methods: all that need no reference, and ridge with other numbers of genes."""
    methods: dict[str, dict[str, object]] = {name: {"method": name} for name in ("ensemble", "ridge", "simplednn")}
    methods["simplednn, no mixing"] = {"method": "simplednn", "mix": 0}
    for per_type in GENES_PER_TYPE:
        number = min(n_genes, per_type * n_types)
        methods[f"ridge, {per_type} genes per type"] = {"method": "ridge", "n_genes": number}
    return methods | {"ridge, all genes": {"method": "ridge", "n_genes": n_genes}}


def compare(mdata: MuData, seeds: list[int]) -> pd.Series:
    n_types = mdata["bulk"].obsm["measured_fractions"].shape[1]
    rows = []
    # the folds depend on the seed, also for methods without randomness
    for seed in seeds:
        table = tl.benchmark(mdata, labelled_methods(n_types, mdata["bulk"].n_vars), cv=N_FOLDS, seeds=[seed])
        rows.append(table[table["cell_type"] == "all entries"])
    return pd.concat(rows).groupby("method")["rmse"].apply(mean_and_range)


def main(seeds: list[int]) -> None:
    use_shared_data()
    folder = Path(os.environ["SCDECONV_DATA_DIR"])
    columns = {}
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for title, (name, unit) in DATA.items():
            columns[title] = compare(pp.pair(bulk=anndata.read_h5ad(folder / name / "bulk.h5ad"), unit=unit), seeds)
    table = pd.DataFrame(columns)
    first = ["mean_composition", "ensemble", "ridge", "simplednn", "simplednn, no mixing"]
    table = table.loc[[*first, *(name for name in table.index if name.startswith("ridge, "))]]
    names = {"mean_composition": MEAN, "ensemble": "ensemble (default)"}
    parts = [
        "# Bulk with measured fractions and no reference",
        f"RMSE on held-out samples, {N_FOLDS} folds, mean and range over {len(seeds)} choices of the folds. Each data set "
        "is paired without cells and profiles: `pp.pair(bulk=bulk)`. The genes are those with the highest variance over the "
        "training samples of each fold; the measured fractions are not used to select them. The default number is 150 per "
        "cell type.",
        markdown_table(table.rename(index=names).rename_axis("method")),
        "The default weighs ridge and SimpleDNN by their errors on held-out donors inside the training data "
        "({doc}`../methods/weighted_ensemble`). SimpleDNN is trained on mixtures of the training samples ({doc}`learning_curve`). The number of genes changes the "
        "error of ridge less than the choice of the folds on two of the three data sets. Whole blood gains from more genes: "
        'try `tl.tune(mdata, "ridge", {"n_genes": [...]})`.',
        provenance("../shared/data (GSE20300, GSE65133, retina of Guo 2025)", seeds),
    ]
    write_page(PAGES / "without_reference.md", parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    main(parser.parse_args().seeds)
