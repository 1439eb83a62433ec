"""A signature in place of what the data know of the cell types."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from anndata import AnnData

from scdeconv._data import keys
from scdeconv._data.genes import strip_versions
from scdeconv._data.validation import examples
from scdeconv._data.warnings import warn

from ._pair import join

if TYPE_CHECKING:
    from mudata import MuData

LEAST_SHARE_OF_MARKERS = 0.5


def use_signature(mdata: MuData, signature: AnnData) -> MuData:
    """Pair bulk with a signature in place of its cells, profiles and pseudobulk, and select all genes of the signature.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. Not changed.
    signature
        From :func:`scdeconv.pp.signature` or :func:`scdeconv.io.read_signature`.

    Returns
    -------
    MuData of the shared genes: ``bulk``, with its measured fractions where they are of the same cell types, and
    ``profiles``.
    """
    if not isinstance(signature, AnnData):
        msg = f"Expected signature as AnnData, found {type(signature).__name__}. Make it with pp.signature."
        raise TypeError(msg)
    bulk = mdata[keys.BULK].copy()
    measured = bulk.obsm.pop(keys.MEASURED)
    labels = signature.obs.get(keys.CELL_TYPE, signature.obs_names)
    if set(measured.columns) == set(labels):
        bulk.obsm[keys.MEASURED] = measured
    elif measured.notna().any(axis=None):
        warn(
            f"The measured fractions are of other cell types ({examples(measured.columns)}) than the signature "
            f"({examples(labels)}), so no donor is paired: only methods that need no pairs can be trained."
        )
    with warnings.catch_warnings():
        # `pair` has already warned
        warnings.simplefilter("ignore", UserWarning)
        work = join({"bulk": bulk, "profiles": signature})
    work[keys.BULK].var[keys.SELECTED] = True
    missing = strip_versions(signature.var_names).difference(work.var_names, sort=False)
    if len(missing) > (1 - LEAST_SHARE_OF_MARKERS) * signature.n_vars:
        warn(
            f"{len(missing)} of the signature's {signature.n_vars} genes are not in bulk: {examples(missing)}. The "
            "others may not tell the cell types apart."
        )
    # the unit was seen in all genes; what was calibrated or simulated is of other profiles
    records = mdata.uns.get(keys.UNS, {})
    work.uns[keys.UNS] = {name: records[name] for name in ("pair", "calibrate") if name in records}
    return work
