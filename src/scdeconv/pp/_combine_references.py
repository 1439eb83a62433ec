"""Combination of several references of one tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata
from scdeconv._data.checks import Problems, check_expressed, check_shared_genes, examples
from scdeconv._data.gene_names import Genes
from scdeconv._stats.calibration.reference_shift import match_depth, match_platform

from ._references import SingleReference, check_types, named_references, read_reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

TITLE = "The references cannot be combined"


def combine_references(
    references: Sequence[AnnData] | Mapping[str, AnnData],
    *,
    donor_key: str = "donor",
    cell_type_key: str = "cell_type",
    types: Mapping[str, Any] | None = None,
    layer: str | None = None,
    duplicates: Literal["error", "sum"] = "error",
    by_gene: bool = True,
) -> AnnData:
    """Combine several references of one tissue, such as single cells of two studies.

    Cell types are matched by name, or by the map ``types``. The genes that all references have are kept. The first
    reference is not changed. The differences of each further reference from those before it, the depth and a shift of
    each gene, are estimated from the cell types that both have, and removed from all its types. Types that only one
    reference has are kept. The inputs are not changed.

    Parameters
    ----------
    references
        References, or a mapping from names to references. Each is single cells (cells × genes, counts) or profiles (one
        row for each cell type, as ``profiles`` of :func:`scdeconv.pp.pair`). Put the reference first that resembles the
        bulk most. Cells on disk are read into memory.
    donor_key, cell_type_key
        Columns of ``obs``, as for :func:`scdeconv.pp.pair`.
    types
        New names of cell types: ``{"CD14+ Monocytes": "Monocytes"}`` for all references, or
        ``{"kang": {"CD14+ Monocytes": "Monocytes"}}`` for one. Several types may get the same name. To keep two types
        apart whose names nearly match, map one of them to itself.
    layer
        Layer to read instead of ``X``, from each reference that has it.
    duplicates
        Treatment of duplicate genes: raise an error or sum them.
    by_gene
        Remove the shift of each gene. If False, only the depth is matched.

    Returns
    -------
    If all references are cells: cells × genes for ``cells`` of :func:`scdeconv.pp.pair`, else profiles for ``profiles``.

    - ``obs``: ``cell_type`` (or the given key), ``total`` (the sum over all genes of the reference) and, for cells,
      ``donor`` (or the given key) and ``reference``. Donors of the first reference keep their names, so that they are
      paired with bulk. Other donors get the name of their reference as a prefix. Profiles have ``cell_size_umi``;
    - ``var``: the removed log shift of each further reference, such as ``shift_ref2``.

    Raises
    ------
    ValueError
        If the references have problems; all are listed.

    Warns
    -----
    UserWarning
        If the references share less than two thirds of their genes.

    Notes
    -----
    The shift of a gene is the mean difference of ``log(1 + 10 G share)``, with G genes, over the shared types. It is
    shrunk to 0 by the variance between the types, as in :func:`scdeconv.pp.calibrate`. With one shared type, 60 % of the
    difference are removed. More genes and more shared types help. See :doc:`/benchmarks/combine_references`.

    Examples
    --------
    >>> import scdeconv
    >>> cells, bulk = scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    >>> first = cells.obs["donor"].isin(["D001", "D002", "D003"])
    >>> both = scdeconv.pp.combine_references({"a": cells[first], "b": cells[~first]})  # doctest: +ELLIPSIS
    combined 2 references: ...
    >>> mdata = scdeconv.pp.pair(both, bulk)  # doctest: +ELLIPSIS
    paired ...
    """
    problems = Problems(TITLE)
    named = named_references(problems, references)
    problems.raise_if_any()
    read = [
        read_reference(problems, name, adata, donor_key, cell_type_key, layer, duplicates)
        for name, adata in named.items()
    ]
    problems.raise_if_any()
    parts = [part for part in read if part is not None]
    check_shared_genes(problems, *_genes(parts, named))
    parts = check_types(problems, parts, types)
    problems.raise_if_any()

    described = "; ".join(part.describe() for part in parts)
    genes = parts[0].genes
    for part in parts[1:]:
        genes = genes[genes.isin(part.genes)]
    parts = [part.with_genes(genes) for part in parts]
    for part in parts:
        profiles = part.profiles()
        check_expressed(problems, profiles.sum(axis=1).to_numpy(), profiles.index, f"shared genes of {part.name}")
    problems.raise_if_any()
    pool, shifts = [parts[0]], {}
    for part in parts[1:]:
        factors, depth = _factors(pool, part, by_gene=by_gene)
        pool.append(part.scaled(factors, depth))
        shifts[f"shift_{part.name}"] = -np.log(factors / np.exp(np.log(factors).mean()))
    as_cells = all(part.is_cells for part in parts)
    combined = _stack_cells(pool) if as_cells else _average_profiles(pool)
    combined.var = pd.DataFrame(shifts, index=genes)
    renamed = {keys.CELL_TYPE: cell_type_key, keys.DONOR: donor_key}
    combined.obs = combined.obs.rename(columns=renamed)
    record = _record(pool, shifts)
    combined.uns[keys.UNS] = {keys.COMBINED: record}
    print(f"combined {len(pool)} references: {described}. {_summary(record, by_gene=by_gene)}")
    return combined


def _genes(parts: Sequence[SingleReference], named: Mapping[str, AnnData]) -> tuple[Genes, list[Genes]]:
    first, *others = (Genes(part.name, part.genes, named[part.name]) for part in parts)
    return first, others


def _mean_profiles(pool: Sequence[SingleReference]) -> tuple[pd.DataFrame, pd.Series]:
    """Return profiles and totals of each cell type, averaged over the references that have it."""
    profiles = pd.concat([part.profiles() for part in pool]).groupby(level=0, sort=False).mean()
    totals = pd.concat([part.type_totals() for part in pool]).groupby(level=0, sort=False).mean()
    return profiles, totals


def _factors(pool: Sequence[SingleReference], part: SingleReference, *, by_gene: bool) -> tuple[np.ndarray, float]:
    """Return the factors of the genes and of the totals that bring a reference to the platform of the pool."""
    (first, first_totals), second, second_totals = _mean_profiles(pool), part.profiles(), part.type_totals()
    shared = [name for name in second.index if name in first.index]
    factors = match_platform(first.loc[shared].to_numpy(), second.loc[shared].to_numpy(), by_gene=by_gene)
    return factors, match_depth(first_totals[shared].to_numpy(), second_totals[shared].to_numpy())


def _stack_cells(pool: Sequence[SingleReference]) -> AnnData:
    """Return the cells of all references with the donors of further references renamed."""
    tables = []
    for number, part in enumerate(pool):
        prefix = f"{part.name}: " if number else ""
        tables.append(
            pd.DataFrame(
                {
                    keys.DONOR: [f"{prefix}{donor}" for donor in ([] if part.donors is None else part.donors)],
                    keys.CELL_TYPE: list(part.types),
                    "reference": part.name,
                    "total": part.totals,
                },
                index=[f"{prefix}{name}" for name in part.names],
            )
        )
    obs = pd.concat(tables)
    for name in (keys.CELL_TYPE, "reference"):
        obs[name] = obs[name].astype("category")
    matrix = sp.vstack([sp.csr_matrix(part.matrix) for part in pool], format="csr")
    return make_adata(matrix.astype(np.float32), obs=obs)


def _average_profiles(pool: Sequence[SingleReference]) -> AnnData:
    """Return one profile of each cell type, in counts per cell."""
    profiles, totals = _mean_profiles(pool)
    obs = pd.DataFrame(
        {keys.CELL_TYPE: list(profiles.index), keys.CELL_SIZE: totals.to_numpy(), "total": totals.to_numpy()},
        index=profiles.index.astype(str),
    )
    return make_adata(profiles.to_numpy(dtype=float), obs=obs)


def _record(pool: Sequence[SingleReference], shifts: Mapping[str, np.ndarray]) -> dict[str, Any]:
    n_references = pd.Series([name for part in pool for name in part.type_names()]).value_counts()
    return {
        "references": [part.name for part in pool],
        "n_genes": len(pool[0].genes),
        "n_types": len(n_references),
        "shared_types": sorted(n_references.index[n_references > 1]),
        "shift_sd": [float(values.std()) for values in shifts.values()],
    }


def _summary(record: Mapping[str, Any], *, by_gene: bool) -> str:
    """Return what the references share and what was removed, as text."""
    shared = record["shared_types"]
    sd = ", ".join(f"{value:.2f}" for value in record["shift_sd"])
    removed = f"depth and gene shifts removed (SD of log shifts {sd})" if by_gene else "depth matched"
    return (
        f"{record['n_types']} cell types ({len(shared)} in several references: {examples(shared)}), "
        f"{record['n_genes']} shared genes; {removed}"
    )
