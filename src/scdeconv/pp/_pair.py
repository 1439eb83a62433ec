"""Pairing of bulk samples with single cells of the same donors in one MuData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from scdeconv._data import keys
from scdeconv._data.checks import UNKNOWN_SIZES, checked
from scdeconv._data.fractions import has_measured
from scdeconv._data.modalities import cell_types_of
from scdeconv._data.reference import count_cells
from scdeconv._data.warnings import warn

from ._join import join

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    unit: Literal["counts", "tpm", "array"] | None = None,
    cell_sizes: Mapping[str, float] | None = None,
    rest: Literal["keep", "rescale"] = "keep",
    hierarchy: Mapping[str, Sequence[str]] | None = None,
) -> MuData:
    """Pair bulk samples with the single cells of the same donors.

    Donors with bulk and cells are pairs. Donors with only cells contribute to the reference. Donors with only bulk can
    be predicted. Instead of cells, pass cell-type ``profiles``. The measured fractions are then read from
    ``bulk.obsm[fractions_key]`` (for example from flow cytometry, blood counts or imaging). Without cells and profiles,
    bulk with measured fractions is enough for methods that need no reference (:func:`scdeconv.tl.methods`). The inputs
    are not changed.

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
        Key of ``bulk.obsm`` with a DataFrame of samples × cell types. Rows sum to 1, to less where a part was not
        measured, or are NaN. NaN for single types: they were not measured. In training, they share what the measured types
        of the sample leave, in proportion to the mean composition. If the measured types sum to 1, they are shares of these
        types only.
    probabilities_key
        Key of ``cells.obsm`` with a DataFrame of cell-type probabilities, cells × cell types, rows sum to 1. The
        measured fractions of a donor are then the mean probabilities of its cells. Profiles are still computed from
        ``obs[cell_type_key]``. The probabilities must be calibrated: of cells with probability 0.6 of a type, 60 %
        should be of that type. The soft assignments of :func:`scdeconv.tl.cluster` are often underconfident, which
        makes all donors similar. The printed summary contains the mean difference to fractions from the labels.
    duplicates
        Treatment of duplicate genes: raise an error or sum them.
    unit
        Unit of bulk. Default: found from the values. ``"array"``: microarray intensities, without counting noise; log2
        values are exponentiated.
    cell_sizes
        RNA per cell of each type, for cells that were normalised to one library size and have no total counts in
        ``obs``. Without both, methods that use cell sizes refuse the data.
    rest
        Treatment of measured fractions that sum to less than 1. ``"keep"``: the unmeasured rest becomes the column
        ``"Unmeasured"``. Without a reference, it is estimated like a cell type. With a reference, methods are trained
        and scored on shares of the measured types. ``"rescale"``: divide each row by its sum.
    hierarchy
        Groups of cell types, and groups of groups: ``{"T": ["CD4 T", "CD8 T"], "Lymphoid": ["T", "B"]}``.
        :func:`scdeconv.tl.predict` also writes the sum of each group, with its own intervals.

    Returns
    -------
    MuData of the shared genes with the modalities

    - ``bulk``: ``obs["donor"]``, ``obsm["measured_fractions"]`` (rows sum to 1, NaN if unknown) and, with cells,
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
        If there are fewer than 3 paired donors, or if ``profiles`` are passed without measured fractions of bulk. If
        inputs share less than two thirds of the genes of the smaller one, if samples, donors or cells have no reads, or
        if the measured fractions lack a cell type.

    Examples
    --------
    >>> import scdeconv
    >>> cells, bulk = scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    >>> mdata = scdeconv.pp.pair(cells, bulk)  # doctest: +ELLIPSIS
    paired 6 donors ...
    """
    inputs = {"bulk": bulk, "cells": cells, "profiles": profiles, "pseudobulk": pseudobulk}
    originals = {name: adata for name, adata in inputs.items() if adata is not None}
    mdata = join(
        originals,
        donor_key,
        cell_type_key,
        layer,
        fractions_key,
        duplicates,
        probabilities_key,
        unit,
        cell_sizes,
        rest,
        hierarchy,
    )
    record = mdata.uns[keys.UNS]["pair"]
    shares = ", ".join(f"{name} {adata.n_vars}" for name, adata in originals.items())
    aside = f"; {record['n_spike_ins']} spike-ins removed from the genes" if record["n_spike_ins"] else ""
    soft = ""
    if probabilities_key is not None:
        distance = _distance(mdata)
        soft = (
            f"; fractions from {probabilities_key!r}, mean absolute difference to fractions from labels {distance:.3f}"
        )
    sizes = record.get("cell_sizes")
    exponentiated = " (log2 values exponentiated)" if record["exponentiated"] else ""
    normalised = "" if sizes in (None, "counts", "profiles") else f"; cells are normalised, sizes from {sizes}"
    genes = f"{record['n_genes']} shared genes ({shares})" if len(originals) > 1 else f"{record['n_genes']} genes"
    found = f"{genes}; bulk in {record['bulk_unit']}{exponentiated}{normalised}{aside}{soft}"
    notes = f"; {record['notes']}" if "notes" in record else ""
    print(f"{_count_donors(mdata)}; {found}{notes}")
    if sizes == UNKNOWN_SIZES:
        warn(
            "Expected counts of the cells, found cells that were normalised to one library size: their RNA content is "
            "unknown. Methods that use it will refuse the data. Pass layer=, cells.obs['total_counts'] or cell_sizes=."
        )
    n_pairs = len(paired_donors(mdata))
    if n_pairs < FEWEST_PAIRS:
        default = "a reference-based method" if keys.PROFILES in mdata.mod else "the mean composition"
        warn(
            f"Expected at least {FEWEST_PAIRS} paired donors to train on pairs, found {n_pairs} paired donors. tl.train uses "
            f"{default} by default."
        )
    return mdata


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
    return sorted(bulk.obs[keys.DONOR][has_measured(bulk.obsm[keys.MEASURED])].unique())


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
    if keys.PROFILES not in mdata.mod:
        cell_types = f"{len(cell_types_of(mdata))} cell types, no reference)"
        return f"{text}, {cell_types}; {len(donors[keys.BULK] - pairs)} donors without measured fractions"
    text += f", {mdata[keys.PROFILES].n_obs} cell types)"
    only_cells = len(donors.get(keys.PSEUDOBULK, set()) - donors[keys.BULK])
    return f"{text}; {len(donors[keys.BULK] - pairs)} donors with bulk only, {only_cells} with cells only"
