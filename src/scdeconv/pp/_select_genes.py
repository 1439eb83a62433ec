"""Selection of informative genes for a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import subset, values_of
from scdeconv._data.checks import check_paired, checked
from scdeconv._data.matrix import to_dense
from scdeconv._data.modalities import cell_types_of, check_reference
from scdeconv._stats.expression import log_cpm
from scdeconv._stats.markers import GENES_PER_TYPE, agreement, best_per_type, marker_ratio

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

Criterion = Literal["markers", "variance", "agreement"]


def _paired_rows(mdata: MuData) -> tuple[AnnData, AnnData]:
    bulk, pseudobulk = mdata[keys.BULK], mdata[keys.PSEUDOBULK]
    position = pd.Series(np.arange(pseudobulk.n_obs), index=pseudobulk.obs[keys.DONOR].to_numpy())
    partner = position.reindex(bulk.obs[keys.DONOR]).to_numpy()
    found = ~np.isnan(partner)
    return subset(bulk, found), subset(pseudobulk, partner[found].astype(int))


@checked()
def select_genes(mdata: MuData, n_genes: int | None = None, *, criterion: Criterion | None = None) -> None:
    """Select the genes for model training.

    The selection uses all donors in ``mdata``. In cross-validation (:func:`scdeconv.tl.benchmark`), it is repeated on
    the training donors of each fold with the same arguments.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`.
    n_genes
        Number of genes. Default: 50 per cell type.
    criterion
        ``"markers"``: expression ratio of the highest to the second-highest cell type, with the same number of genes
        per type. ``"variance"``: variance of log CPM over donors with bulk, samples of a donor averaged.
        ``"agreement"``: correlation over pairs between bulk and pseudobulk.

    Writes
    ------
    ``mdata["bulk"].var["selected"]``: bool.

    Raises
    ------
    ValueError
        If an argument is out of range, or if there are fewer than 2 donors with bulk (``"variance"``) or fewer than 3
        donors with bulk and pseudobulk (``"agreement"``).
    KeyError
        If there is no pseudobulk (``"agreement"``).

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.pp.select_genes(mdata, 70)
    >>> int(mdata["bulk"].var["selected"].sum())
    70
    """
    if criterion is None:
        criterion = "markers" if keys.PROFILES in mdata.mod else "variance"
    check_paired(mdata)
    bulk = mdata[keys.BULK]
    wanted = GENES_PER_TYPE * len(cell_types_of(mdata)) if n_genes is None else n_genes
    wanted = min(wanted, bulk.n_vars)
    if criterion == "markers":
        check_reference(mdata, "criterion='markers'")
        selected = best_per_type(*marker_ratio(values_of(mdata[keys.PROFILES])), wanted)
    elif criterion == "variance":
        donors = pd.DataFrame(log_cpm(to_dense(bulk.X))).groupby(bulk.obs[keys.DONOR].to_numpy()).mean()
        if len(donors) < 2:
            msg = "Expected at least 2 donors with bulk for criterion='variance', found 1. Use criterion='markers'."
            raise ValueError(msg)
        selected = best_per_type(np.zeros(bulk.n_vars), donors.var(axis=0).to_numpy(), wanted)
    else:
        if keys.PSEUDOBULK not in mdata.mod:
            msg = "Expected mdata['pseudobulk'] for criterion='agreement', found none. Pass pseudobulk to pp.pair."
            raise KeyError(msg)
        first, second = _paired_rows(mdata)
        n_donors = first.obs[keys.DONOR].nunique()
        if n_donors < 3:
            msg = (
                f"Expected at least 3 donors with bulk and pseudobulk for criterion='agreement', found {n_donors}. "
                "Use criterion='markers'."
            )
            raise ValueError(msg)
        score = agreement(log_cpm(to_dense(first.X)), log_cpm(to_dense(second.X)))
        selected = best_per_type(np.zeros(bulk.n_vars), score, wanted)
    bulk.var[keys.SELECTED] = selected
    mdata.uns.setdefault(keys.UNS, {})["select_genes"] = {"n_genes": n_genes, "criterion": criterion}
