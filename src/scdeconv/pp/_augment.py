"""Augmentation of the pairs: subsampling of cells, and mixing of donors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv._data import keys
from scdeconv._data.checks import check_paired, checked
from scdeconv._stats.draws import subsample_fractions

if TYPE_CHECKING:
    from mudata import MuData


@checked()
def augment(
    mdata: MuData, n_aug: int = 100, aug_ratio: float = 0.8, *, mix: float | None = None, seed: int = 0
) -> None:
    """Draw ``n_aug`` compositions of random cell subsets for every paired sample, and choose how donors are mixed.

    This is the augmentation of the SimpleDNN paper (section 3.1). Bulk rows are not copied. The run time does not
    depend on the number of cells. Subsets contain no new information about the donor. They only add the sampling noise
    of the measured composition, which a model should not fit.

    With cell-type probabilities (``pair(..., probabilities_key=...)``), subsets are drawn from the rounded expected
    cell numbers, which differ from the expected numbers by less than one cell. The uncertainty of the types is not
    sampled.

    Bulk is additive, so a weighted sum of the bulk of several donors is a bulk sample, and its composition is the weighted
    sum of theirs. Mixtures are not stored: methods that use them (:class:`scdeconv.models.SimpleDNN`,
    :class:`scdeconv.models.Ridge`) draw them from their training donors. In cross-validation, donors are therefore never
    mixed across folds.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`, with cells unless ``mix`` is passed.
    n_aug
        Number of compositions per sample.
    aug_ratio
        Share of the donor's cells in each subset, above 0 and at most 1.
    mix
        Sum of the parameters of the Dirichlet distribution of the donors' weights. A mixture has about ``1 + mix``
        donors. 0: no mixtures. None: the default of each method.
    seed
        Seed of the random number generator.

    Writes
    ------
    ``mdata["bulk"].obsm["augmented_fractions"]``: array samples × n_aug × cell types, NaN for samples without cells. Not
    written if there are no cells and ``mix`` is passed.

    Raises
    ------
    KeyError
        If the cell numbers are missing and ``mix`` is not passed.
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
    record = {"n_aug": n_aug, "aug_ratio": aug_ratio, "seed": seed} | ({} if mix is None else {"mix": mix})
    if keys.MEASURED_CELLS not in bulk.obsm and mix is not None:
        mdata.uns.setdefault(keys.UNS, {})["augment"] = record
        return
    if keys.MEASURED_CELLS not in bulk.obsm:
        msg = (
            f"Expected the number of cells of each type in mdata['bulk'].obsm[{keys.MEASURED_CELLS!r}], found none. "
            "Pass cells to pp.pair, store the cell numbers there, pass mix= only, or train without augmentation."
        )
        raise KeyError(msg)
    rng = np.random.default_rng(seed)
    counts = bulk.obsm[keys.MEASURED_CELLS].to_numpy()
    augmented = np.full((len(counts), n_aug, counts.shape[1]), np.nan, dtype=np.float32)
    for row in np.flatnonzero(counts.sum(axis=1) > 0):
        augmented[row] = subsample_fractions(counts[row], n_aug, aug_ratio, rng)
    bulk.obsm[keys.AUGMENTED] = augmented
    mdata.uns.setdefault(keys.UNS, {})["augment"] = record
