"""Reading and checking of the inputs of :func:`scdeconv.pp.constraints`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from mudata import MuData

from scdeconv._data.annotated import make_adata
from scdeconv._data.checks import (
    Problems,
    check_cell_type_names,
    check_expression,
    check_names,
    check_spellings,
    examples,
)
from scdeconv._data.gene_names import Genes, strip_versions, why_few_shared
from scdeconv._data.labels import as_labels, is_missing
from scdeconv._data.matrix import get_matrix
from scdeconv._data.warnings import warn

from .constraints import Constraints

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from scdeconv._data.matrix import Matrix

KINDS = ("must_link", "cannot_link")


def read_cells(problems: Problems, cells: AnnData | MuData, rna: str) -> tuple[AnnData, str]:
    """Return the cells to constrain and their name in messages."""
    if isinstance(cells, MuData):
        if rna in cells.mod:
            return cells[rna], f"cells[{rna!r}]"
        problems.add(
            f"Expected modality {rna!r} in cells, found {examples(cells.mod, n=10)}. Pass the RNA modality as rna=."
        )
    return cells, "cells"


def read_pairs(
    problems: Problems, pairs: pd.DataFrame | Mapping[str, Sequence[tuple[str, str]]], cells: pd.Index, name: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return positions of the cells, pairs × 2, and the mask of must-links."""
    if isinstance(pairs, pd.DataFrame):
        if missing := [column for column in ("first", "second", "link") if column not in pairs]:
            problems.add(
                f"Expected the columns 'first', 'second' and 'link' in pairs, found {list(pairs)}. "
                f"Add {examples(missing)}."
            )
            return None
        pairs = {
            str(kind): list(zip(rows["first"], rows["second"], strict=True))
            for kind, rows in pairs.groupby("link", observed=True, sort=False, dropna=False)
        }
    if unknown := [kind for kind in pairs if kind not in KINDS]:
        problems.add(
            f"Expected the links 'must_link' and 'cannot_link' in pairs, found {examples(unknown)}. Rename them."
        )
        return None
    links = [(pair, kind == "must_link") for kind in pairs for pair in pairs[kind]]
    odd = [pair for pair, _ in links if not (isinstance(pair, (tuple, list, np.ndarray)) and len(pair) == 2)]
    if odd or not links:
        others = f"{len(odd)} others: {examples(odd)}" if odd else "none"
        problems.add(f"Expected tuples of two cells in pairs, found {others}. Pass names of {name}.obs_names.")
        return None
    names = np.array([[str(cell) for cell in pair] for pair, _ in links], dtype=object)
    must = np.array([together for _, together in links])
    found = cells.get_indexer(pd.Index(names.ravel())).reshape(-1, 2)
    if (found < 0).any():
        strangers = pd.unique(names[found < 0])
        problems.add(
            f"Expected cells of {name} in pairs, found {len(strangers)} others: {examples(strangers)}. "
            f"Pass names of {name}.obs_names, such as {examples(cells)}."
        )
        return None
    alone = found[:, 0] == found[:, 1]
    if alone.any():
        problems.add(
            f"Expected two different cells in each of pairs, found {int(alone.sum())} pairs with the same cell twice: "
            f"{examples(names[alone, 0])}. Remove these pairs."
        )
    contradictions = Constraints(cells, found[must], found[~must]).contradictions
    if len(contradictions):
        apart = [f"{first} and {second}" for first, second in contradictions.itertuples(index=False)]
        problems.add(
            f"Expected consistent pairs, found {len(apart)} cannot-links between cells of one must-link group: "
            f"{examples(apart)}. Remove these cannot-links or the must-links that join the cells."
        )
    return found, must


def read_labels(problems: Problems, adata: AnnData, name: str, labels_key: str) -> np.ndarray | None:
    """Return the label code of each cell, -1 for cells without label."""
    if labels_key not in adata.obs:
        problems.add(
            f"Expected obs[{labels_key!r}] in {name}, found columns {list(adata.obs)}. Pass one of them as labels_key=."
        )
        return None
    given = as_labels(adata.obs[labels_key])
    codes, labels = pd.factorize(given.mask(is_missing(given)))
    check_spellings(problems, labels, f"{name}.obs[{labels_key!r}]", "label")
    if len(labels) < 2:
        found = f"only {examples(labels)} ({int((codes == 0).sum())} cells)" if len(labels) else "no labelled cell"
        problems.add(
            f"Expected cells of at least two labels in {name}.obs[{labels_key!r}], found {found}. "
            "Label some cells of at least two types and set all other cells to NaN."
        )
    return codes


