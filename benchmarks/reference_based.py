"""Evaluate methods without pairs on blood and on cell-line mixtures and write docs/benchmarks/reference_based.md."""

from __future__ import annotations

import argparse
import contextlib
import io
import time
import warnings
from typing import TYPE_CHECKING

import anndata
import pandas as pd
from report import PAGES, ROOT, markdown_table, mean_and_range, provenance, use_shared_data, write_page

from scdeconv import datasets, metrics, pp, tl

if TYPE_CHECKING:
    from mudata import MuData

PARITY = ROOT.parent / "shared" / "parity"
DEFAULT = "robust_nnls"
# outputs of the original programs in ../shared/parity
ORIGINALS = {"MuSiC (original)": "music", "InstaPrism (original)": "instaprism", "Bisque (original)": "bisque"}
ORIGINALS |= {"dtangle (Python port)": "dtangle"}
SHARES_OF_RNA = ("InstaPrism (original)", "dtangle (Python port)")


def blood(name: str) -> tuple[MuData, pd.DataFrame] | None:
    """Return bulk (TPM) with cells of other donors, and the fractions from flow cytometry; None if the data are missing."""
    if not (PARITY / name).exists():
        return None
    cells, bulk = (anndata.read_h5ad(PARITY / name / f"{side}.h5ad") for side in ("sc", "bulk"))
    truth = pd.read_csv(PARITY / name / "truth.csv", index_col=0)
    return pp.pair(cells, bulk, layer="tpm" if "tpm" in bulk.layers else None), truth


def cell_lines() -> tuple[MuData, pd.DataFrame]:
    """Return mixtures of three cell lines with single cells of five lines, and the known shares of the mixtures."""
    cells, mixtures = datasets.cell_line_mixtures()
    truth = mixtures.obsm.pop("measured_fractions")
    return pp.pair(cells, mixtures), truth.reindex(columns=cells.obs["cell_type"].cat.categories, fill_value=0.0)


def as_cells(shares: pd.DataFrame, mdata: MuData) -> pd.DataFrame:
    """Convert shares of RNA to shares of cells with the UMIs per cell, as tl.convert_fractions does."""
    sizes = mdata["profiles"].obs.set_index("cell_type")["cell_size_umi"]
    cells = shares / sizes[shares.columns]
    return cells.div(cells.sum(axis=1), axis=0)


def score(measured: pd.DataFrame, predicted: pd.DataFrame) -> dict[str, float]:
    predicted = predicted.loc[measured.index, measured.columns]
    correlation = metrics.table(measured, predicted)["pearson"]
    return {
        "RMSE": metrics.rmse(measured, predicted),
        "CCC": metrics.ccc(measured, predicted),
        "r per type": correlation["mean of types"],
    }


def compare(mdata: MuData, measured: pd.DataFrame, seeds: list[int]) -> pd.DataFrame:
    """Train and predict with every method that needs no pairs."""
    rows, markers = [], mdata.copy()
    pp.select_genes(markers)
    for name, record in tl.methods().iterrows():
        if record["family"] == "paired" or name == "simulation_ridge":
            continue
        for seed in seeds if record["stochastic"] else seeds[:1]:
            start = time.perf_counter()
            # Scaden's rule keeps all variable genes, and training would take hours
            data = markers if record["family"] == "simulated" else mdata
            predicted = tl.train(data, name, **({"seed": seed} if record["stochastic"] else {})).predict(mdata["bulk"])
            seconds = time.perf_counter() - start
            if record["fraction_kind"] == "rna":
                predicted = as_cells(predicted, mdata)
            label = f"{name} (default)" if name == DEFAULT else name
            rows.append({"method": label, **score(measured, predicted), "seconds": seconds})
    return pd.DataFrame(rows)


def references(mdata: MuData, measured: pd.DataFrame, folder: str | None) -> list[dict[str, object]]:
    """Score the mean of the true fractions and, for blood, the output of the original programs for the same input."""
    constant = measured.copy()
    constant.loc[:] = measured.mean().to_numpy()
    rows = [{"method": "mean composition, in hindsight", **score(measured, constant)}]
    for label, file in ORIGINALS.items() if folder else ():
        predicted = pd.read_csv(PARITY / folder / "original" / f"{file}.csv", index_col=0)
        predicted = as_cells(predicted, mdata) if label in SHARES_OF_RNA else predicted
        rows.append({"method": label, **score(measured, predicted)})
    return rows


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    by_method = table.groupby("method")
    columns = {name: by_method[name].apply(mean_and_range, digits=3) for name in ("RMSE", "CCC", "r per type")}
    columns["seconds"] = by_method["seconds"].mean().map("{:.2f}".format).replace("nan", "–")
    return pd.DataFrame(columns).loc[by_method["RMSE"].mean().sort_values().index]


def main(seeds: list[int]) -> None:
    use_shared_data()
    tasks = {
        "Finotello: 8 samples, 7 types": ("finotello", "flow cytometry of the same blood; profiles of Hao et al. 2021"),
        "Hoek: 8 samples of 2 donors, 5 types": (
            "hoek",
            "flow cytometry of the same blood; profiles of Hao et al. 2021",
        ),
        "Cell lines: 136 mixtures of 3 lines, profiles of 5": (None, "known by design"),
    }
    parts = [
        "# Methods that need no pairs",
        "Real bulk with known composition from another measurement. The fractions are estimated with single cells of other "
        "donors. The methods do not use the true fractions. Each method runs with its defaults, except that Scaden uses the 50 "
        "markers per type of NNLS. Shares of RNA are converted to shares of cells with the UMIs per cell. Seconds are the time of "
        "training and prediction. For the samples of Finotello, the original programs used counts and our methods used TPM. The "
        "two constants of the default (tail and number of genes) were chosen on three data sets, so its errors here are slightly "
        "too small.",
    ]
    for title, (folder, source) in tasks.items():
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            task = cell_lines() if folder is None else blood(folder)
            if task is not None:
                mdata, measured = task
                table = pd.concat([compare(mdata, measured, seeds), pd.DataFrame(references(mdata, measured, folder))])
        parts.append(f"## {title}")
        parts.append(
            "Not measured: the data were not available."
            if task is None
            else f"Truth: {source}.\n\n{markdown_table(summarise(table))}"
        )
    parts.append(provenance("../shared/parity (Finotello 2019, Hoek 2015, Hao 2021); sc_mixology, cellmix 1–4", seeds))
    write_page(PAGES / "reference_based.md", parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    main(parser.parse_args().seeds)
