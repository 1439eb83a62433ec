"""Augmentation of measured compositions by subsampling of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv._data import keys
from scdeconv._data.checks import check_paired, checked
from scdeconv._stats.draws import subsample_fractions

if TYPE_CHECKING:
    from mudata import MuData


@checked()
def augment(mdata: MuData, n_aug: int = 100, aug_ratio: float = 0.8, *, seed: int = 0) -> None:
    """Draw ``n_aug`` compositions of random cell subsets for every paired sample.

    This is the augmentation of the SimpleDNN paper (section 3.1). Bulk rows are not copied. The run time does not
    depend on the number of cells. Subsets contain no new information about the donor. They only add the sampling noise
    of the measured composition, which a model should not fit.

    With cell-type probabilities (``pair(..., probabilities_key=...)``), subsets are drawn from the rounded expected
    cell numbers, which differ from the expected numbers by less than one cell. The uncertainty of the types is not
    sampled.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair` with cells.
    n_aug
        Number of compositions per sample.
    aug_ratio
        Share of the donor's cells in each subset, above 0 and at most 1.
    seed
        Seed of the random number generator.

    Writes
    ------
    ``mdata["bulk"].obsm["augmented_fractions"]``: array samples × n_aug × cell types, NaN for samples without cells.

    Raises
    ------
    KeyError
        If the cell numbers are missing.
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.pp.augment(mdata, n_aug=10)
    >>> mdata["bulk"].obsm["augmented_fractions"].shape[1]
    10
    """
    check_paired(mdata)
    bulk = mdata[keys.BULK]
    if keys.MEASURED_CELLS not in bulk.obsm:
        msg = (
            f"Expected the number of cells of each type in mdata['bulk'].obsm[{keys.MEASURED_CELLS!r}], found none. "
            "Pass cells to pp.pair, store the cell numbers there, or train without augmentation."
        )
        raise KeyError(msg)
    rng = np.random.default_rng(seed)
    counts = bulk.obsm[keys.MEASURED_CELLS].to_numpy()
    augmented = np.full((len(counts), n_aug, counts.shape[1]), np.nan, dtype=np.float32)
    for row in np.flatnonzero(counts.sum(axis=1) > 0):
        augmented[row] = subsample_fractions(counts[row], n_aug, aug_ratio, rng)
    bulk.obsm[keys.AUGMENTED] = augmented
    mdata.uns.setdefault(keys.UNS, {})["augment"] = {"n_aug": n_aug, "aug_ratio": aug_ratio, "seed": seed}
