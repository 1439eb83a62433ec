"""Pairing of bulk with a signature instead of the reference of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from anndata import AnnData

from scdeconv._data import keys
from scdeconv._data.checks import MOSTLY_SHARED, check_paired, examples, near_types
from scdeconv._data.gene_names import strip_versions
from scdeconv._data.labels import as_labels, as_text
from scdeconv._data.warnings import warn, warnings_ignored

from ._join import join

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def use_signature(mdata: MuData, signature: AnnData) -> MuData:
    """Pair bulk with a signature instead of cells, profiles and pseudobulk, and select all shared genes.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. Not changed.
    signature
        From :func:`scdeconv.pp.signature` or :func:`scdeconv.io.read_signature`.

    Returns
    -------
    MuData of the shared genes: ``bulk``, with measured fractions if they have the same cell types, and ``profiles``.

    Raises
    ------
    ValueError
        If the data were changed after pairing.

    Warns
    -----
    UserWarning
        If the measured fractions have other cell types, or if most genes of the signature are not in bulk.
    """
    check_paired(mdata)
    bulk = mdata[keys.BULK].copy()
    measured = bulk.obsm.pop(keys.MEASURED)
    labels = as_labels(pd.Index(signature.obs.get(keys.CELL_TYPE, signature.obs_names)))
    if set(measured.columns) - {keys.UNMEASURED} == set(labels):
        bulk.obsm[keys.MEASURED] = measured
    elif measured.notna().any(axis=None):
        near = near_types(measured.columns, as_text(labels))
        nearly = f" Names that nearly match: {examples(f'{a} = {b}' for a, b in near.items())}." if near else ""
        warn(
            f"Expected measured fractions of the cell types of the signature ({examples(labels)}), found "
            f"{examples(measured.columns)}, so no donor is paired.{nearly} Rename the types of the signature if they are "
            "the same, or train a reference-based method."
        )
    # `pair` has already warned
    with warnings_ignored(UserWarning):
        work = join({"bulk": bulk, "profiles": signature})
    work[keys.BULK].var[keys.SELECTED] = True
    missing = strip_versions(signature.var_names).difference(work.var_names, sort=False)
    if len(missing) > (1 - MOSTLY_SHARED) * signature.n_vars:
        warn(
            f"{len(missing)} of the signature's {signature.n_vars} genes are not in bulk: {examples(missing)}. The "
            "remaining genes may not separate the cell types."
        )
    # keep the unit, which was detected on all genes; calibration and simulation used other profiles
    records = mdata.uns.get(keys.UNS, {})
    work.uns[keys.UNS] = {name: records[name] for name in ("pair", "calibrate") if name in records}
    return work
