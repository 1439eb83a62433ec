"""Gene identifiers, alignment of expression to the genes of a model, and spike-ins."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata, subset
from scdeconv._data.checks import Problems, check_expression, check_names, examples
from scdeconv._data.chunks import in_rows
from scdeconv._data.gene_names import Genes, strip_versions, why_few_shared
from scdeconv._data.matrix import Matrix, get_matrix, is_lazy, take_columns, to_dense
from scdeconv._data.units import to_linear
from scdeconv._data.warnings import warn

if TYPE_CHECKING:
    from anndata import AnnData

# minimum share of the model's genes in new data (set by hand)
MIN_SHARED_GENES = 0.5
# prefix of External RNA Controls Consortium names (ERCC-00002); human genes are named ERCC1, ERCC2
SPIKE_IN_PREFIX = "ERCC-"


def sum_duplicates(matrix: Matrix, names: pd.Index) -> tuple[Matrix, pd.Index]:
    """Sum the columns of genes with the same name; genes keep the order of first occurrence."""
    codes, unique = pd.factorize(names)
    # accumulate small integers in a wide integer type, as numpy.sum does
    ones = np.ones(len(names), dtype=np.ones(1, matrix.dtype).sum().dtype)
    members = sp.csr_matrix((ones, (np.arange(len(names)), codes)))
    if is_lazy(matrix):
        matrix = in_rows(matrix)
        summed = matrix.map_blocks(
            operator.matmul, members, dtype=ones.dtype, chunks=(matrix.chunks[0], (len(unique),)), meta=matrix._meta
        )
        return summed, pd.Index(unique)
    return matrix @ members, pd.Index(unique)


def find_genes(
    adata: AnnData, genes: pd.Index, *, layer: str | None = None, array: bool = False, may_be_empty: bool = False
) -> tuple[Matrix, np.ndarray]:
    """Find the genes of a model by name in expression data.

    Parameters
    ----------
    adata
        Samples or cells × genes on a linear scale (counts or TPM). Not changed.
    genes
        Genes of the model.
    layer
        Layer to read instead of ``X``.
    array
        Values are array intensities: log2 values are exponentiated.
    may_be_empty
        Accept rows of zeros.

    Returns
    -------
    matrix
        Expression matrix of ``adata``, not reordered.
    columns
        Column of each of ``genes`` in the matrix; -1 for missing genes.

    Raises
    ------
    ValueError
        If values are not expression on a linear scale, or if less than half of the genes are found.

    Warns
    -----
    UserWarning
        If genes of the model are missing.
    """
    matrix = get_matrix(adata, layer, "adata")
    problems = Problems("adata cannot be predicted")
    names = strip_versions(adata.var_names)
    check_names(problems, adata.obs_names, names, "adata")
    logged = "log1p" in adata.uns and layer is None
    check_expression(problems, adata, matrix, "adata", logged=logged, may_be_logged=array, may_be_empty=may_be_empty)
    positions = _columns_of(names, genes)
    missing = genes[positions < 0]
    share = 1 - len(missing) / max(len(genes), 1)
    if share < MIN_SHARED_GENES:
        model = Genes("the model", genes, make_adata(var=pd.DataFrame(index=genes)))
        problems.add(
            f"Expected at least half of the model's {len(genes)} genes in adata, found {len(genes) - len(missing)} "
            f"({share:.0%}). The model has {examples(genes)}, adata has {examples(names)}. "
            f"{why_few_shared(Genes('adata', names, adata), model)}"
        )
    problems.raise_if_any()
    if len(missing):
        warn(
            f"{len(missing)} of the model's {len(genes)} genes ({1 - share:.0%}) are not in adata: "
            f"{examples(missing)}. The estimate uses the remaining genes."
        )
    return to_linear(matrix) if array else matrix, positions


def read_genes(adata: AnnData, genes: pd.Index, *, layer: str | None = None, array: bool = False) -> np.ndarray:
    """Return the expression of the given genes without checks, samples × genes; missing genes are NaN columns."""
    columns = _columns_of(strip_versions(adata.var_names), genes)
    matrix = get_matrix(adata, layer, "adata")
    values = to_dense(take_columns(to_linear(matrix) if array else matrix, columns))
    values[:, columns < 0] = np.nan
    return values


def _columns_of(names: pd.Index, genes: pd.Index) -> np.ndarray:
    """Return the position of each of ``genes`` in ``names``; -1 for missing genes."""
    positions = pd.Series(np.arange(len(names)), index=names)
    return positions[~positions.index.duplicated()].reindex(genes, fill_value=-1).to_numpy(dtype=int)


def align_genes(
    adata: AnnData, genes: pd.Index, *, layer: str | None = None, array: bool = False, may_be_empty: bool = False
) -> np.ndarray:
    """Return expression in the gene order of the model, samples × genes; missing genes are NaN columns."""
    matrix, columns = find_genes(adata, genes, layer=layer, array=array, may_be_empty=may_be_empty)
    values = to_dense(take_columns(matrix, columns))
    values[:, columns < 0] = np.nan
    return values


def set_spike_ins_aside(tables: dict[str, AnnData]) -> int:
    """Remove spike-ins from all tables and return the number of different spike-ins.

    If bulk has spike-ins, ``obs["rna_per_spike_in"]`` is the ratio of endogenous to spike-in expression of each sample
    (NaN for a sample without spike-in expression).
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
