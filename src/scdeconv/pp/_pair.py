"""Pairing of bulk samples with single cells of the same donors in one MuData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.checks import Problems, check_order, checked
from scdeconv._data.genes import SPIKE_IN_PREFIX, set_spike_ins_aside
from scdeconv._data.inputs import (
    cell_probabilities,
    check_donor_names,
    check_genes,
    given_fractions,
    is_logged,
    read_table,
    set_cell_types,
    set_donors,
    take_genes,
)
from scdeconv._data.modalities import make_mudata
from scdeconv._data.reference import count_cells, expect_cells, make_profiles, make_pseudobulk, round_counts, sum_cells
from scdeconv._data.units import unit_of
from scdeconv._data.warnings import warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from mudata import MuData

FEWEST_PAIRS = 3  # minimum number of paired donors for methods that train on pairs (set by hand)


@checked()
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
    probabilities_key: str | None = None,
    duplicates: Literal["error", "sum"] = "error",
) -> MuData:
    """Pair bulk samples with the single cells of the same donors.

    Donors with bulk and cells are pairs. Donors with only cells contribute to the reference. Donors with only bulk can
    be predicted. Instead of cells, pass cell-type ``profiles``. The measured fractions are then read from
    ``bulk.obsm[fractions_key]`` (for example from flow cytometry or imaging). The inputs are not changed.

    Parameters
    ----------
    cells
        Cells × genes, counts, with ``obs[donor_key]`` and ``obs[cell_type_key]``. Backed AnnData
        (``anndata.read_h5ad(path, backed="r")``), lazy AnnData (``anndata.experimental.read_lazy(path)``) and Dask
        arrays of rows are read once in blocks, on a Dask cluster if one is connected. They stay lazy in ``sc``.
    bulk
        Bulk samples × genes, counts or TPM. Without ``obs[donor_key]``, ``obs_names`` are the donors.
        ``obsm[fractions_key]``, if present, gives the measured fractions of samples whose donor has no cells.
    donor_key
        Column of ``obs`` with the donor.
    cell_type_key
        Column of ``cells.obs`` (and of ``profiles.obs``) with the cell type.
    layer
        Layer to read instead of ``X``, from each of cells and bulk that has it.
    profiles
        Mean expression per cell, cell types × genes, instead of cells. Cell types are in ``obs[cell_type_key]``, else
        in ``obs_names``. Optional: ``obs["cell_size_umi"]``, the mean total per cell, and ``obs["total"]``, the sum
        over all genes in the unit of the profiles. Pass the latter for profiles of selected genes, such as a signature
        (:func:`scdeconv.pp.signature`).
    pseudobulk
        Summed cells of each donor, donors × genes. Only with profiles.
    fractions_key
        Key of ``bulk.obsm`` with a DataFrame of samples × cell types. Rows sum to 1 or are NaN.
    probabilities_key
        Key of ``cells.obsm`` with a DataFrame of cell-type probabilities, cells × cell types, rows sum to 1. The
        measured fractions of a donor are then the mean probabilities of its cells. Profiles are still computed from
        ``obs[cell_type_key]``. The probabilities must be calibrated: of cells with probability 0.6 of a type, 60 %
        should be of that type. The soft assignments of :func:`scdeconv.tl.cluster` are often underconfident, which
        makes all donors similar. The printed summary contains the mean difference to fractions from the labels.
    duplicates
        Treatment of duplicate genes: raise an error or sum them.

    Returns
    -------
    MuData of the shared genes with the modalities

    - ``bulk``: ``obs["donor"]``, ``obsm["measured_fractions"]`` (rows of NaN if unknown) and, with cells,
      ``obsm["measured_cells"]``, the number of cells. With ``probabilities_key``, the numbers are expected numbers,
      rounded by the largest-remainder method, which keeps the donor's total. ``obsm["measured_variance"]`` is then the
      variance of the fractions due to uncertain types, sum of p(1 - p) / N² over N cells. It assumes calibrated
      probabilities and independent cells. Errors that cells share, such as a wrongly named cluster, are not included;
    - ``sc``: the cells with ``obs["donor"]``, ``obs["cell_type"]`` and ``obs["total"]``, the sum over all genes of
      ``cells`` (only with cells);
    - ``sums``: summed cells, (donor, cell type) pairs × genes, with ``obs["donor"]``, ``obs["cell_type"]``,
      ``obs["n_cells"]`` and ``obs["total"]`` (only with cells). All later steps use these sums, except simulation and
      the methods that need single cells;
    - ``profiles``: mean expression per cell, cell types × genes, with ``obs["cell_size_umi"]``;
    - ``pseudobulk``: summed cells, donors × genes.

    Spike-ins (names starting with ``ERCC-``) are removed from the genes. If bulk has spike-ins,
    ``obs["rna_per_spike_in"]`` is the ratio of endogenous to spike-in expression.

    Raises
    ------
    ValueError
        If the inputs have problems; all are listed. Problems in lazy cells after the first block are raised later.
    OSError
        If cells on disk cannot be read. The message contains the rows.

    Warns
    -----
    UserWarning
        If there are fewer than 3 paired donors, or if ``profiles`` are passed without measured fractions of bulk.

    Examples
    --------
    >>> import scdeconv
    >>> cells, bulk = scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    >>> mdata = scdeconv.pp.pair(cells, bulk)  # doctest: +ELLIPSIS
    paired 6 donors ...
    """
    inputs = {"bulk": bulk, "cells": cells, "profiles": profiles, "pseudobulk": pseudobulk}
    originals = {name: adata for name, adata in inputs.items() if adata is not None}
    mdata = join(originals, donor_key, cell_type_key, layer, fractions_key, duplicates, probabilities_key)
    record = mdata.uns[keys.UNS]["pair"]
    shares = ", ".join(f"{name} {adata.n_vars}" for name, adata in originals.items())
    aside = f"; {record['n_spike_ins']} spike-ins removed from the genes" if record["n_spike_ins"] else ""
    soft = ""
    if probabilities_key is not None:
        distance = _distance(mdata)
        soft = (
            f"; fractions from {probabilities_key!r}, mean absolute difference to fractions from labels {distance:.3f}"
        )
    found = f"{record['n_genes']} shared genes ({shares}); bulk in {record['bulk_unit']}{aside}{soft}"
    print(f"{_count_donors(mdata)}; {found}")
    n_pairs = len(paired_donors(mdata))
    if n_pairs < FEWEST_PAIRS:
        warn(
            f"Expected at least {FEWEST_PAIRS} paired donors to train on pairs, found {n_pairs}. tl.train uses a "
            "reference-based method by default."
        )
    return mdata


def join(
    originals: Mapping[str, AnnData],
    donor_key: str = keys.DONOR,
    cell_type_key: str = keys.CELL_TYPE,
    layer: str | None = None,
    fractions_key: str = keys.MEASURED,
    duplicates: Literal["error", "sum"] = "error",
    probabilities_key: str | None = None,
) -> MuData:
    """Return the result of :func:`pair` without printing; ``originals`` maps its argument names to the inputs."""
    problems = Problems("The inputs cannot be paired")
    if "bulk" not in originals:
        problems.add("Expected bulk, found None. Pass bulk=, an AnnData of samples × genes.")
    if ("cells" in originals) == ("profiles" in originals):
        found = "both" if "cells" in originals else "neither"
        problems.add(f"Expected either cells or profiles, found {found}. Pass one of the two.")
    if "pseudobulk" in originals and "profiles" not in originals:
        problems.add(
            "Expected profiles together with pseudobulk, found none. Omit pseudobulk: pair computes it from cells."
        )
    check_order(problems, originals, cell_type_key)
    problems.raise_if_any()
    if layer is not None and not any(layer in adata.layers for adata in originals.values()):
        problems.add(f"Expected layer {layer!r} in cells or bulk, found it in neither. Pass an existing layer.")
    tables = {name: read_table(problems, adata, name, layer, duplicates) for name, adata in originals.items()}
    # spike-in names match for any gene identifiers
    genes_of = {
        name: table.var_names[~table.var_names.str.startswith(SPIKE_IN_PREFIX)] for name, table in tables.items()
    }
    check_genes(problems, genes_of, originals)
    set_donors(problems, tables, donor_key)
    set_cell_types(problems, tables, cell_type_key)
    given = given_fractions(problems, originals["bulk"], fractions_key, tables)
    probabilities = None
    if probabilities_key is not None:
        probabilities = cell_probabilities(problems, originals.get("cells"), probabilities_key, tables)
    side = "cells" if "cells" in tables else "pseudobulk"
    if side in tables and keys.DONOR in tables[side].obs:
        bulk_donors, other_donors = (pd.Index(tables[name].obs[keys.DONOR].unique()) for name in ("bulk", side))
        check_donor_names(problems, bulk_donors, other_donors, side)
    problems.raise_if_any()

    unit = unit_of(tables["bulk"].X)
    n_spike_ins = set_spike_ins_aside(tables)
    # cell sizes are sums over all genes, not over shared genes; signatures have them in obs["total"]
    if "cells" in tables:
        tables[keys.SUMS] = sum_cells(tables["cells"], logged=is_logged(originals["cells"], layer))
    elif "total" not in tables["profiles"].obs:
        tables["profiles"].obs["total"] = np.asarray(tables["profiles"].X.sum(axis=1)).ravel()
    genes = tables["bulk"].var_names
    for table in tables.values():
        genes = genes[genes.isin(table.var_names)]
    tables = {name: take_genes(table, genes) for name, table in tables.items()}
    modalities = {keys.BULK: tables["bulk"]}
    if "cells" in tables:
        modalities |= {keys.CELLS: tables["cells"], keys.SUMS: tables[keys.SUMS]} | make_reference(tables[keys.SUMS])
    else:
        obs = tables["profiles"].obs
        obs[keys.CELL_SIZE] = obs[keys.CELL_SIZE if keys.CELL_SIZE in obs else "total"].astype(float)
        tables["profiles"].obs_names = obs[keys.CELL_TYPE].to_numpy()
        modalities |= {name: tables[name] for name in (keys.PROFILES, keys.PSEUDOBULK) if name in tables}
    _measure(modalities, given, probabilities)

    mdata = make_mudata(modalities)
    record = {"bulk_unit": unit, "n_genes": len(genes), "n_spike_ins": n_spike_ins}
    mdata.uns[keys.UNS] = {"pair": record}
    return mdata


def make_reference(sums: AnnData) -> dict[str, AnnData]:
    """Return profiles and pseudobulk computed from summed cells, by modality name."""
    cell_types = list(sums.obs[keys.CELL_TYPE].cat.categories)
    return {keys.PROFILES: make_profiles(sums, cell_types), keys.PSEUDOBULK: make_pseudobulk(sums)}


@checked()
def paired_donors(mdata: MuData) -> list[str]:
    """Return the donors of bulk samples with measured fractions, which are the training donors of paired methods.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`.

    Returns
    -------
    Names of the donors, sorted.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> donors = scdeconv.pp.paired_donors(mdata)
    >>> train, held_out = scdeconv.pp.hold_out(mdata, donors[:2])
    >>> len(donors), len(scdeconv.pp.paired_donors(train))
    (6, 4)
    """
    bulk = mdata[keys.BULK]
    known = bulk.obsm[keys.MEASURED].notna().all(axis=1)
    return sorted(bulk.obs[keys.DONOR][known].unique())


def _measure(
    modalities: Mapping[str, AnnData], given: pd.DataFrame | None, probabilities: pd.DataFrame | None = None
) -> None:
    """Write the measured fractions of bulk: from the donor's cells, else from ``given``, else NaN."""
    bulk = modalities[keys.BULK]
    donors = list(bulk.obs[keys.DONOR])
    cell_types = list(modalities[keys.PROFILES].obs[keys.CELL_TYPE])
    measured = pd.DataFrame(np.nan, index=bulk.obs_names, columns=cell_types)
    if given is not None:
        measured = given[cell_types].set_axis(bulk.obs_names)
    if keys.CELLS in modalities:
        counts = count_cells(modalities[keys.SUMS], donors, cell_types).set_axis(bulk.obs_names)
        total = counts.sum(axis=1)
        counted = total > 0
        expected = counts
        if probabilities is not None:
            tables = expect_cells(modalities[keys.CELLS], probabilities, donors, cell_types)
            expected, variance = (table.set_axis(bulk.obs_names) for table in tables)
            counts[:] = round_counts(expected.to_numpy())
            bulk.obsm[keys.MEASURED_VARIANCE] = variance.div((total**2).where(counted), axis=0)
        measured[counted] = expected[counted].div(total[counted], axis=0)
        if counted.any():
            bulk.obsm[keys.MEASURED_CELLS] = counts
    bulk.obsm[keys.MEASURED] = measured


def _distance(mdata: MuData) -> float:
    """Return the mean absolute difference between measured fractions and fractions from cell labels."""
    measured = mdata[keys.BULK].obsm[keys.MEASURED]
    counts = count_cells(mdata[keys.SUMS], list(mdata[keys.BULK].obs[keys.DONOR]), list(measured))
    shares = counts.div(counts.sum(axis=1), axis=0).set_axis(measured.index)
    return float((measured - shares).abs().mean(axis=None))


def _count_donors(mdata: MuData) -> str:
    donors = {name: set(mdata[name].obs[keys.DONOR]) for name in (keys.BULK, keys.PSEUDOBULK) if name in mdata.mod}
    pairs = set(paired_donors(mdata))
    text = f"paired {len(pairs)} donors ({mdata[keys.BULK].n_obs} bulk samples"
    if keys.CELLS in mdata.mod:
        text += f", {mdata[keys.CELLS].n_obs} cells"
    text += f", {mdata[keys.PROFILES].n_obs} cell types)"
    only_cells = len(donors.get(keys.PSEUDOBULK, set()) - donors[keys.BULK])
    return f"{text}; {len(donors[keys.BULK] - pairs)} donors with bulk only, {only_cells} with cells only"
