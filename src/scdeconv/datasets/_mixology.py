"""Loader of lung cancer cell-line mixtures with known composition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata, subset
from scdeconv._data.checks import checked
from scdeconv._data.warnings import dependency_warnings_ignored

from ._fetch import Content, Source, load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_URL = "https://raw.githubusercontent.com/LuyiTian/sc_mixology/7d00ffb0bd043467f365a9358d7312f294f13c9f/data/csv"
_CELLS = ("sc_celseq2", "sc_dropseq", "sc_celseq2_5cl_p1", "sc_celseq2_5cl_p2", "sc_celseq2_5cl_p3")
_CELL_MIXTURES = ("cellmix1", "cellmix2", "cellmix3", "cellmix4", "cellmix5")
_RNA_MIXTURES = ("RNAmix_celseq2", "RNAmix_sortseq")
_LINES = ["H1975", "H2228", "HCC827"]
_MIN_OBSERVATIONS = 3
_NOTE = "H2228 and HCC827 are exchanged in the published design of the RNA mixtures; measured_fractions is corrected"


@checked()
def cell_line_mixtures() -> tuple[AnnData, AnnData]:
    """Load single cells of five lung cancer cell lines and mixtures of three of them with known proportions.

    The files are downloaded once and cached. Set the environment variable ``SCDECONV_DATA_DIR`` to read them from a
    folder instead.

    Returns
    -------
    cells
        1,021 cells × genes (Ensembl), UMI counts of five plates or runs; ``obs["cell_type"]`` (cell line),
        ``obs["batch"]``, ``obs["donor"]`` (combination of line and batch).
    bulk
        Mixtures × genes, UMI counts, summed over wells of the same design and plate; ``obs["batch"]``, ``obs["donor"]``
        (plate), ``obs["kind"]`` (cell or RNA mixture), ``obs["n_wells"]``; ``obsm["measured_fractions"]`` of the three
        mixed lines.

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
    Tian et al. 2019, Nature Methods 16:479; github.com/LuyiTian/sc_mixology (MIT), commit 7d00ffb. The authors publish
    no checksums. The SHA-256 of the first download is recorded and checked in later calls.

    H2228 and HCC827 are swapped in the published design of the RNA mixtures: the pure wells of each correlate with bulk
    of the other line. ``obsm["measured_fractions"]`` is corrected, ``obsm["fractions_as_published"]`` is not.
    ``obs["labels_corrected"]`` marks the corrected samples. Fractions are shares of cells in cell mixtures and shares
    of RNA in RNA mixtures. The genes include ERCC spike-ins.

    Examples
    --------
    >>> import scdeconv
    >>> cells, bulk = scdeconv.datasets.cell_line_mixtures()  # doctest: +SKIP
    """
    cells, bulk = load(_SOURCE)
    return cells, bulk


def convert_mixology(files: Mapping[str, Path]) -> dict[str, AnnData]:
    """Return the prepared objects from the ``*.count.csv.gz`` and ``*.metadata.csv.gz`` files."""
    cells = _stack({name: _singlets(*_read(files, name)) for name in _CELLS})
    cells.obs["donor"] = cells.obs[keys.CELL_TYPE].astype(str) + "@" + cells.obs["batch"].astype(str)
    wells = _stack({name: _wells(*_read(files, name), exchanged=False) for name in _CELL_MIXTURES})
    rna_wells = _stack({name: _wells(*_read(files, name), exchanged=True) for name in _RNA_MIXTURES})
    with dependency_warnings_ignored():
        wells = anndata.concat([wells, rna_wells], join="outer", fill_value=0)
    return {"cells.h5ad": _seen(cells), "mixtures_pooled.h5ad": _pool(_seen(wells))}


def _read(files: Mapping[str, Path], name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return counts (genes × observations) and metadata of the observations."""
    counts = pd.read_csv(files[f"{name}.count.csv.gz"], index_col=0)
    metadata = pd.read_csv(files[f"{name}.metadata.csv.gz"], index_col=0)
    return counts, metadata.loc[counts.columns]


