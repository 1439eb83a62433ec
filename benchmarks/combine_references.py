"""Compare single references with their combination and write docs/benchmarks/combine_references.md."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import pandas as pd
from report import PAGES, markdown_table, provenance, use_shared_data, write_page

from scdeconv import metrics, pp, tl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

METHODS = ("robust_nnls", "nnls", "dwls", "music")
# types of Hao et al. and of Kang et al. in the words of the flow cytometry
HAO = {
    "Monocytes": "Monocytes",
    "B cells": "B cells",
    "NK cells": "NK cells",
    "T cells CD8": "T cells CD8",
    "T cells CD4 conv": "T cells CD4",
    "Tregs": "T cells CD4",
    "mDC": "mDC",
}
KANG = {
    "CD14+ Monocytes": "Monocytes",
    "FCGR3A+ Monocytes": "Monocytes",
    "B cells": "B cells",
    "CD8 T cells": "T cells CD8",
    "CD4 T cells": "T cells CD4",
}
FINOTELLO = {"T cells CD4 conv": "T cells CD4", "Tregs": "T cells CD4"}
# the truth of Hoek et al. has one type of T cells
HOEK = {"T cells CD8": "T", "T cells CD4": "T", "Monocytes": "Mono", "B cells": "B", "NK cells": "NK", "mDC": "DC"}
TEXT = (
    "RMSE of methods without pairs with one reference, with another one, and with both combined by "
    "`pp.combine_references`. The estimates and the measured fractions are compared as shares of the "
    "measured types that the reference has, so only rows with the same number of types are comparable. "
    '"Gene shifts removed" is the default, "as they are" is `by_gene=False` (only the depth is matched).\n\n'
    "A second reference helps if it has a type that the first one lacks and most of its genes: with neutrophils "
    "of sorted cells (6,520 shared genes), the error of `robust_nnls` decreases from 0.052 to 0.044. It does harm "
    "if it has few genes: Kang et al. shares 363 genes with Hao et al., and the error from the lost genes is "
    "larger than the gain from more cells. With the same 363 genes, both together are better for `robust_nnls` "
    "than Hao et al. alone in the samples of Hoek, but not in those of Finotello. On the retina, two sets of "
    "profiles of the same kind together are about as good as the better one. Removing the gene shifts lowers the "
    "error of `robust_nnls` with the cells of Hao and Kang; with the sorted neutrophils, with plain `nnls` and on "
    "the retina it does not."
)


def read(*parts: str) -> AnnData:
    return anndata.read_h5ad(Path(os.environ["SCDECONV_DATA_DIR"]).joinpath(*parts))


def cells_with(cells: AnnData, types: Mapping[str, str]) -> AnnData:
    """Return the cells of the given types, renamed."""
    cells = cells[cells.obs["cell_type"].isin(list(types))].copy()
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(str).map(dict(types)).astype("category")
    # a lane of Hao et al. has cells of several donors; the donor is not known for most cells
    if "lane" in cells.obs:
        cells.obs["donor"] = cells.obs["lane"].astype(str)
    return cells


def summed(table: pd.DataFrame, groups: Mapping[str, str]) -> pd.DataFrame:
    return table.rename(columns=dict(groups)).T.groupby(level=0).sum().T


def blood() -> dict[str, tuple[AnnData, pd.DataFrame, str | None]]:
    """Return bulk, measured shares of the types that the first reference has, and the layer with counts or TPM."""
    finotello, hoek = read("pbmc_finotello_flow", "bulk.h5ad"), read("pbmc_hoek_flow", "bulk_tpm.h5ad")
    first = summed(finotello.obsm.pop("measured_fractions"), FINOTELLO)[list(dict.fromkeys(HAO.values()))]
    second = hoek.obsm.pop("measured_fractions")
    return {"Finotello": (finotello, first, "tpm"), "Hoek": (hoek, second, None)}


def score(measured: pd.DataFrame, predicted: pd.DataFrame) -> float:
    """Return the RMSE over the measured types that the estimate has, both divided by their sums."""
    types = [name for name in measured if name in predicted]
    sides = (table[types].div(table[types].sum(axis=1), axis=0) for table in (measured, predicted))
    return metrics.rmse(*sides)


def estimates(cells: AnnData, bulk: AnnData, layer: str | None) -> dict[str, pd.DataFrame]:
    mdata = pp.pair(cells, bulk, layer=layer)
    return {name: tl.train(mdata, name).predict(mdata["bulk"]) for name in METHODS}


def compare_blood() -> list[str]:
    hao, kang = cells_with(read("pbmc_hao_ref", "cells_1336.h5ad"), HAO), read("refs_small", "pbmc_kang.h5ad")
    kang = cells_with(kang[kang.obs["group_id"] == "ctrl"], KANG)
    both = hao.var_names.intersection(kang.var_names)
    references = {
        f"Hao, {hao.n_vars} genes": hao,
        f"Hao, {len(both)} shared genes": hao[:, both].copy(),
        f"Kang, {kang.n_vars} genes": kang,
        f"Kang, {len(both)} shared genes": kang[:, both].copy(),
        "both, as they are": pp.combine_references([hao, kang], by_gene=False),
        "both, gene shifts removed": pp.combine_references([hao, kang]),
    }
    fewer = hao[~hao.obs["cell_type"].isin(["B cells"])].copy()
    for label, by_gene in (("as they are", False), ("gene shifts removed", True)):
        references[f"B cells from Kang, {label}"] = pp.combine_references([fewer, kang], by_gene=by_gene)
    parts = []
    for title, (bulk, measured, layer) in blood().items():
        rows = {}
        for label, cells in references.items():
            found = estimates(cells, bulk, layer)
            if title == "Hoek":
                found = {name: summed(table, HOEK) for name, table in found.items()}
            n_types = len([name for name in measured if name in found[METHODS[0]]])
            types = [name for name in measured if name in found[METHODS[0]]]
            true = measured[types].div(measured[types].sum(axis=1), axis=0)
            constant = pd.DataFrame([true.mean()] * len(true), index=true.index)
            rows[label] = {"types": n_types} | {name: score(measured, table) for name, table in found.items()}
            rows[label]["mean composition, in hindsight"] = metrics.rmse(true, constant)
        parts += [f"## {title}: {len(measured)} samples of blood", table_of(rows)]
    return parts


def compare_retina() -> list[str]:
    bulk = read("retina_paired", "bulk.h5ad")
    measured = bulk.obsm.pop("measured_fractions")
    first, second = (read("retina_paired", f"reference_means_batch{batch}.h5ad") for batch in (1, 2))
    references = {
        "batch 1": first,
        "batch 2": second,
        "both, as they are": pp.combine_references([first, second], by_gene=False),
        "both, gene shifts removed": pp.combine_references([first, second]),
    }
    constant = pd.DataFrame([measured.mean()] * len(measured), index=measured.index)
    rows = {}
    for label, profiles in references.items():
        mdata = pp.pair(bulk=bulk, profiles=profiles)
        methods = [name for name in METHODS if name != "music"]
        found = {name: tl.train(mdata, name).predict(mdata["bulk"]) for name in methods}
        rows[label] = {"types": measured.shape[1]} | {name: score(measured, table) for name, table in found.items()}
        rows[label]["mean composition, in hindsight"] = metrics.rmse(measured, constant)
    return [f"## Retina: {len(measured)} samples, two sets of profiles (nuclei)", table_of(rows)]


def compare_neutrophils() -> list[str]:
    """Add the neutrophils of sorted cells, which Hao et al. lack, to the samples of Finotello et al."""
    hao = cells_with(read("pbmc_hao_ref", "cells_1336.h5ad"), HAO)
    sorted_means = read("wholeblood_linsley_cbc", "sorted_means.h5ad")[["Monocytes", "Neutrophils"]].copy()
    bulk = read("pbmc_finotello_flow", "bulk.h5ad")
    types = [*dict.fromkeys(HAO.values()), "Neutrophils"]
    measured = summed(bulk.obsm.pop("measured_fractions"), FINOTELLO)[types]
    measured = measured.div(measured.sum(axis=1), axis=0)
    both = hao.var_names.intersection(sorted_means.var_names)
    references = {
        f"Hao, {hao.n_vars} genes, no neutrophils": {"cells": hao},
        f"Hao, {len(both)} shared genes, no neutrophils": {"cells": hao[:, both].copy()},
        "with sorted neutrophils, as they are": {"profiles": pp.combine_references([hao, sorted_means], by_gene=False)},
        "with sorted neutrophils, gene shifts removed": {"profiles": pp.combine_references([hao, sorted_means])},
    }
    constant = pd.DataFrame([measured.mean()] * len(measured), index=measured.index)
    rows = {}
    for label, reference in references.items():
        mdata = pp.pair(bulk=bulk, layer="tpm", **reference)
        methods = [name for name in METHODS if name != "music"]
        found = {name: tl.train(mdata, name).predict(mdata["bulk"]) for name in methods}
        filled = {name: table.reindex(columns=types, fill_value=0.0) for name, table in found.items()}
        rows[label] = {"types": found["nnls"].shape[1]}
        rows[label] |= {name: metrics.rmse(measured, table) for name, table in filled.items()}
        rows[label]["mean composition, in hindsight"] = metrics.rmse(measured, constant)
    return ["## A type that only the second reference has: neutrophils in the samples of Finotello", table_of(rows)]


def table_of(rows: dict[str, dict[str, float]]) -> str:
    table = pd.DataFrame(rows).T.rename_axis("reference")
    types = table.pop("types").astype(int)
    shown = table.map("{:.3f}".format)
    shown.insert(0, "types", types)
    return markdown_table(shown)


def main() -> None:
    use_shared_data()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tables = [*compare_blood(), *compare_neutrophils(), *compare_retina()]
    parts = ["# Combined references", TEXT, *tables]
    source = "../shared/data (Hao 2021, Kang 2018, Finotello 2019, Hoek 2015, retina of Guo 2025)"
    write_page(PAGES / "combine_references.md", [*parts, provenance(source, [0])])


if __name__ == "__main__":
    main()
