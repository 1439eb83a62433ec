"""Removal of held-out donors from the data for evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import subset
from scdeconv._data.checks import check_paired, checked, examples, remember_values
from scdeconv._data.inputs import take_genes
from scdeconv._data.labels import as_labels, as_text, near_matches
from scdeconv._data.matrix import is_lazy
from scdeconv._data.modalities import make_mudata

from ._calibrate import calibrate
from ._join import make_reference
from ._select_genes import select_genes
from ._simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from anndata import AnnData
    from mudata import MuData

# records of steps that learn nothing from other donors
KEPT_RECORDS = ("pair", "augment")
# tables of bulk samples that learn nothing from other donors
KEPT_TABLES = (keys.MEASURED, keys.MEASURED_CELLS, keys.MEASURED_VARIANCE, keys.AUGMENTED)
# steps to repeat, in this order: a simulation may use the calibration
REDONE: dict[str, Callable[..., object]] = {"calibrate": calibrate, "simulate": simulate, "select_genes": select_genes}


@checked()
def hold_out(mdata: MuData, donors: Collection[str]) -> tuple[MuData, AnnData]:
    """Split the data into training data without held-out donors and bulk of the held-out donors.

    Bulk and cells of the held-out donors are removed. Profiles and pseudobulk are recomputed from the remaining donors.
    Of the bulk's ``obsm``, measured and augmented fractions are kept; other tables, such as estimates, are removed.
    Calibration, simulation and gene selection are repeated with the arguments recorded in ``mdata.uns["scdeconv"]``.
    Profiles that were passed instead of cells and a user-defined ``var["selected"]`` are not changed. They may contain
    information from the held-out donors.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. Not changed.
    donors
        Donors to hold out.

    Returns
    -------
    train
        The data without the held-out donors.
    held_out
        Bulk samples of the held-out donors.

    Raises
    ------
    ValueError
        If a donor has no bulk sample.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> donor = mdata["bulk"].obs["donor"].iloc[0]
    >>> train, held_out = scdeconv.pp.hold_out(mdata, [donor])
    >>> held_out.n_obs, donor in set(train["sc"].obs["donor"])
    (1, False)
    """
    check_paired(mdata)
    bulk = mdata[keys.BULK]
    donors = list(as_text(as_labels(pd.Index(list(donors)))))
    known = sorted(set(bulk.obs[keys.DONOR]))
    unknown = sorted(set(donors) - set(known))
    if unknown:
        near = near_matches(unknown, known)
        nearly = f" Nearly matching: {examples(f'{ours} = {theirs}' for ours, theirs in near.items())}." if near else ""
        msg = f"Expected donors of the bulk samples in donors, found {unknown}.{nearly} Choose from {known}."
        raise ValueError(msg)
    out = bulk.obs[keys.DONOR].isin(donors).to_numpy()
    held_out, kept = subset(bulk, out), subset(bulk, ~out)
    for part in (held_out, kept):
        for name in set(part.obsm) - set(KEPT_TABLES):
            del part.obsm[name]
        part.uns.clear()
    modalities = {keys.BULK: kept}
    if keys.CELLS in mdata.mod:
        all_types = list(mdata[keys.PROFILES].obs[keys.CELL_TYPE])
        for name in (keys.CELLS, keys.SUMS):
            rest = subset(mdata[name], ~mdata[name].obs[keys.DONOR].isin(donors).to_numpy())
            rest.obs[keys.CELL_TYPE] = rest.obs[keys.CELL_TYPE].cat.set_categories(all_types)
            modalities[name] = rest
        modalities |= make_reference(modalities[keys.SUMS])
    elif keys.PROFILES in mdata.mod:
        modalities[keys.PROFILES] = mdata[keys.PROFILES].copy()
        if keys.PSEUDOBULK in mdata.mod:
            pseudobulk = mdata[keys.PSEUDOBULK]
            modalities[keys.PSEUDOBULK] = subset(pseudobulk, ~pseudobulk.obs[keys.DONOR].isin(donors).to_numpy())
    return _with_steps(modalities, mdata), held_out


def keep_genes(mdata: MuData, genes: pd.Index) -> MuData:
    """Return the data with some genes; steps of :func:`hold_out` are repeated."""
    bulk = mdata[keys.BULK]
    if genes.equals(bulk.var_names):
        return mdata
    modalities = {
        name: take_genes(adata, genes) if is_lazy(adata.X) else subset(adata, genes=adata.var_names.get_indexer(genes))
        for name, adata in mdata.mod.items()
        if name != keys.SIMULATED
    }
    for name in set(modalities[keys.BULK].obsm) - set(KEPT_TABLES):
        del modalities[keys.BULK].obsm[name]
    for adata in modalities.values():
        adata.uns.clear()
    return _with_steps(modalities, mdata)


def _with_steps(modalities: Mapping[str, AnnData], mdata: MuData) -> MuData:
    """Return the modalities as training data, with the steps recorded in ``mdata`` repeated."""
    train = make_mudata(modalities)
    steps = dict(mdata.uns.get(keys.UNS, {}))
    if keys.CALIBRATION in steps:
        # a calibration passed to pp.simulate may be of all donors
        steps.setdefault("calibrate", {})
    train.uns[keys.UNS] = {name: steps[name] for name in KEPT_RECORDS if name in steps}
    remember_values(train)
    redo_steps(train, steps)
    return train


def redo_steps(mdata: MuData, steps: Mapping[str, Any]) -> None:
    """Repeat calibration, simulation and gene selection with the recorded arguments."""
    for name, step in REDONE.items():
        if name in steps:
            step(mdata, **steps[name])
