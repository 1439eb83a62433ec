"""Loaders of the paired bulk and single-cell data sets of DeMixSC."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata, subset
from scdeconv._data.checks import checked

from ._fetch import Content, Source, load
from ._r_files import as_table, read_r

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData

_URL = "https://raw.githubusercontent.com/wwylab/DeMixSC/697cc9551502460413ad5939d35415968562b04a/data"


@checked()
def retina_pairs() -> tuple[AnnData, AnnData, AnnData]:
    """Load 24 human macular retina samples with bulk RNA-seq and summed single nuclei.

    The files are downloaded once and cached. Set the environment variable ``SCDECONV_DATA_DIR`` to read them from a
    folder instead.

    Returns
    -------
    bulk
        24 samples × 9,054 genes, counts; ``obs["donor"]``, ``obs["batch"]``;
        ``obsm["measured_fractions"]``: share of nuclei of 7 cell types.
    profiles
        7 cell types × genes, mean UMI per nucleus, averaged over the two batches;
        ``obs["cell_type"]``, ``obs["cell_size_umi"]``.
    pseudobulk
        24 samples × 9,054 genes, summed counts of all nuclei of a sample.

    Raises
    ------
    FileNotFoundError
        If ``SCDECONV_DATA_DIR`` is set and does not contain the files.
    ConnectionError
        If the download fails.
    OSError
        If a prepared file cannot be read.
    ValueError
        If a file in the cache has changed since it was downloaded, or if a prepared file is of another data set.

    Notes
    -----
    Guo et al. 2025, Genome Research 35, doi:10.1101/gr.278822.123; github.com/wwylab/DeMixSC (AGPL-3.0), commit
    697cc95. The authors publish no checksums. The SHA-256 of the first download is recorded and checked in later calls.

    The measured fractions are not orthogonal to the single-nucleus data and contain the bias of nuclei isolation. Batch
    1 is sequenced about ten times deeper than batch 2. Sample ``Macular_D018_13`` is an outlier (6 % rods).

    Examples
    --------
    >>> import scdeconv
    >>> bulk, profiles, pseudobulk = scdeconv.datasets.retina_pairs()  # doctest: +SKIP
    >>> mdata = scdeconv.pp.pair(bulk=bulk, profiles=profiles, pseudobulk=pseudobulk)  # doctest: +SKIP
    """
    bulk, pseudobulk, *references = load(_RETINA)
    return bulk, _mean_profiles(references, list(bulk.obsm[keys.MEASURED].columns)), pseudobulk


@checked()
def ovarian_pairs() -> tuple[AnnData, AnnData, AnnData]:
    """Load 7 high-grade serous ovarian tumours with bulk RNA-seq and summed single cells.

    The files are downloaded once and cached. Set the environment variable ``SCDECONV_DATA_DIR`` to read them from a
    folder instead.

    Returns
    -------
    bulk
        7 samples × genes, counts; ``obs["donor"]``; ``obsm["measured_fractions"]``: share of cells of 13 cell types.
    profiles
        13 cell types × genes, mean UMI per cell; ``obs["cell_type"]``, ``obs["cell_size_umi"]``.
    pseudobulk
        7 samples × the genes of ``bulk``, summed counts of all cells of a sample.

    Raises
    ------
    FileNotFoundError
        If ``SCDECONV_DATA_DIR`` is set and does not contain the files.
    ConnectionError
        If the download fails.
    OSError
        If a prepared file cannot be read.
    ValueError
        If a file in the cache has changed since it was downloaded, or if a prepared file is of another data set.

    Notes
    -----
    Hippen et al. 2023, Genome Biology, doi:10.1186/s13059-023-03077-7, as distributed by github.com/wwylab/DeMixSC
    (AGPL-3.0), commit 697cc95. The authors publish no checksums. The SHA-256 of the first download is recorded and
    checked in later calls.

    Examples
    --------
    >>> import scdeconv
    >>> bulk, profiles, pseudobulk = scdeconv.datasets.ovarian_pairs()  # doctest: +SKIP
    """
    bulk, pseudobulk, reference = load(_OVARIAN)
    return bulk, _mean_profiles([reference], list(bulk.obsm[keys.MEASURED].columns)), pseudobulk


def convert_retina(files: Mapping[str, Path]) -> dict[str, AnnData]:
    """Return the prepared objects from the seven ``retina_benchmark_*.rda`` files."""
    stem, batches = "retina_benchmark", ("batch1", "batch2")
    truth = as_table(read_r(files[f"{stem}_ground_truth.rda"]))
    tables = {
        kind: [as_table(read_r(files[f"{stem}_{kind}_{batch}.rda"])) for batch in batches]
        for kind in ("bulk", "pseudobulk")
    }
    genes = tables["bulk"][0].index
    for table in tables["bulk"] + tables["pseudobulk"]:
        genes = genes.intersection(table.index, sort=False)
    batch = [name for name, table in zip(batches, tables["bulk"], strict=True) for _ in table.columns]
    converted = {}
    for kind, pieces in tables.items():
        adata = _samples(pd.concat([piece.loc[genes] for piece in pieces], axis=1), truth)
        adata.obs["batch"] = batch
        adata.obs["donor"] = adata.obs["sample"].str.removeprefix("Macular_")
        adata.uns["fractions_kind"] = "share of nuclei in snRNA-seq of the same sample (not orthogonal)"
        converted[f"{kind}.h5ad"] = adata
    for name in batches:
        reference = read_r(files[f"{stem}_reference_{name}.rda"])["reference"]
        converted[f"reference_means_{name}.h5ad"] = _profiles(as_table(reference))
    return converted


def convert_ovarian(files: Mapping[str, Path]) -> dict[str, AnnData]:
    """Return the prepared objects from the four ``hgsc_benchmark_*.rda`` files."""
    truth, bulk, pseudobulk = (
        as_table(read_r(files[f"hgsc_benchmark_{kind}.rda"])) for kind in ("ground_truth", "bulk", "pseudobulk")
    )
    genes = bulk.index.intersection(pseudobulk.index, sort=False)
    converted = {}
    for kind, table in {"bulk": bulk, "pseudobulk": pseudobulk}.items():
        adata = _samples(table.loc[genes, bulk.columns], truth)
        adata.uns["fractions_kind"] = "share of cells in scRNA-seq of the same tumour"
        converted[f"{kind}.h5ad"] = adata
    reference = read_r(files["hgsc_benchmark_reference.rda"])["reference"]
    return {**converted, "reference_means.h5ad": _profiles(as_table(reference))}


def _samples(table: pd.DataFrame, truth: pd.DataFrame) -> AnnData:
    """Return samples × genes with measured fractions, from genes × samples and cell types × samples."""
    missing = table.columns.difference(truth.columns)
    if len(missing):
        msg = (
            f"Expected measured fractions of every sample, found none of {list(missing)[:3]}. The fractions have "
            f"{list(truth.columns)[:3]}. Check that the files are from the same data set."
        )
        raise KeyError(msg)
    names = table.columns.to_numpy()
    obs = pd.DataFrame({"sample": names, "donor": names}, index=names)
    adata = make_adata(_compact(table), obs=obs, var=pd.DataFrame(index=table.index.to_numpy()))
    fractions = truth[names].T.to_numpy(dtype=float)
    fractions = fractions / fractions.sum(axis=1, keepdims=True)
    adata.obsm[keys.MEASURED] = pd.DataFrame(fractions, index=names, columns=truth.index.to_numpy())
    return adata


def _profiles(reference: pd.DataFrame) -> AnnData:
    """Return cell types × genes from genes × cell types; columns sum to the mean UMI per cell."""
    names = reference.columns.to_numpy()
    sizes = reference.sum(axis=0).to_numpy(dtype=float)
    obs = pd.DataFrame({keys.CELL_TYPE: names, keys.CELL_SIZE: sizes}, index=names)
    return make_adata(_compact(reference), obs=obs, var=pd.DataFrame(index=reference.index.to_numpy()))


def _compact(table: pd.DataFrame) -> csr_matrix:
    values = table.to_numpy(dtype=float).T
    whole = np.array_equal(values, np.rint(values))
    return csr_matrix(values.astype(np.int32 if whole else np.float32))


def _mean_profiles(references: list[AnnData], cell_types: list[str]) -> AnnData:
    """Return the unweighted mean of the batches' profiles over shared genes."""
    genes = references[0].var_names
    for reference in references[1:]:
        genes = genes.intersection(reference.var_names, sort=False)
    aligned = [subset(reference, cell_types, genes) for reference in references]
    means = [piece.to_df().to_numpy() for piece in aligned]
    sizes = np.mean([piece.obs[keys.CELL_SIZE] for piece in aligned], axis=0)
    obs = pd.DataFrame({keys.CELL_TYPE: cell_types, keys.CELL_SIZE: sizes}, index=cell_types)
    return make_adata(np.mean(means, axis=0, dtype=np.float32), obs=obs, var=pd.DataFrame(index=genes.to_numpy()))


