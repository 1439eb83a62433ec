"""Gene names: versions, identifiers of different kinds, a matrix in a model's gene order, spike-ins."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdeconv._data import keys
from scdeconv._data.annotated import subset
from scdeconv._data.chunks import in_rows
from scdeconv._data.labels import as_text
from scdeconv._data.matrix import Matrix, get_matrix, in_memory, is_lazy, take_columns, to_dense
from scdeconv._data.validation import Problems, check_expression, check_names, examples
from scdeconv._data.warnings import warn

if TYPE_CHECKING:
    from anndata import AnnData

ENSEMBL = r"^ENS[A-Z]*G\d{6,}"
LEAST_SHARE_OF_GENES = 0.5
# the names of the External RNA Controls Consortium, such as ERCC-00002; human genes are ERCC1, ERCC2
SPIKE_IN_PREFIX = "ERCC-"


def strip_versions(names: pd.Index) -> pd.Index:
    """Remove the version of Ensembl identifiers: ``ENSG00000141510.17`` becomes ``ENSG00000141510``."""
    return as_text(names).str.replace(rf"({ENSEMBL})\.\d+$", r"\1", regex=True)


def is_ensembl(names: pd.Index) -> bool:
    """Say whether most names are Ensembl gene identifiers."""
    return bool(len(names)) and float(names.str.match(ENSEMBL).mean()) > 0.5


def columns_that_match(adata: AnnData, names: pd.Index) -> list[str]:
    """Return the columns of ``adata.var`` that hold at least a tenth of the given gene names."""
    var = in_memory(adata.var)
    hits = {column: strip_versions(pd.Index(var[column])).isin(names).mean() for column in var}
    return [column for column, share in hits.items() if share > 0.1]


def sum_duplicates(matrix: Matrix, names: pd.Index) -> tuple[Matrix, pd.Index]:
    """Add up the columns of genes with the same name; the order of first occurrence is kept."""
    codes, unique = pd.factorize(names)
    # numpy's own rule for sums: small integers are added up in large ones
    ones = np.ones(len(names), dtype=np.ones(1, matrix.dtype).sum().dtype)
    members = sp.csr_matrix((ones, (np.arange(len(names)), codes)))
    if is_lazy(matrix):
        matrix = in_rows(matrix)
        summed = matrix.map_blocks(
            operator.matmul, members, dtype=ones.dtype, chunks=(matrix.chunks[0], (len(unique),)), meta=matrix._meta
        )
        return summed, pd.Index(unique)
    return matrix @ members, pd.Index(unique)


def find_genes(adata: AnnData, genes: pd.Index, *, layer: str | None = None) -> tuple[Matrix, np.ndarray]:
    """Find a model's genes by name in expression that it is to read.

    Parameters
    ----------
    adata
        Samples or cells × genes on a linear scale (counts or TPM). Not changed.
    genes
        The model's genes.
    layer
        Layer to read instead of ``X``.

    Returns
    -------
    The matrix as it is, and the column of each of ``genes`` in it, -1 for those that are missing.

    Raises
    ------
    ValueError
        Where values are not expression on a linear scale, or less than half of the genes are there.
    """
    matrix = get_matrix(adata, layer, "adata")
    problems = Problems("adata cannot be predicted")
    names = strip_versions(adata.var_names)
    check_names(problems, adata.obs_names, names, "adata")
    check_expression(problems, adata, matrix, "adata", logged="log1p" in adata.uns and layer is None)
    positions = pd.Series(np.arange(len(names)), index=names)
    positions = positions[~positions.index.duplicated()].reindex(genes, fill_value=-1)
    missing = genes[positions < 0]
    share = 1 - len(missing) / max(len(genes), 1)
    if share < LEAST_SHARE_OF_GENES:
        message = (
            f"Expected at least half of the model's {len(genes)} genes in adata, found {len(genes) - len(missing)} "
            f"({share:.0%}). The model knows {examples(genes)}; adata has {examples(names)}. "
        )
        columns = columns_that_match(adata, genes)
        if columns:
            message += f"Set adata.var_names = adata.var[{columns[0]!r}]."
        elif pd.Index(adata.obs_names).isin(genes).mean() > 0.1:
            message += "Its obs_names are genes: pass adata.T."
        else:
            message += "Use the same gene identifiers as in training."
        problems.add(message)
    problems.raise_if_any()
    if len(missing):
        warn(
            f"{len(missing)} of the model's {len(genes)} genes ({1 - share:.0%}) are not in adata: {examples(missing)}. "
            "The estimate uses the others."
        )
    return matrix, positions.to_numpy(dtype=int)


def align_genes(adata: AnnData, genes: pd.Index, *, layer: str | None = None) -> np.ndarray:
    """Return what :func:`find_genes` finds: an array samples × genes, with columns of NaN for the genes that are missing."""
    matrix, columns = find_genes(adata, genes, layer=layer)
    values = to_dense(take_columns(matrix, columns))
    values[:, columns < 0] = np.nan
    return values


def set_spike_ins_aside(tables: dict[str, AnnData]) -> int:
    """Take spike-ins out of the genes of all tables; return how many kinds were found.

    Where bulk has any, ``obs["rna_per_spike_in"]`` gets the ratio of each sample's own expression to its spike-ins (NaN
    for a sample without).
    """
    found: set[str] = set()
    for name, table in tables.items():
        spikes = table.var_names.str.startswith(SPIKE_IN_PREFIX)
        if not spikes.any():
            continue
        found |= set(table.var_names[spikes])
        tables[name] = subset(table, genes=~spikes)
        if name == keys.BULK:
            added = np.asarray(table.X[:, np.flatnonzero(spikes)].sum(axis=1), dtype=float).ravel()
            own = np.asarray(tables[name].X.sum(axis=1), dtype=float).ravel()
            ratio = np.divide(own, added, out=np.full_like(own, np.nan), where=added > 0)
            tables[name].obs[keys.RNA_PER_SPIKE_IN] = ratio
    return len(found)
