"""Donors dealt into folds, and predictions of the donors that a model has not seen."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from scdeconv import metrics
from scdeconv._data import keys
from scdeconv._data.matrix import to_dense
from scdeconv._data.modalities import make_mudata
from scdeconv._data.progress import no_progress
from scdeconv.models import load_class

from ._train import fit_method

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData

    from scdeconv.models import DeconvolutionModel

CV = Literal["leave-one-donor-out", "rows"] | int


def deal_donors(donors: Sequence[str], cv: CV, seed: int) -> list[list[str]]:
    """Deal donors into folds."""
    n_folds = len(donors) if cv == "leave-one-donor-out" else 5 if cv == "rows" else cv
    if not isinstance(n_folds, (int, np.integer)) or not 2 <= n_folds <= len(donors):
        msg = (
            f"Expected cv 'leave-one-donor-out', 'rows', or 2 to {len(donors)} donor folds (the number of paired donors), "
            f"found {cv!r}."
        )
        raise ValueError(msg)
    order = np.random.default_rng(seed).permutation(donors)
    return [list(order[fold::n_folds]) for fold in range(n_folds)]


def refuse_leakage(mdata: MuData, folds: Sequence[Sequence[str]], donors: pd.Series) -> None:
    """Raise where one donor, or the very same bulk row, is in two folds."""
    bulk = mdata[keys.BULK]
    fold_of_donor = {donor: fold for fold, members in enumerate(folds) for donor in members}
    fold_of = [fold_of_donor.get(donor, np.nan) for donor in bulk.obs[keys.DONOR]]
    row_hash = [hash(row.tobytes()) for row in to_dense(bulk.X)]
    frame = pd.DataFrame({"donor": donors.to_numpy(), "row": row_hash, "fold": fold_of}).dropna(subset="fold")
    shared = int((frame.groupby("donor")["fold"].nunique() > 1).sum())
    repeated = int((frame.groupby("row")["fold"].nunique() > 1).sum())
    if shared or repeated:
        msg = (
            f"Expected folds that share no donor and no bulk row, found {shared} donors and {repeated} identical rows in "
            "more than one fold: the score would measure memory. Split by donor, merge repeated samples, or pass "
            "allow_leakage=True to reproduce a leaking protocol."
        )
        raise ValueError(msg)


def pack(mdata: MuData) -> tuple[dict[str, AnnData], dict[str, Any]]:
    """Return what another process needs to :func:`unpack` the data; MuData itself cannot be unpickled."""
    return dict(mdata.mod), dict(mdata.uns.get(keys.UNS, {}))


def unpack(parts: tuple[dict[str, AnnData], dict[str, Any]]) -> MuData:
    """Return the data that were packed."""
    modalities, records = parts
    mdata = make_mudata(modalities)
    mdata.uns[keys.UNS] = dict(records)
    return mdata


def arguments_in_folds(method: str, arguments: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Add to a method's arguments what evaluation by folds decides: the seed, and to do without intervals."""
    if "held_out" in inspect.signature(load_class(method).train).parameters:
        # the held-out predictions that intervals rest on are a cross-validation of their own
        return {"held_out": False, "seed": seed, **arguments}
    return {"seed": seed, **arguments}


def predict_unseen(model: DeconvolutionModel, training: MuData, held_out: AnnData) -> pd.DataFrame:
    """Predict shares of cells of samples whose donors were held out; shares of RNA are divided by RNA content.

    Raises ``KeyboardInterrupt`` where Ctrl-C ended training: half a cross-validation is no result.
    """
    if getattr(model, "interrupted_", False):
        raise KeyboardInterrupt
    predicted = model.predict(held_out)
    if model.fraction_kind == "rna":
        predicted = predicted / training[keys.PROFILES].obs[keys.CELL_SIZE][predicted.columns]
        predicted = predicted.div(predicted.sum(axis=1), axis=0)
    return predicted


def truth_for(predicted: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Return the measured fractions, with zeros for a column more: unknown content, of which they have none."""
    return measured.reindex(columns=predicted.columns, fill_value=0.0)


def fold_error(training: MuData, held_out: AnnData, method: str, arguments: Mapping[str, Any]) -> float:
    """Return the RMSE, over all entries, on donors held out of training; infinite where a model diverged."""
    with no_progress():
        model = fit_method(training, method, dict(arguments))
        measured = held_out.obsm[keys.MEASURED].dropna()
        predicted = predict_unseen(model, training, held_out).loc[measured.index]
    return np.inf if predicted.isna().any(axis=None) else metrics.rmse(truth_for(predicted, measured), predicted)
