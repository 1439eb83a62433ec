"""Judge methods on donors that they have not seen."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from scdeconv import _keys as keys
from scdeconv import metrics
from scdeconv._matrix import to_dense
from scdeconv._progress import progress
from scdeconv.models import HeldOut
from scdeconv.pp import hold_out, make_mudata, paired_donors

from ._methods import get_method
from ._train import fit_method, split_arguments

if TYPE_CHECKING:
    from mudata import MuData

BASELINE = "mean_composition"
COVERAGE = 0.9
CV = Literal["leave-one-donor-out", "rows"] | int


def _folds(donors: Sequence[str], cv: CV, seed: int) -> list[list[str]]:
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


def _as_rows(mdata: MuData) -> MuData:
    """Return the data with every sample declared a donor of its own."""
    modalities = dict(mdata.mod)
    modalities[keys.BULK] = mdata[keys.BULK].copy()
    modalities[keys.BULK].obs[keys.DONOR] = mdata[keys.BULK].obs_names.to_numpy()
    rows = make_mudata(modalities)
    rows.uns[keys.UNS] = dict(mdata.uns.get(keys.UNS, {}))
    return rows


def _refuse_leakage(mdata: MuData, folds: Sequence[Sequence[str]], donors: pd.Series) -> None:
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


def _interval_scores(measured: pd.DataFrame, predicted: pd.DataFrame, donors: pd.Series) -> pd.DataFrame:
    """Return share of truths inside, and width, of each donor's intervals, made from the errors on the other donors."""
    of_sample = donors[measured.index].to_numpy().astype(str)
    true, estimate = measured.to_numpy(), predicted[measured.columns].to_numpy()
    inside, width = np.full(true.shape, np.nan), np.full(true.shape, np.nan)
    for donor in np.unique(of_sample):
        mine = of_sample == donor
        others = HeldOut(true[~mine], estimate[~mine], of_sample[~mine])
        if others.widest_coverage() >= COVERAGE:
            lower, upper = others.intervals(estimate[mine], COVERAGE)
            inside[mine], width[mine] = (lower <= true[mine]) & (true[mine] <= upper), upper - lower
    scores = pd.DataFrame({"coverage": inside.mean(axis=0), "width": width.mean(axis=0)}, index=measured.columns)
    summary = pd.DataFrame([scores.mean()] * 2, index=["all entries", "mean of types"])
    return pd.concat([scores, summary])


def cross_validate(
    mdata: MuData,
    method: str,
    *,
    cv: CV = "leave-one-donor-out",
    allow_leakage: bool = False,
    seed: int = 0,
    **kwargs: Any,
) -> pd.DataFrame:
    """Predict every paired sample by a model that has not seen its donor.

    Gene selection, simulation, scaling, stopping and whatever else the method learns are done again in each fold.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. Not changed.
    method
        A name from :func:`scdeconv.tl.methods`.
    cv
        ``"leave-one-donor-out"``, or a number of donor folds. ``"rows"`` splits samples into five folds whatever their
        donors: a leak where donors have several samples, refused unless ``allow_leakage``.
    allow_leakage
        Let a donor, or a repeated bulk row, be on both sides of the split.
    seed
        Seed of the folds and, for methods that have one, of training.
    **kwargs
        Arguments of the method, as for :func:`scdeconv.tl.train`.

    Returns
    -------
    Shares of cells, paired samples × cell types. Those of methods that estimate shares of RNA are turned into shares of
    cells by the RNA content of the training cells.

    Raises
    ------
    ValueError
        Where the split leaks, ``cv`` is unknown or there are fewer than 3 paired donors.
    KeyboardInterrupt
        On Ctrl-C: half a cross-validation is no result.
    """
    record = get_method(method)
    split_arguments(record.load_class(), kwargs)
    donors = mdata[keys.BULK].obs[keys.DONOR]
    data = _as_rows(mdata) if cv == "rows" else mdata
    folds = _folds(paired_donors(data), cv, seed)
    if not allow_leakage:
        _refuse_leakage(data, folds, donors)
    arguments = {"seed": seed, **kwargs} if record.stochastic else kwargs
    if record.kind in ("linear", "baseline"):
        # the held-out predictions that intervals rest on are a cross-validation of their own
        arguments = {"held_out": False, **arguments}
    predictions = []
    with progress(len(folds), f"{method}: {len(folds)} folds") as bar:
        for members in folds:
            training, held_out = hold_out(data, members)
            model = fit_method(training, method, arguments)
            if getattr(model, "interrupted_", False):
                raise KeyboardInterrupt
            predicted = model.predict(held_out)
            if model.fraction_kind == "rna":
                sizes = training[keys.PROFILES].obs[keys.CELL_SIZE]
                predicted = predicted / sizes[predicted.columns]
                predicted = predicted.div(predicted.sum(axis=1), axis=0)
            predictions.append(predicted)
            bar.update()
    known = mdata[keys.BULK].obsm[keys.MEASURED].dropna().index
    return pd.concat(predictions).reindex(known)