_BATCHED = ("bulk", "pseudobulk", "reference")
_PROFILES = (keys.CELL_TYPE, keys.CELL_SIZE)
_RETINA_TYPES = ("RGC", "AC", "BC", "HC", "Rod", "Cone", "MG")
_RETINA = Source(
    folder="retina_paired",
    prepared=("bulk.h5ad", "pseudobulk.h5ad", "reference_means_batch1.h5ad", "reference_means_batch2.h5ad"),
    url=_URL,
    originals=(
        "retina_benchmark_ground_truth.rda",
        *(f"retina_benchmark_{kind}_batch{batch}.rda" for kind in _BATCHED for batch in (1, 2)),
    ),
    convert=convert_retina,
    contents={
        **dict.fromkeys(("bulk.h5ad", "pseudobulk.h5ad"), Content((keys.DONOR, "batch"), _RETINA_TYPES)),
        **{f"reference_means_batch{batch}.h5ad": Content(_PROFILES, _RETINA_TYPES) for batch in (1, 2)},
    },
)
_OVARIAN = Source(
    folder="ovarian_paired",
    prepared=("bulk.h5ad", "pseudobulk.h5ad", "reference_means.h5ad"),
    url=_URL,
    originals=tuple(f"hgsc_benchmark_{kind}.rda" for kind in ("ground_truth", *_BATCHED)),
    convert=convert_ovarian,
    contents={
        **dict.fromkeys(("bulk.h5ad", "pseudobulk.h5ad"), Content((keys.DONOR,))),
        "reference_means.h5ad": Content(_PROFILES),
    },
)