def read_markers(
    problems: Problems, adata: AnnData, name: str, markers: Mapping[str, Sequence[str]], layer: str | None
) -> tuple[Matrix, list[np.ndarray]] | None:
    """Return the counts and the marker columns of each type."""
    if len(markers) < 2:
        problems.add(
            f"Expected markers of at least two cell types, found {len(markers)} types. Pass {{cell type: [gene, ...], ...}}."
        )
        return None
    matrix = get_matrix(adata, layer if layer in adata.layers else None, name)
    genes = strip_versions(adata.var_names)
    before = len(problems.messages)
    check_cell_type_names(problems, markers, "markers")
    check_names(problems, pd.Index([]), genes, name)
    check_expression(problems, adata, matrix, name, logged="log1p" in adata.uns and layer not in adata.layers)
    wanted = {
        cell_type: strip_versions(pd.Index(list(names), dtype=object)).unique() for cell_type, names in markers.items()
    }
    missing = {cell_type: names[~names.isin(genes)] for cell_type, names in wanted.items()}
    if without := [cell_type for cell_type, names in wanted.items() if len(missing[cell_type]) == len(names)]:
        absent = [gene for cell_type in without for gene in missing[cell_type]]
        problems.add(
            f"Expected markers of every type among the genes of {name}, found none for {examples(without)}: missing "
            f"{examples(absent)}, the genes are {examples(genes)}. {_why_missing(absent, adata, genes, name)} Or omit the "
            "type."
        )
    if len(problems.messages) > before:
        return None
    if absent := [gene for names in missing.values() for gene in names]:
        warn(
            f"{len(absent)} of {sum(map(len, wanted.values()))} markers are not among the genes of {name}: "
            f"{examples(absent)}. The remaining markers are used."
        )
    columns = [genes.get_indexer(names.drop(missing[cell_type])) for cell_type, names in wanted.items()]
    return matrix, columns


def _why_missing(absent: list[str], adata: AnnData, genes: pd.Index, name: str) -> str:
    markers = pd.Index(absent)
    return why_few_shared(
        Genes(name, genes, adata), Genes("markers", markers, make_adata(var=pd.DataFrame(index=markers.unique())))
    )


def read_protein(
    problems: Problems, cells: AnnData | MuData, protein: str, names: pd.Index, layer: str | None
) -> tuple[Matrix, np.ndarray] | None:
    """Return the protein counts of the cells with protein, and their positions in ``names``."""
    if not isinstance(cells, MuData):
        problems.add(
            "Expected cells as MuData with protein=, found AnnData. Join cells and proteins: "
            f"mudata.MuData({{'rna': cells, {protein!r}: proteins}})."
        )
        return None
    if protein not in cells.mod:
        problems.add(
            f"Expected modality {protein!r} in cells, found {examples(cells.mod, n=10)}. "
            "Pass the protein modality as protein=."
        )
        return None
    adata, name = cells[protein], f"cells[{protein!r}]"
    before = len(problems.messages)
    check_names(problems, adata.obs_names, pd.Index([]), name)
    matrix = get_matrix(adata, layer if layer in adata.layers else None, name)
    check_expression(problems, adata, matrix, name, logged="log1p" in adata.uns and layer not in adata.layers)
    if adata.n_vars < 2:
        problems.add(
            f"Expected at least two proteins in {name}, found {adata.n_vars}. Add proteins: levels are log-ratios."
        )
    if len(problems.messages) > before:
        return None
    positions = names.get_indexer(adata.obs_names)
    if (positions >= 0).sum() < 2:
        problems.add(
            f"Expected at least two cells with RNA and protein, found {int((positions >= 0).sum())}: {name} has "
            f"{examples(adata.obs_names)}, the cells are {examples(names)}. Use the same cell names in both."
        )
        return None
    return matrix[positions >= 0], positions[positions >= 0]
