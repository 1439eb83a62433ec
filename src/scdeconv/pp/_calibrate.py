"""Estimation of the differences between bulk and single cells from pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import numpy as np
import pandas as pd
from scipy.special import softmax

from scdeconv._data import keys
from scdeconv._data.checks import Problems, check_labels, check_paired, checked, examples
from scdeconv._data.modalities import check_reference
from scdeconv._data.paired_data import PairedData
from scdeconv._data.warnings import warn
from scdeconv._stats import compositions
from scdeconv._stats.calibration.fit import calibration_without_pairs, fit_platform_calibration
from scdeconv._stats.compositions import FLOOR
from scdeconv._stats.expression import log_shares

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
@checked()
def centred_log_ratio(fractions: pd.DataFrame | np.ndarray, floor: float = FLOOR) -> pd.DataFrame | np.ndarray:
    """Return centred log-ratios of fractions, for statistical methods without a sum constraint.

    The centred log-ratio is the log fraction minus the mean log fraction over cell types.

    Parameters
    ----------
    fractions
        Samples × cell types, as a DataFrame or an array.
    floor
        Lower bound of the fractions before the logarithm. Default: one cell in a thousand. Results for rare types
        depend on it.

    Returns
    -------
    Log-ratios, samples × cell types, of the same type as ``fractions``. Rows sum to 0. Rows with NaN are NaN.

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
    ratios = compositions.centred_log_ratio(np.asarray(fractions, dtype=float), floor)
    if isinstance(fractions, pd.DataFrame):
        return pd.DataFrame(ratios, fractions.index, fractions.columns)
    return ratios


# alternations of calibration and completion of fractions that were not measured; set by hand
N_COMPLETIONS = 10


def fit_calibration(data: PairedData, without: Collection[str], *, batch_key: str | None) -> PlatformCalibration:
    """Fit the calibration to the pairs without held-out donors.

    Types that a pair lacks are first completed with the mean composition, then with estimates under the calibration.

    Parameters
    ----------
    data
        Pairs, bulk and reference.
    without
        Held-out donors.
    batch_key
        Column of ``data.samples`` with the batch of bulk samples.
    """
    bulk = data.mdata[keys.BULK]
    profiles, cell_size = data.reference.profiles(without)
    depths = data.bulk(without).sum(axis=1) if data.is_counts else np.empty(0)
    pairs = data.pairs(without)
    if len(np.unique(pairs.donors)) < FEWEST_PAIRS:
        return calibration_without_pairs(profiles, cell_size, depths)
    batches = None if batch_key is None else bulk.obs[batch_key].to_numpy()[data.paired(without)].astype(str)

    def fit(fractions: np.ndarray) -> PlatformCalibration:
        return fit_platform_calibration(
            expression=pairs.expression,
            fractions=fractions,
            donors=pairs.donors,
            profiles=profiles,
            cell_size=cell_size,
            depths=depths,
            batches=batches,
        )

    calibration = fit(pairs.fractions)
    for _ in range(N_COMPLETIONS if data.lacks_types(without) else 0):
        ratios = calibration.model().solve(log_shares(pairs.expression), pairs.expression.sum(axis=1))
        calibration = fit(data.pairs(without, estimates=softmax(ratios, axis=1)).fractions)
    return calibration


def _check_batches(batches: pd.Series, paired: np.ndarray, name: str) -> None:
    """Refuse samples without a batch, two spellings of a batch, and batches of one paired sample each; warn about some."""
    problems = Problems("The batches cannot be used")
    labels = check_labels(problems, batches, name, "batch")
    sizes = labels[paired].value_counts()
    single = list(sizes.index[sizes == 1])
    if len(sizes) and len(single) == len(sizes):
        problems.add(
            f"Expected batches of several paired samples in {name}, found one sample in each of {len(single)} batches: "
            f"{examples(single)}. A batch cannot be told from its donor. Merge batches, or omit batch_key."
        )
    problems.raise_if_any()
    if single:
        warn(
            f"Expected several paired samples of each batch in {name}, found one of {examples(single)}. The shift of "
            "these batches is mostly that of their donor. Merge them with similar batches, or omit batch_key."
        )


@checked()
def calibrate(mdata: MuData, *, batch_key: str | None = None) -> Calibration:
    """Estimate the differences between bulk and single cells from the pairs.

    The calibration contains

    - the platform shift of each gene and its repeatability over donors;
    - the RNA per cell of each cell type;
    - the residual covariance between genes (low rank plus independent);
    - the distribution of compositions.

    Parameters are shrunk according to their uncertainty: shifts to 0, variances and correlations as in Strimmer and
    colleagues, cell sizes to the UMI-based sizes. With fewer than 3 paired donors, the calibration is a prior with wide
    uncertainty that uses the reference only.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`.
    batch_key
        Column of ``mdata["bulk"].obs`` with the batch of bulk samples. One shift per batch is then estimated.

    Returns
    -------
    The calibration over all genes of ``mdata``.

    Writes
    ------
    ``mdata.uns["scdeconv"]["calibration"]``: the calibration as tables and arrays.

    Raises
    ------
    KeyError
        If the column ``batch_key`` is missing.
    ValueError
        If a sample has no batch, or if every batch has one paired sample only.

    Warns
    -----
    UserWarning
        If some batches have one paired sample.

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
    check_reference(mdata, "pp.calibrate")
    check_paired(mdata)
    bulk = mdata[keys.BULK]
    if batch_key is not None and batch_key not in bulk.obs:
        msg = (
            f"Expected column {batch_key!r} in mdata['bulk'].obs, found {list(bulk.obs.columns)}. "
            "Pass one of these columns as batch_key=."
        )
        raise KeyError(msg)
    data = PairedData(mdata, bulk.var_names)
    if batch_key is not None:
        _check_batches(bulk.obs[batch_key], data.paired(), f"mdata['bulk'].obs[{batch_key!r}]")
    arrays = fit_calibration(data, (), batch_key=batch_key)
    calibration = Calibration.from_arrays(arrays, bulk.var_names, data.cell_types)
    records = mdata.uns.setdefault(keys.UNS, {})
    records["calibrate"] = {"batch_key": batch_key}
    records[keys.CALIBRATION] = calibration.to_dict()
    return calibration
