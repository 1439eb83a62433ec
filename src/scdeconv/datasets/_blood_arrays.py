"""Loader of whole-blood arrays with blood counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata
from scdeconv._data.checks import checked, examples

from ._fetch import Content, Source, load
from ._r_files import as_table, read_r

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData

_URL = "https://raw.githubusercontent.com/mchikina/CellCODE/d8aa7a69e18190f19acccb14f3dee7c1747a4c30/data"
# the cell types by the first letters of the columns of the blood count
_TYPES = {"neu": "Neutrophils", "lym": "Lymphocytes", "mon": "Monocytes", "eos": "Eosinophils", "bas": "Basophils"}
_GROUPS = {"ACR", "Stable"}
_LOG2 = "log2_as_published"


@checked()
def whole_blood_arrays() -> AnnData:
    """Load 24 whole-blood arrays of kidney transplant recipients with blood counts.

    The files are downloaded once and cached. Set the environment variable ``SCDECONV_DATA_DIR`` to read them from a
    folder instead.

    Returns
    -------
    24 samples × 12,593 genes, intensities on the linear scale; ``layers["log2_as_published"]``: the published log2 values;
    ``obs["group"]``: ``"Stable"`` (9 samples) or ``"ACR"`` (acute rejection, 15 samples); ``obsm["measured_fractions"]``: shares
    of neutrophils, lymphocytes, monocytes, eosinophils and basophils, counted by a Coulter counter.

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
    GSE20300, Shen-Orr et al. 2010, Nature Methods 7:287, doi:10.1038/nmeth.1439, as distributed by
    github.com/mchikina/CellCODE (GPL), commit d8aa7a6; Chikina et al. 2015, doi:10.1093/bioinformatics/btv015. The authors
    publish no checksums. The SHA-256 of the first download is recorded and checked in later calls.

    The counts are independent of the expression: no cell was sequenced. They are rescaled to a sum of 1.

    Examples
    --------
    >>> import scdeconv
    >>> bulk = scdeconv.datasets.whole_blood_arrays()  # doctest: +SKIP
    >>> mdata = scdeconv.pp.pair(bulk=bulk, unit="array")  # doctest: +SKIP
    """
    (bulk,) = load(_SOURCE)
    counts = bulk.obsm[keys.MEASURED]
    bulk.obsm[keys.MEASURED] = counts.div(counts.sum(axis=1), axis=0)
    return bulk


def convert_blood_arrays(files: Mapping[str, Path]) -> dict[str, AnnData]:
    """Return the prepared object from ``GSE20300.rda`` and ``cellCounts.rda``."""
    log2 = as_table(read_r(files["GSE20300.rda"])).T
    counts = as_table(read_r(files["cellCounts.rda"])).rename(columns=lambda name: _TYPES.get(name[:3].lower(), name))
    if set(counts.columns) != set(_TYPES.values()) or len(counts) != len(log2):
        msg = (
            f"Expected the counts of {', '.join(_TYPES.values())} of {len(log2)} samples in cellCounts.rda, found "
            f"{len(counts)} samples with {', '.join(counts.columns)}. Download the file again."
        )
        raise ValueError(msg)
    group = log2.index.str.rsplit("_", n=1).str[-1]
    if set(group) != _GROUPS:
        msg = (
            f"Expected sample names that end in {' or '.join(sorted(_GROUPS))} in GSE20300.rda, found "
            f"{examples(log2.index)}. Download the file again."
        )
        raise ValueError(msg)
    # the counts of some versions have no sample names; they are in the order of the arrays
    named = set(counts.index) == set(log2.index)
    counts = counts.loc[log2.index] if named else counts.set_axis(log2.index, axis=0)
    values = log2.to_numpy(dtype=np.float32)
    obs = pd.DataFrame({"group": group}, index=log2.index)
    bulk = make_adata(np.exp2(values), obs=obs, var=pd.DataFrame(index=log2.columns))
    bulk.layers[_LOG2] = values
    bulk.obsm[keys.MEASURED] = counts
    bulk.uns["fractions_kind"] = "share of cells in the blood count (orthogonal)"
    return {"bulk.h5ad": bulk}


_SOURCE = Source(
    folder="wholeblood_gse20300_array_cbc",
    prepared=("bulk.h5ad",),
    url=_URL,
    originals=("GSE20300.rda", "cellCounts.rda"),
    convert=convert_blood_arrays,
    contents={"bulk.h5ad": Content(("group",), tuple(_TYPES.values()))},
)
