"""Donor folds, and predictions of held-out donors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from scdeconv import metrics
from scdeconv._data import keys
from scdeconv._data.annotated import without_file
from scdeconv._data.fractions import has_measured, scored_tables
from scdeconv._data.matrix import to_dense
from scdeconv._data.modalities import cell_types_of, make_mudata
from scdeconv._data.progress import no_progress
from scdeconv.models import HeldOut, resolve

from ._train import fit_method, keyword_arguments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData

    from scdeconv.models import DeconvolutionModel, MethodLike

# coverage of the prediction intervals that are scored
COVERAGE = 0.9
CV = Literal["leave-one-donor-out", "rows"] | int


def deal_donors(donors: Sequence[str], cv: CV, seed: int) -> list[list[str]]:
    """Return the donors of each fold."""
    n_folds = len(donors) if cv == "leave-one-donor-out" else 5 if cv == "rows" else cv
    if not isinstance(n_folds, (int, np.integer)) or not 2 <= n_folds <= len(donors):
        msg = (
            f"Expected cv 'leave-one-donor-out', 'rows', or 2 to {len(donors)} donor folds (the number of paired "
            f"donors), found {cv!r}. Correct cv."
        )
        raise ValueError(msg)
    order = np.random.default_rng(seed).permutation(donors)
    return [list(order[fold::n_folds]) for fold in range(n_folds)]


def refuse_leakage(mdata: MuData, folds: Sequence[Sequence[str]], donors: pd.Series) -> None:
    """Raise ``ValueError`` if a donor or an identical bulk row is in two folds."""
    bulk = mdata[keys.BULK]
    fold_of_donor = {donor: fold for fold, members in enumerate(folds) for donor in members}
    fold_of = [fold_of_donor.get(donor, np.nan) for donor in bulk.obs[keys.DONOR]]
    row_hash = [hash(row.tobytes()) for row in to_dense(bulk.X)]
    frame = pd.DataFrame({"donor": donors.to_numpy(), "row": row_hash, "fold": fold_of}).dropna(subset="fold")
    shared = int((frame.groupby("donor")["fold"].nunique() > 1).sum())
    repeated = int((frame.groupby("row")["fold"].nunique() > 1).sum())
    if shared or repeated:
        msg = (
            f"Expected folds without shared donors and bulk rows, found {shared} donors and {repeated} identical "
            "rows in more than one fold. The score would be biased. Split by donor, merge repeated samples, or pass "
            "allow_leakage=True to reproduce a protocol with leakage."
        )
        raise ValueError(msg)


def pack(mdata: MuData) -> tuple[dict[str, AnnData], dict[str, Any]]:
    """Return picklable parts of the data for :func:`unpack`; MuData and AnnData of a file cannot be unpickled."""
    modalities = {name: without_file(adata) for name, adata in mdata.mod.items()}
    return modalities, dict(mdata.uns.get(keys.UNS, {}))


def unpack(parts: tuple[dict[str, AnnData], dict[str, Any]]) -> MuData:
    """Return the data from their parts."""
    modalities, records = parts
    mdata = make_mudata(modalities)
    mdata.uns[keys.UNS] = dict(records)
    return mdata


def arguments_in_folds(method: MethodLike, arguments: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return the arguments of the method with the seed and, if it has the argument, ``held_out=False``."""
    if "held_out" in keyword_arguments(resolve(method)[0].train):
        # out-of-fold predictions are not needed here and would be a nested cross-validation
        return {"held_out": False, "seed": seed, **arguments}
    return {"seed": seed, **arguments}


def predict_unseen(model: DeconvolutionModel, training: MuData, held_out: AnnData) -> pd.DataFrame:
    """Return the cell fractions of held-out samples; RNA fractions are converted with the RNA content of the cells.

    Raises ``KeyboardInterrupt`` if Ctrl-C interrupted the training, because partial results are discarded.
    """
    if model.interrupted_:
        raise KeyboardInterrupt
    # with leakage, a held-out sample may be a training sample
    predicted = model.predict(held_out, in_sample=True)
    if model.fraction_kind == "rna":
        predicted = predicted / training[keys.PROFILES].obs[keys.CELL_SIZE][predicted.columns]
        predicted = predicted.div(predicted.sum(axis=1), axis=0)
    return predicted


def interval_scores(measured: pd.DataFrame, predicted: pd.DataFrame, donors: pd.Series) -> pd.DataFrame:
    """Return coverage and width of the prediction intervals of each donor, from the errors of the other donors."""
    of_sample = donors[measured.index].to_numpy().astype(str)
    true, estimate = measured.to_numpy(), predicted[measured.columns].to_numpy()
    held_out = HeldOut(true, estimate, of_sample)
    inside, width = np.full(true.shape, np.nan), np.full(true.shape, np.nan)
    for donor in np.unique(of_sample):
        mine = of_sample == donor
        others = held_out.without(donor)
        if others.widest_coverage() >= COVERAGE:
            lower, upper = others.intervals(estimate[mine], COVERAGE)
            inside[mine], width[mine] = (lower <= true[mine]) & (true[mine] <= upper), upper - lower
    scores = pd.DataFrame({"coverage": inside.mean(axis=0), "width": width.mean(axis=0)}, index=measured.columns)
    summary = pd.DataFrame([scores.mean()] * 2, index=["all entries", "mean of types"])
    return pd.concat([scores, summary])


def fold_error(training: MuData, held_out: AnnData, method: MethodLike, arguments: Mapping[str, Any]) -> float:
    """Return the RMSE over all entries on held-out donors; infinite if the training diverged."""
    with no_progress():
        model = fit_method(training, method, dict(arguments))
        predicted = predict_unseen(model, training, held_out)
        known = has_measured(held_out.obsm[keys.MEASURED])
        if predicted[known].isna().any(axis=None):
            return np.inf
        measured, predicted = scored_tables(held_out.obsm[keys.MEASURED], predicted, cell_types_of(training))
    return metrics.rmse(measured, predicted)
