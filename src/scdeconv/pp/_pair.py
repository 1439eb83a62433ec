"""Bring bulk, single cells and donors together in one MuData."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Literal

import mudata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import _keys as keys
from scdeconv._genes import columns_that_match, is_ensembl, strip_versions, sum_duplicates
from scdeconv._validation import (
    Problems,
    check_cell_type_names,
    check_expression,
    check_fractions,
    check_names,
    examples,
    get_matrix,
    is_integer,
)

from ._reference import count_cells, make_profiles, make_pseudobulk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mudata import MuData

FEWEST_PAIRS = 3


def make_mudata(modalities: Mapping[str, AnnData]) -> MuData:
    """Join the modalities, which share genes and, where names agree, observations."""
    with mudata.set_options(pull_on_update=False):
        return mudata.MuData(dict(modalities), axis=-1)


def pair(
    cells: AnnData | None = None,
    bulk: AnnData | None = None,
    *,
    donor_key: str = "donor",
    cell_type_key: str = "cell_type",
    layer: str | None = None,
    profiles: AnnData | None = None,
    pseudobulk: AnnData | None = None,
    fractions_key: str = "measured_fractions",
    duplicates: Literal["error", "sum"] = "error",
) -> MuData:
    """Pair bulk samples with the single cells of the same donors.

    Donors with bulk and cells are the pairs. Donors with cells only still build the reference, donors with bulk only
    are there to be predicted. Without any cells, cell-type ``profiles`` take their place and the fractions come from
    ``bulk.obsm[fractions_key]`` (flow cytometry, imaging, a count made elsewhere). The inputs are not changed.

    Parameters
    ----------
    cells
        Cells × genes, counts, with ``obs[donor_key]`` and ``obs[cell_type_key]``.
    bulk
        Bulk samples × genes, counts or TPM. Where there is no ``obs[donor_key]``, ``obs_names`` are the donors.
        ``obsm[fractions_key]``, where present, is the truth for samples whose donor has no cells.
    donor_key
        Column of ``obs`` with the donor.
    cell_type_key
        Column of ``cells.obs`` (and of ``profiles.obs``) with the cell type.
    layer
        Layer to read instead of ``X``, in whichever of cells and bulk has it.
    profiles
        Instead of cells: cell types × genes, mean expression per cell, with ``obs[cell_type_key]`` (else
        ``obs_names``) and optionally ``obs["cell_size_umi"]``, the mean total per cell.
    pseudobulk
        Beside profiles: donors × genes, each donor's cells summed.
    fractions_key
        Key of ``bulk.obsm``: a DataFrame samples × cell types whose rows sum to 1 or are NaN.
    duplicates
        What to do with genes that occur more than once: refuse them or add them up.

    Returns
    -------
    MuData of the shared genes with the modalities

    - ``bulk``: ``obs["donor"]``, ``obsm["measured_fractions"]`` (rows of NaN where unknown) and, where cells were
      counted, ``obsm["measured_cells"]``;
    - ``sc``: the cells, with ``obs["donor"]`` and ``obs["cell_type"]`` (only where cells are given);
    - ``profiles``: mean expression per cell, cell types × genes, with ``obs["cell_size_umi"]``;
    - ``pseudobulk``: summed cells, donors × genes.

    Raises
    ------
    ValueError
        One report of every problem found in the inputs.

    Examples
    --------
    >>> import scdeconv
    >>> cells, bulk = scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    >>> mdata = scdeconv.pp.pair(cells, bulk)  # doctest: +ELLIPSIS
    paired 6 donors ...
    """
    problems = Problems("The inputs cannot be paired")
    if bulk is None:
        problems.add("Expected bulk, found None. Pass bulk=, an AnnData of samples × genes.")
    if (cells is None) == (profiles is None):
        found = "neither" if cells is None else "both"
        problems.add(f"Expected either cells or profiles, found {found}. Pass one of them.")
    if pseudobulk is not None and profiles is None:
        problems.add("Expected profiles beside pseudobulk, found none. With cells, pair makes the pseudobulk itself.")
    problems.raise_if_any()
    assert bulk is not None

    inputs = {"bulk": bulk, "cells": cells, "profiles": profiles, "pseudobulk": pseudobulk}
    tables = {
        name: _read(problems, adata, name, layer, duplicates) for name, adata in inputs.items() if adata is not None
    }
    if layer is not None and not any(layer in adata.layers for adata in inputs.values() if adata is not None):
        problems.add(f"Expected layer {layer!r} in cells or bulk, found it in neither.")
    _check_genes(problems, tables, bulk)
    _set_donors(problems, tables, donor_key)
    _set_cell_types(problems, tables, cell_type_key)
    given = _given_fractions(problems, bulk, fractions_key, tables)
    if "cells" in tables and keys.DONOR in tables["cells"].obs:
        _check_donor_names(problems, tables)
    problems.raise_if_any()

    genes = _shared_genes(tables)
    tables = {name: adata[:, genes].copy() for name, adata in tables.items()}
    modalities = {keys.BULK: tables["bulk"]}
    if "cells" in tables:
        modalities[keys.CELLS] = tables["cells"]
        cell_types = list(tables["cells"].obs[keys.CELL_TYPE].cat.categories)
        modalities[keys.PROFILES] = make_profiles(tables["cells"], cell_types)
        modalities[keys.PSEUDOBULK] = make_pseudobulk(tables["cells"])
    else:
        cell_types = list(tables["profiles"].obs[keys.CELL_TYPE])
        modalities[keys.PROFILES] = tables["profiles"]
        if "pseudobulk" in tables:
            modalities[keys.PSEUDOBULK] = tables["pseudobulk"]
    _measure(tables["bulk"], tables.get("cells"), given, cell_types)

    mdata = make_mudata(modalities)
    mdata.uns[keys.UNS] = {"pair": {"bulk_unit": _bulk_unit(bulk, layer), "n_genes": len(genes)}}
    _summarise(mdata, {name: adata.n_vars for name, adata in inputs.items() if adata is not None})
    return mdata
