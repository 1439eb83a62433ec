"""Learn from pairs how bulk differs from single cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import values_of
from scdeconv._data.matrix import is_integer
from scdeconv._data.reference import Reference
from scdeconv._stats import compositions
from scdeconv._stats.calibration.fit import calibration_without_pairs, fit_platform_calibration
from scdeconv._stats.compositions import FLOOR

from ._calibration import Calibration
from ._pair import FEWEST_PAIRS

if TYPE_CHECKING:
    from collections.abc import Collection

    from mudata import MuData

    from scdeconv._stats.calibration.platform_calibration import PlatformCalibration


@overload
def centred_log_ratio(fractions: pd.DataFrame, floor: float = FLOOR) -> pd.DataFrame: ...
@overload
def centred_log_ratio(fractions: np.ndarray, floor: float = FLOOR) -> np.ndarray: ...
def centred_log_ratio(fractions: pd.DataFrame | np.ndarray, floor: float = FLOOR) -> pd.DataFrame | np.ndarray:
    """Return log fractions less their mean over cell types, for methods that do not know that fractions sum to 1.

    Parameters
    ----------
    fractions
        Samples × cell types, as a DataFrame or an array.
    floor
        Smaller fractions are raised to it, since zero has no logarithm. By default one cell in a thousand. What is said
        of rare types depends on it.

    Returns
    -------
    The same samples × cell types, in the same form; rows sum to 0. Rows with NaN are NaN.

    Examples
    --------
    >>> import pandas as pd
    >>> import scdeconv
    >>> fractions = pd.DataFrame({"B": [0.2, 0.0], "T": [0.8, 1.0]}, index=["s1", "s2"])
    >>> scdeconv.pp.centred_log_ratio(fractions).round(2)
           B     T
    s1 -0.69  0.69
    s2 -3.45  3.45
    """
    values = fractions.to_numpy(dtype=float) if isinstance(fractions, pd.DataFrame) else fractions
    ratios = compositions.centred_log_ratio(values, floor)
    if isinstance(fractions, pd.DataFrame):
        return pd.DataFrame(ratios, fractions.index, fractions.columns)
    return ratios


def fit_calibration(
    mdata: MuData,
    reference: Reference,
    genes: pd.Index,
    *,
    without: Collection[str] = (),
    batch_key: str | None = None,
) -> PlatformCalibration:
    """Fit the calibration to the pairs over some genes, some donors left out of bulk and reference.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`.
    reference
        Reference of ``mdata`` over the same genes.
    genes
        Genes of ``mdata``, in the order of the arrays.
    without
        Donors to leave out.
    batch_key
        Column of ``mdata["bulk"].obs`` with the batch of bulk samples.
    """
    bulk = mdata[keys.BULK]
    profiles, cell_size = reference.profiles(without)
    kept = ~bulk.obs[keys.DONOR].isin(without).to_numpy()
    known = kept & bulk.obsm[keys.MEASURED].notna().all(axis=1).to_numpy()
    donors = bulk.obs[keys.DONOR].to_numpy()[known].astype(str)
    depths = values_of(bulk, kept, genes).sum(axis=1) if is_integer(bulk.X) else np.empty(0)
    if len(np.unique(donors)) < FEWEST_PAIRS:
        return calibration_without_pairs(profiles, cell_size, depths)
    return fit_platform_calibration(
        expression=values_of(bulk, known, genes),
        fractions=bulk.obsm[keys.MEASURED].to_numpy(dtype=float)[known],
        donors=donors,
        profiles=profiles,
        cell_size=cell_size,
        depths=depths,
        batches=None if batch_key is None else bulk.obs[batch_key].to_numpy()[known].astype(str),
    )


def calibrate(mdata: MuData, *, batch_key: str | None = None) -> Calibration:
    """Learn from the pairs how bulk differs from single cells.

    Per gene, the shift between the platforms and how repeatable it is over donors; per cell type, the RNA of a cell;
    over genes, what else differs between bulk samples of known composition (low rank plus independent); and the
    distribution of compositions. With few pairs all of it is shrunk: shifts to 0 by their standard error, variances and
    correlations as Strimmer and colleagues do, cell sizes to what was counted in the cells. With fewer than 3 paired
    donors it is what the reference alone says, with wide uncertainty.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`.
    batch_key
        Column of ``mdata["bulk"].obs`` with the batch of bulk samples, whose shifts are then told apart.

    Returns
    -------
    The calibration, all genes of ``mdata``.

    Writes
    ------
    ``mdata.uns["scdeconv"]["calibration"]``: the same as tables and arrays.

    Raises
    ------
    KeyError
        Where there is no such column.

    Notes
    -----
    Shrinkage: Schäfer & Strimmer 2005 (correlations), Opgen-Rhein & Strimmer 2007 (variances).

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> calibration = scdeconv.pp.calibrate(mdata)
    >>> calibration.genes["platform_shift"].shape
    (300,)
    """
    bulk = mdata[keys.BULK]
    if batch_key is not None and batch_key not in bulk.obs:
        msg = f"Expected column {batch_key!r} in mdata['bulk'].obs, found {list(bulk.obs.columns)}."
        raise KeyError(msg)
    reference = Reference(mdata, bulk.var_names)
    arrays = fit_calibration(mdata, reference, bulk.var_names, batch_key=batch_key)
    calibration = Calibration.from_arrays(arrays, bulk.var_names, reference.cell_types)
    records = mdata.uns.setdefault(keys.UNS, {})
    records["calibrate"] = {"batch_key": batch_key}
    records[keys.CALIBRATION] = calibration.to_dict()
    return calibration
