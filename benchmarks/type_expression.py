"""Expression of each cell type in single samples against the true one; write docs/benchmarks/type_expression.md."""

from __future__ import annotations

import argparse
import contextlib
import io
import warnings

import numpy as np
import pandas as pd
from generated_groups import Generated, generate
from report import PAGES, markdown_table, mean_and_range, provenance, write_page

from scdeconv import tl

WAYS = {"calibrated_map": "CalibratedMAP", "bayesprism": "BayesPrism", "profile": "profile, the same in all samples"}
PARTS = {"above 50 %": (0.5, 1.01), "10 to 50 %": (0.1, 0.5), "below 10 %": (0.0, 0.1)}


def expressions(data: Generated, method: str) -> np.ndarray:
    """Return log shares of the genes in the RNA of each type, types × samples × genes of the calibrated model."""
    genes = data.bulk.var_names.get_indexer(data.model.genes_)
    types = data.bulk.uns["cohort"]["cell_types"]
    if method == "truth":
        values = data.rna.transpose(1, 0, 2)[:, :, genes]
    elif method == "profile":
        profiles = data.mdata["profiles"][types, data.model.genes_].X
        values = np.repeat(np.asarray(profiles)[:, None, :], data.bulk.n_obs, axis=1)
    else:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arguments = {"outlier_share": 1} if method == "bayesprism" else {}
            model = data.model if method == "calibrated_map" else tl.train(data.mdata, method, **arguments)
            tl.expression(data.bulk, model)
        values = np.stack([data.bulk.layers[f"expression_{name}"][:, genes].astype(float) for name in types])
    values = np.maximum(values, 1e-12 * values.sum(axis=2, keepdims=True))
    return np.log(values / values.sum(axis=2, keepdims=True))


def compare(data: Generated, seed: int) -> pd.DataFrame:
    """Return correlation over samples and SD of the error of each gene, type and way."""
    truth = expressions(data, "truth")
    genes = data.bulk.var_names.get_indexer(data.model.genes_)
    parts = (data.rna / data.rna.sum(axis=1, keepdims=True)).mean(axis=0)[:, genes]
    tables = []
    for method, way in WAYS.items():
        estimate = expressions(data, method)
        centred = [values - values.mean(axis=1, keepdims=True) for values in (estimate, truth)]
        sizes = [np.sqrt((values**2).sum(axis=1)) for values in centred]
        with np.errstate(invalid="ignore"):
            correlation = (centred[0] * centred[1]).sum(axis=1) / (sizes[0] * sizes[1])
        error = (centred[0] - centred[1]).std(axis=1)
        for kind, name in enumerate(data.bulk.uns["cohort"]["cell_types"]):
            table = pd.DataFrame({"correlation": correlation[kind], "error": error[kind], "part": parts[kind]})
            tables.append(table.assign(type=name, way=way, seed=seed))
    return pd.concat(tables, ignore_index=True)


def medians(table: pd.DataFrame, value: str, by: str) -> pd.DataFrame:
    """Return the median over genes and types for each seed as mean and range, by group and way."""
    per_seed = table.groupby([by, "way", "seed"], sort=False)[value].median().reset_index()
    cells = per_seed.groupby([by, "way"], sort=False)[value].agg(lambda values: mean_and_range(values, 2)).unstack()
    ways = [way for way in WAYS.values() if value == "error" or way != WAYS["profile"]]
    return cells[ways].rename_axis(None, axis=1)


def main(seeds: list[int], pairs: list[int]) -> None:
    main_pairs = 24 if 24 in pairs else pairs[-1]
    tables = []
    for n_pairs in pairs:
        for seed in seeds:
            data = generate(40, seed, n_genes=1000, n_pairs=n_pairs, share=0.0, cells_per_donor=(300, 800))
            tables.append(compare(data, seed).assign(pairs=n_pairs))
            print(n_pairs, seed, flush=True)
    every = pd.concat(tables, ignore_index=True)
    shown = every[every["pairs"] == main_pairs].copy()
    shown["share of the reads"] = [
        next(name for name, (low, high) in PARTS.items() if low <= value < high) for value in shown["part"]
    ]
    shown = shown.sort_values("part", ascending=False, kind="stable")
    by_part = medians(shown, "correlation", "share of the reads").loc[list(PARTS)]
    text = PAGE.format(
        main_pairs=main_pairs,
        by_type=markdown_table(medians(every[every["pairs"] == main_pairs], "correlation", "type").rename_axis("type")),
        errors=markdown_table(medians(every[every["pairs"] == main_pairs], "error", "type").rename_axis("type")),
        by_part=markdown_table(by_part),
        errors_by_part=markdown_table(medians(shown, "error", "share of the reads").loc[list(PARTS)]),
        by_pairs=markdown_table(medians(every, "correlation", "pairs").rename_axis("pairs")),
        errors_by_pairs=markdown_table(medians(every, "error", "pairs").rename_axis("pairs")),
    )
    write_page(PAGES / "type_expression.md", [text, provenance("generated cohorts", seeds)])


PAGE = """# Expression of cell types in single samples

{{func}}`~scdeconv.tl.expression` on generated cohorts ({{func}}`~scdeconv.datasets.paired_cohort`): {main_pairs} pairs to train, 40
other donors to test, 1,000 genes of which `calibrated_map` selects its genes. The truth is the RNA of each type in each donor, before
all effects of bulk sequencing. Donors differ in four gene programmes that all types share, and in single genes of each type.
Compared is the log share of a gene in the RNA of the type: its correlation with the truth over donors, median over genes, with mean
and range over seeds.

## By cell type

{by_type}

SD of the error over donors (natural logarithm), median over genes. The profile, which is the same in all samples, is the baseline; a
method with a larger error is worse than no estimate for single samples:

{errors}

## By the share of the type in the reads of the gene

A sample tells the expression of a gene in a type only if the type gives many of its reads.

{by_part}

SD of the error:

{errors_by_part}

## By number of pairs

Correlation, median over genes and types. The covariance of bulk and cells comes from the pairs.

{by_pairs}

SD of the error:

{errors_by_pairs}

## Ideas that were tried

These numbers are from prototypes that were compared before the final version; the script of this page does not compute them. 24
pairs; correlation in the most frequent type and in the mean of the others, and SD of the error in the most frequent type (profile:
0.137):

| idea | correlation | SD of the error |
|---|---|---|
| BayesPrism: all types deviate as bulk does | 0.42, 0.31 | 0.225 |
| the same with profiles and platform shifts of the calibration | 0.42, 0.31 | 0.188 |
| deviation of bulk shrunk by one factor for each gene | 0.42, 0.31 | 0.133 |
| all noise that genes share removed (programmes, too) | 0.42, 0.22 | 0.131 |
| covariance of cells and bulk of the same donors, no deviation of single types | 0.43, 0.42 | 0.128 |
| the same with deviations of single types, their variance from the cells | 0.53, 0.42 | 0.120 |
| the same with the variance of each gene that bulk and cells share (chosen) | 0.54, 0.43 | 0.12 |
| true covariances of the generated cohort (upper limit) | 0.76, 0.73 | 0.091 |
"""

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pairs", type=int, nargs="+", default=[8, 24, 60])
    arguments = parser.parse_args()
    main(arguments.seeds, arguments.pairs)