def _counts(counts: pd.DataFrame, obs: pd.DataFrame) -> AnnData:
    matrix = csr_matrix(counts[obs.index].to_numpy().T.astype(np.int32))
    return make_adata(matrix, obs=obs, var=pd.DataFrame(index=counts.index.astype(str)))


def _singlets(counts: pd.DataFrame, metadata: pd.DataFrame) -> AnnData:
    metadata = metadata[metadata["demuxlet_cls"] == "SNG"]
    return _counts(counts, metadata["cell_line_demuxlet"].rename(keys.CELL_TYPE).to_frame())


def _wells(counts: pd.DataFrame, metadata: pd.DataFrame, *, exchanged: bool) -> AnnData:
    """Return the wells with a design and their published and corrected fractions."""
    design = metadata[[f"{line}_prop" if exchanged else line for line in _LINES]].set_axis(_LINES, axis=1).dropna()
    design = design[design.sum(axis=1) > 0]
    obs = pd.DataFrame({"kind": "RNA mixture" if exchanged else "cell mixture"}, index=design.index)
    poor = metadata.get("poor_quality", pd.Series("NO", index=metadata.index)).astype(str).str.upper()
    obs["poor"] = poor[design.index].isin(["YES", "TRUE"])
    obs["labels_corrected"] = exchanged
    adata = _counts(counts, obs)
    published = design.div(design.sum(axis=1), axis=0).to_numpy(dtype=float)
    adata.obsm["fractions_as_published"] = published
    adata.obsm[keys.MEASURED] = published[:, [0, 2, 1]] if exchanged else published
    return adata


def _stack(batches: Mapping[str, AnnData]) -> AnnData:
    """Return concatenated batches; genes that a batch lacks have count 0."""
    for name, adata in batches.items():
        adata.obs_names = [f"{name}:{observation}" for observation in adata.obs_names]
    with dependency_warnings_ignored():
        return anndata.concat(batches, label="batch", join="outer", fill_value=0)


def _seen(adata: AnnData) -> AnnData:
    observed = np.asarray((adata.X > 0).sum(axis=0)).ravel() >= _MIN_OBSERVATIONS
    return subset(adata, genes=sorted(adata.var_names[observed]))


def _pool(wells: AnnData) -> AnnData:
    """Return summed wells of good quality for each design and plate."""
    wells = subset(wells, ~wells.obs["poor"].to_numpy())
    design = ["_".join(str(share) for share in row) for row in wells.obsm[keys.MEASURED].round(4).tolist()]
    labels = [f"{batch}|{name}" for batch, name in zip(wells.obs["batch"], design, strict=True)]
    code, names = pd.factorize(np.array(labels, dtype=object), sort=True)
    members = csr_matrix((np.ones(len(code), dtype=np.int32), (code, np.arange(len(code)))))
    first = np.array([np.flatnonzero(code == i)[0] for i in range(len(names))])
    obs = wells.obs.iloc[first][["batch", "kind", "labels_corrected"]].set_axis(names, axis=0)
    obs["n_wells"] = np.bincount(code)
    obs["donor"] = obs["batch"].astype(str)
    pooled = make_adata(csr_matrix(members @ wells.X), obs=obs, var=wells.var.copy())
    for key in (keys.MEASURED, "fractions_as_published"):
        pooled.obsm[key] = pd.DataFrame(wells.obsm[key][first], index=pooled.obs_names, columns=_LINES)
    pooled.uns["fractions_kind"] = "designed mixture (known by construction)"
    pooled.uns["label_note"] = _NOTE
    return pooled


_SOURCE = Source(
    folder="celllines_mixology",
    prepared=("cells.h5ad", "mixtures_pooled.h5ad"),
    url=_URL,
    originals=tuple(
        f"{name}.{part}.csv.gz" for name in (*_CELLS, *_CELL_MIXTURES, *_RNA_MIXTURES) for part in ("count", "metadata")
    ),
    convert=convert_mixology,
    contents={
        "cells.h5ad": Content((keys.CELL_TYPE, "batch", keys.DONOR), (*_LINES, "A549", "H838")),
        "mixtures_pooled.h5ad": Content(("batch", keys.DONOR, "kind", "n_wells"), tuple(_LINES)),
    },
)
