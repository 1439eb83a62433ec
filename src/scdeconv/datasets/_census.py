"""References from the CELLxGENE Census."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import read_h5ad

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata
from scdeconv._data.checks import checked, examples
from scdeconv._data.checks.arguments.rules import PATH
from scdeconv._data.files import publishing
from scdeconv._data.labels import plain_tables
from scdeconv._data.warnings import dependency_warnings_ignored, warn

from ._cell_sampling import CELL, balance_donors, sample_strata
from ._census_query import COLUMNS, describe_failure, filter_of, list_counts, select_cells
from ._census_store import Release, Store, date_of, open_store
from ._fetch import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

# long-term release, kept for five years: later calls return the same cells
RELEASE = "2025-11-08"
ALIASES = ("stable", "latest")
# a data set that measured fewer genes than this share of the median over data sets is left out: all genes of the result
# are measured in all data sets (set by hand)
MIN_GENE_SHARE = 0.5
KEY = "census"


@checked(uri=PATH)
def census_reference(
    tissue: str,
    *,
    disease: str | None = "normal",
    cell_types: Sequence[str] | None = None,
    suspension_type: Literal["cell", "nucleus"] = "cell",
    assays: Sequence[str] | None = None,
    max_cells_per_type: int = 500,
    min_cells: int = 20,
    organism: Literal["homo_sapiens", "mus_musculus"] = "homo_sapiens",
    census_version: str = RELEASE,
    uri: str | None = None,
    seed: int = 0,
) -> AnnData:
    """Load annotated cells of a tissue from the CELLxGENE Census, as a reference for :func:`scdeconv.pp.pair`.

    The annotation of all cells of the tissue is read in blocks. Of each cell type, a random sample of cells is chosen,
    from as many donors and as evenly as possible. Only the counts of these cells are read. The result is kept on disk;
    the same call reads it from there, also without network.

    Only primary data of tissue are used: no duplicates of cells, no organoids and no cell cultures. Genes that a data set has not
    measured are zeros in the Census. Therefore the result contains only genes that all its data sets have measured.

    Parameters
    ----------
    tissue
        Tissue as in the Census, such as ``"lung"``, ``"blood"`` or ``"dorsolateral prefrontal cortex"``. It is compared with
        the columns ``tissue_general`` and ``tissue``.
    disease
        Disease as in the Census; None: all.
    cell_types
        Cell types as in the Census; None: all. The studies of the Census name cells at different levels (``"T cell"``,
        ``"CD8-positive, alpha-beta T cell"``). Merge such types before pairing, or list those that you need.
    suspension_type
        Whole cells or nuclei. They are not mixed, because their expression differs.
    assays
        Assays as in the Census, such as ``"10x 3' v3"`` or ``"Smart-seq2"``; None: all whose names start with ``10x``.
        Counts of molecules (10x) and of reads (Smart-seq2) give different cell sizes. Use one of them.
    max_cells_per_type
        Maximum number of cells of a type.
    min_cells
        Types with fewer cells are left out. A printed line names them.
    organism
        Organism.
    census_version
        Date of a Census release, ``"stable"`` (newest long-term release) or ``"latest"`` (newest weekly release). The default is
        a fixed long-term release.
    uri
        Location of a copy of the Census, such as a folder, instead of the public one. ``census_version`` is then not used.
    seed
        Seed of the choice of cells.

    Returns
    -------
    AnnData of cells × genes, raw counts (CSR, float32).

    - ``var_names``: Ensembl identifiers; ``var["feature_name"]``: symbols.
    - ``obs["donor"]`` and ``obs["donor_id"]``: donor with its data set, such as ``census:D1:9f222629``, because studies have
      donors of the same name; ``obs["cell_type"]``. Further columns of the Census are ``dataset_id``, ``assay``,
      ``suspension_type``, ``disease``, ``tissue``, ``sex`` and ``development_stage``.
    - ``uns["census"]``: ``census_version``, the ``query``, the arguments, and the ``datasets`` with their DOIs, to be cited.

    Raises
    ------
    ImportError
        If ``cellxgene-census`` is not installed.
    ConnectionError
        If the Census cannot be read.
    FileNotFoundError
        If ``SCDECONV_DATA_DIR`` is set, which disables downloads, and does not contain the result.
    ValueError
        If no cells are found. The message contains what the Census has.

    Warns
    -----
    UserWarning
        If a type of `cell_types` has too few cells or none.

    Notes
    -----
    CZI Cell Science Program et al. 2025, Nucleic Acids Research 53, D886-D900, doi:10.1093/nar/gkae1142. The Census is
    distributed under CC BY 4.0. Cite the studies in ``uns["census"]["datasets"]``, too.

    A cell is chosen by a hash of its identifier and the seed. Therefore the choice does not depend on the size of the
    blocks. The cache is ``pooch.os_cache("scdeconv") / "census"``, or the folder ``census`` in ``SCDECONV_DATA_DIR``.

    Examples
    --------
    >>> import scdeconv
    >>> cells = scdeconv.datasets.census_reference("lung", max_cells_per_type=200)  # doctest: +SKIP
    >>> mdata = scdeconv.pp.pair(cells, bulk)  # doctest: +SKIP
    """
    query = {
        "tissue": tissue,
        "disease": disease,
        "cell_types": None if cell_types is None else sorted(set(cell_types)),
        "suspension_type": suspension_type,
        "assays": None if assays is None else sorted(set(assays)),
        "max_cells_per_type": max_cells_per_type,
        "min_cells": min_cells,
        "organism": organism,
        "seed": seed,
    }
    if uri is not None:
        release = Release(f"copy {_fingerprint(uri)}", os.fspath(uri))
    else:
        release = Release(date_of(census_version) if census_version in ALIASES else census_version)
    path = _path_of(query, release)
    if path.exists():
        return _with_all_types(_read(path), query)
    if os.environ.get(VARIABLE) and uri is None:
        msg = (
            f"Expected {path}, found no such file. {VARIABLE} is the folder of data sets and disables the download. Make the "
            f"same call on a machine with network and copy the file from its cache, or unset {VARIABLE}."
        )
        raise FileNotFoundError(msg)
    with open_store(release, organism) as store:
        cells = _load(store, query)
    if not os.environ.get(VARIABLE):
        with publishing(path) as (new,), dependency_warnings_ignored():
            cells.write_h5ad(new, compression="gzip")
    return _with_all_types(cells, query)


def _fingerprint(uri: str) -> str:
    """Return a text that changes with a store in a folder: each write adds a fragment with a unique name."""
    folder = Path(str(uri).removeprefix("file://"))
    return _hash(sorted(str(path.relative_to(folder)) for path in folder.rglob("__fragments/*")))


def _hash(values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _path_of(query: dict[str, Any], release: Release) -> Path:
    """Return the file of a query in the cache; its name contains a hash of all that the result depends on."""
    import pooch

    root = os.environ.get(VARIABLE)
    folder = (Path(root).expanduser() if root else Path(pooch.os_cache("scdeconv"))) / KEY
    name = re.sub(r"[^a-z0-9]+", "_", query["tissue"].lower()).strip("_")
    return folder / f"{name}_{_hash([query, release.version, release.uri])}.h5ad"


def _read(path: Path) -> AnnData:
    try:
        with dependency_warnings_ignored():
            return plain_tables(read_h5ad(path))
    # the type of the error depends on the damage
    except Exception as error:
        msg = (
            f"Expected cells of the Census in {path}, found an unreadable file: {error}. Delete it to read them again."
        )
        raise OSError(msg) from error


def _with_all_types(cells: AnnData, query: dict[str, Any]) -> AnnData:
    """Return the cells; warn if they lack some of the types that were asked for."""
    missing = sorted(set(query["cell_types"]) - set(cells.obs[keys.CELL_TYPE])) if query["cell_types"] else []
    if missing:
        warn(
            f"Expected at least {query['min_cells']} cells of each of cell_types, found fewer or none of {examples(missing, 20)}. "
            "Correct the names, pass a smaller min_cells, or other assays or tissues."
        )
    return cells


def _load(store: Store, query: dict[str, Any]) -> AnnData:
    """Choose cells and read their counts."""
    value_filter = filter_of(query["tissue"], query["disease"])
    seen: dict[str, Counter[str]] = {name: Counter() for name in ("suspension_type", "assay", keys.CELL_TYPE)}
    blocks = store.read_annotation(value_filter, [CELL, *COLUMNS])
    chosen = sample_strata(select_cells(blocks, query, seen), query["max_cells_per_type"], query["seed"])
    if chosen.empty:
        raise ValueError(describe_failure(store, query, seen))
    genes = store.read_genes()
    studies = store.read_studies(sorted(chosen["dataset_id"].unique()))
    measured = store.measured_genes(studies, genes)
    n_measured = measured.sum(axis=1)
    usable = n_measured >= MIN_GENE_SHARE * np.median(n_measured)
    chosen = chosen[chosen["dataset_id"].isin(studies.index[usable])]
    chosen = balance_donors(chosen, query["max_cells_per_type"])
    counts = Counter(chosen[keys.CELL_TYPE])
    rare = sorted(name for name, n in counts.items() if n < query["min_cells"])
    chosen = chosen[~chosen[keys.CELL_TYPE].isin(rare)].reset_index(drop=True)
    if chosen.empty:
        msg = (
            f"Expected a cell type with at least {query['min_cells']} cells, found {list_counts(counts)}. Pass a smaller "
            "min_cells, or other assays or tissues."
        )
        raise ValueError(msg)
    used = studies.index.isin(chosen["dataset_id"])
    genes = genes.loc[np.flatnonzero(measured[used].all(axis=0))]
    cells = _make(store, chosen, genes)
    cells.uns[KEY] = {
        "census_version": store.date or store.release.version or "",
        "query": value_filter,
        "arguments": json.dumps(query),
        "datasets": studies[used].drop(columns=CELL).astype(str),
    }
    _report(
        cells,
        {
            "without types with few cells": rare,
            "without data sets with few genes": list(studies.index[~usable]),
        },
    )
    return cells


def _make(store: Store, chosen: pd.DataFrame, genes: pd.DataFrame) -> AnnData:
    ids = chosen[CELL].to_numpy(dtype=np.int64)
    obs = store.describe_cells(ids, COLUMNS)
    obs[keys.DONOR] = obs["donor_id"] = chosen[keys.DONOR].to_numpy()
    obs = obs.set_axis([f"census-{cell}" for cell in ids]).astype("category")
    var = pd.DataFrame(
        {"feature_name": genes["feature_name"].astype(str).to_numpy()}, index=genes["feature_id"].astype(str)
    )
    return make_adata(store.read_counts(ids, genes[CELL].to_numpy(dtype=np.int64)), obs=obs, var=var.rename_axis(None))


def _report(cells: AnnData, left_out: dict[str, list[str]]) -> None:
    """Print what was chosen and what was left out."""
    n_types, n_donors, n_sets = (cells.obs[name].nunique() for name in (keys.CELL_TYPE, keys.DONOR, "dataset_id"))
    print(
        f"census_reference: {cells.n_obs:,} cells of {n_types} types from {n_donors} donors and {n_sets} data sets, "
        f"{cells.n_vars:,} genes ({', '.join(sorted(cells.obs['assay'].unique()))})"
        + "".join(f"; {reason}: {examples(names, 20)}" for reason, names in left_out.items() if names)
    )
