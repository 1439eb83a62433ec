"""Bring bulk, single cells and donors together in one MuData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from scdeconv._data import keys
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
from scdeconv._data.validation import Problems
from scdeconv._data.warnings import warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mudata import MuData

FEWEST_PAIRS = 3


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

    Donors with bulk and cells are the pairs. Donors with cells only still build the reference, donors with bulk only
    are there to be predicted. Without any cells, cell-type ``profiles`` take their place and the fractions come from
    ``bulk.obsm[fractions_key]`` (flow cytometry, imaging, a count made elsewhere). The inputs are not changed.

    Parameters
    ----------
    cells
        Cells × genes, counts, with ``obs[donor_key]`` and ``obs[cell_type_key]``. They need not fit into memory:
        ``anndata.read_h5ad(path, backed="r")``, ``anndata.experimental.read_lazy(path)`` and Dask arrays of rows are read
        once, block by block (on a Dask cluster where one is connected), and stay where they are, in ``sc`` too.
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
        Instead of cells: cell types × genes, mean expression per cell, with ``obs[cell_type_key]`` (else ``obs_names``)
        and optionally ``obs["cell_size_umi"]``, the mean total per cell, and ``obs["total"]``, the sum over all genes
        in the unit of the profiles where they have not all genes, as in a signature (:func:`scdeconv.pp.signature`).
    pseudobulk
        Beside profiles: donors × genes, each donor's cells summed.
    fractions_key
        Key of ``bulk.obsm``: a DataFrame samples × cell types whose rows sum to 1 or are NaN.
    probabilities_key
        Key of ``cells.obsm``: a DataFrame cells × cell types whose rows sum to 1, how probable each type is for a cell.
        The measured fractions of a donor are then the mean over its cells, the composition to be expected. The profiles
        stay those of ``obs[cell_type_key]``. The probabilities are taken at their word: of cells with 0.6, 60 % should be
        of that type. The soft assignments of :func:`scdeconv.tl.cluster` are often far less sure than their labels are
        right, which makes all donors alike; the printed line says how far the compositions are from those of the labels.
    duplicates
        What to do with genes that occur more than once: refuse them or add them up.

    Returns
    -------
    MuData of the shared genes with the modalities

    - ``bulk``: ``obs["donor"]``, ``obsm["measured_fractions"]`` (rows of NaN where unknown) and, where cells were
      counted, ``obsm["measured_cells"]``. With ``probabilities_key``, these are the expected numbers, rounded so that
      they keep the donor's total (by largest remainder), and ``obsm["measured_variance"]`` is the variance of the
      fractions that comes from not knowing the types, sum of p(1 - p) over N² for N cells. It takes the probabilities
      at their word and the cells as independent, so errors that cells share, such as a misplaced cluster, are not in it;
    - ``sc``: the cells, with ``obs["donor"]``, ``obs["cell_type"]`` and ``obs["total"]``, the sum over all genes of
      ``cells`` (only where cells are given);
    - ``sums``: the cells of each type of each donor added up, pairs of a donor and a type × genes, with ``obs["donor"]``,
      ``obs["cell_type"]``, ``obs["n_cells"]`` and ``obs["total"]``. All that follows is made of these sums, but for
      simulation and the few methods that need the cells themselves;
    - ``profiles``: mean expression per cell, cell types × genes, with ``obs["cell_size_umi"]``;
    - ``pseudobulk``: summed cells, donors × genes.

    Spike-ins (named ``ERCC-...``) are no genes of cells and are taken out; where bulk has them, its
    ``obs["rna_per_spike_in"]`` is the ratio of a sample's own expression to theirs.

    Raises
    ------
    ValueError
        One report of every problem found in the inputs. Of cells that are not in memory, it knows the first block; the
        values of all others are reported after the one reading.
    OSError
        Where cells on disk cannot be read, with the rows that were reached.

    Warns
    -----
    UserWarning
        Where there are too few paired donors to learn from pairs.

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
    aside = f"; {record['n_spike_ins']} spike-ins set aside" if record["n_spike_ins"] else ""
    soft = ""
    if probabilities_key is not None:
        distance = _distance(mdata)
        soft = f"; compositions expected from {probabilities_key!r}, {distance:.3f} from those of the labels on average"
    found = f"{record['n_genes']} shared genes ({shares}); bulk in {record['bulk_unit']}{aside}{soft}"
    print(f"{_count_donors(mdata)}; {found}")
    n_pairs = len(paired_donors(mdata))
    if n_pairs < FEWEST_PAIRS:
        warn(
            f"Only {n_pairs} paired donors (at least {FEWEST_PAIRS} are needed to learn from pairs): what follows is "
            "reference-only. tl.train takes a method that needs no pairs."
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
    """Do what :func:`pair` does, without a word; ``originals`` holds its ``bulk``, ``cells``, ``profiles``, ``pseudobulk``."""
    problems = Problems("The inputs cannot be paired")
    if "bulk" not in originals:
        problems.add("Expected bulk, found None. Pass bulk=, an AnnData of samples × genes.")
    if ("cells" in originals) == ("profiles" in originals):
        found = "both" if "cells" in originals else "neither"
        problems.add(f"Expected either cells or profiles, found {found}. Pass one of them.")
    if "pseudobulk" in originals and "profiles" not in originals:
        problems.add("Expected profiles beside pseudobulk, found none. With cells, pair makes the pseudobulk itself.")
    for name, adata in originals.items():
        if not isinstance(adata, AnnData):
            problems.add(f"Expected {name} as AnnData, found {type(adata).__name__}. Wrap it: anndata.AnnData({name}).")
    problems.raise_if_any()
    if layer is not None and not any(layer in adata.layers for adata in originals.values()):
        problems.add(f"Expected layer {layer!r} in cells or bulk, found it in neither.")
    tables = {name: read_table(problems, adata, name, layer, duplicates) for name, adata in originals.items()}
    # spike-ins are shared whatever the genes are called
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
    # the RNA content is that of all genes, not of the shared ones; a signature has few genes, and brings it along
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
    """Return the modalities that the sums of the cells determine: profiles of every type, and pseudobulk."""
    cell_types = list(sums.obs[keys.CELL_TYPE].cat.categories)
    return {keys.PROFILES: make_profiles(sums, cell_types), keys.PSEUDOBULK: make_pseudobulk(sums)}


def paired_donors(mdata: MuData) -> list[str]:
    """Return the donors of bulk samples whose fractions are known: those that a method can learn from.

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
    """Write the truth of each bulk sample: its donor's cells, else the fractions given with it, else NaN."""
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
    """Return the mean absolute difference between measured fractions and those that the labels of the cells say."""
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