def benchmark(
    mdata: MuData,
    methods: Sequence[str] | Mapping[str, Mapping[str, Any]] = ("simplednn", "nnls"),
    *,
    cv: CV = "leave-one-donor-out",
    seeds: Sequence[int] = (0, 1, 2),
    allow_leakage: bool = False,
) -> pd.DataFrame:
    """Compare methods on held-out donors, the mean composition always among them.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. Not changed.
    methods
        Names from :func:`scdeconv.tl.methods`; or a mapping from labels to arguments, ``{"wide": {"method": "simplednn",
        "hidden": (512, 256)}}``.
    cv, allow_leakage
        As for :func:`scdeconv.tl.cross_validate`.
    seeds
        One run for each; methods without randomness run once.

    Returns
    -------
    Tidy frame with one row per method, seed and cell type, "all entries" (pooled) and "mean of types" among the cell
    types; columns ``method, seed, cell_type, n, rmse, mae, r2, pearson, ccc, bias, coverage, width, seconds``. Coverage
    and width are those of 90 % intervals, each donor's made from the errors on all others (NaN where donors are too few).
    Ctrl-C returns what is complete.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> table = scdeconv.tl.benchmark(mdata, ["nnls"])
    >>> sorted(table["method"].unique())
    ['mean_composition', 'nnls']
    """
    given = methods if isinstance(methods, Mapping) else {name: {} for name in methods}
    named = {label: {"method": label, **given.get(label, {})} for label in (*given, BASELINE)}
    for arguments in named.values():
        options = {name: value for name, value in arguments.items() if name != "method"}
        if "seed" in options:
            msg = f"Expected the seeds of all runs in seeds=, found seed={options['seed']!r} among the arguments of a method."
            raise TypeError(msg)
        split_arguments(get_method(arguments["method"]).load_class(), options)
    measured = mdata[keys.BULK].obsm[keys.MEASURED].dropna()
    rows = []
    try:
        for label, arguments in named.items():
            for seed in seeds if get_method(arguments["method"]).stochastic else seeds[:1]:
                start = time.perf_counter()
                predicted = cross_validate(mdata, cv=cv, seed=seed, allow_leakage=allow_leakage, **arguments)
                seconds = time.perf_counter() - start
                # a method may have a column more: unknown content, of which the measured fractions have none
                truth = measured.reindex(columns=predicted.columns, fill_value=0.0)
                table = metrics.table(truth, predicted)
                table = table.join(_interval_scores(truth, predicted, mdata[keys.BULK].obs[keys.DONOR]))
                table = table.rename_axis("cell_type").reset_index()
                table.insert(0, "seed", seed)
                table.insert(0, "method", label)
                rows.append(table.assign(seconds=seconds))
    except KeyboardInterrupt:
        if not rows:
            raise
        warnings.warn("Interrupted: the table holds the runs that were complete.", stacklevel=2)
    return pd.concat(rows, ignore_index=True)
