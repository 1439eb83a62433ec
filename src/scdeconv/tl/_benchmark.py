"""Judge methods on donors that they have not seen."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from scdeconv import metrics
from scdeconv._data import keys
from scdeconv._data.progress import no_progress, progress
from scdeconv._data.warnings import warn
from scdeconv.models import HeldOut, get_record, load_class
from scdeconv.pp import hold_out, paired_donors

from ._folds import CV, arguments_in_folds, deal_donors, pack, predict_unseen, refuse_leakage, truth_for, unpack
from ._train import fit_method, split_arguments, take_preparation
from ._tune import tune as tune_method

if TYPE_CHECKING:
    from mudata import MuData

COVERAGE = 0.9
# what cross_validate hands on to tl.tune in each fold
TUNING = frozenset({"search_space", "n_trials", "cv", "executor"})


def _as_rows(mdata: MuData) -> MuData:
    """Return the data with every sample declared a donor of its own."""
    modalities, records = pack(mdata)
    modalities[keys.BULK] = mdata[keys.BULK].copy()
    modalities[keys.BULK].obs[keys.DONOR] = mdata[keys.BULK].obs_names.to_numpy()
    return unpack((modalities, records))


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


def _check_arguments(method: str, arguments: dict[str, Any]) -> None:
    """Refuse arguments that neither the method, the steps before it nor its tuning know, before anything is computed."""
    options = dict(arguments)
    unknown = sorted(set(options.pop("tune", None) or {}) - TUNING)
    if unknown:
        msg = f"Expected arguments of tl.tune out of {sorted(TUNING)} in tune=, found {unknown}."
        raise TypeError(msg)
    split_arguments(load_class(method), take_preparation(options)[1])


def cross_validate(
    mdata: MuData,
    method: str,
    *,
    cv: CV = "leave-one-donor-out",
    allow_leakage: bool = False,
    seed: int = 0,
    tune: Mapping[str, Any] | None = None,
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
    tune
        Tune the method in each fold, on its training donors alone (nested cross-validation): arguments of
        :func:`scdeconv.tl.tune`, such as ``{"n_trials": 15}``.
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
    TypeError
        Where neither the method, the steps before it nor :func:`scdeconv.tl.tune` take an argument.
    KeyboardInterrupt
        On Ctrl-C: half a cross-validation is no result.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> predicted = scdeconv.tl.cross_validate(mdata, "ridge", cv=3)
    >>> measured = mdata["bulk"].obsm["measured_fractions"].loc[predicted.index]
    >>> list(scdeconv.metrics.table(measured, predicted).index[-2:])
    ['all entries', 'mean of types']
    """
    _check_arguments(method, {**kwargs, "tune": tune})
    donors = mdata[keys.BULK].obs[keys.DONOR]
    data = _as_rows(mdata) if cv == "rows" else mdata
    folds = deal_donors(paired_donors(data), cv, seed)
    if not allow_leakage:
        refuse_leakage(data, folds, donors)
    arguments = arguments_in_folds(method, kwargs, seed)
    predictions = []
    with progress(len(folds), f"{method}: {len(folds)} folds") as bar:
        for members in folds:
            training, held_out = hold_out(data, members)
            if tune is None:
                model = fit_method(training, method, arguments)
            else:
                tuning = tune_method(training, method, seed=seed, **tune, **kwargs)
                if tuning.interrupted:
                    raise KeyboardInterrupt
                model = tuning.model
            predictions.append(predict_unseen(model, training, held_out))
            bar.update()
    known = mdata[keys.BULK].obsm[keys.MEASURED].dropna().index
    return pd.concat(predictions).reindex(known)


def _run(parts: Any, label: str, seed: int, arguments: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows of the benchmark for one method and seed, on packed data."""
    mdata = unpack(parts)
    start = time.perf_counter()
    with no_progress():
        predicted = cross_validate(mdata, seed=seed, **arguments)
    seconds = time.perf_counter() - start
    truth = truth_for(predicted, mdata[keys.BULK].obsm[keys.MEASURED].dropna())
    table = metrics.table(truth, predicted)
    table = table.join(_interval_scores(truth, predicted, mdata[keys.BULK].obs[keys.DONOR]))
    table = table.rename_axis("cell_type").reset_index()
    table.insert(0, "seed", seed)
    table.insert(0, "method", label)
    return table.assign(seconds=seconds)


def benchmark(
    mdata: MuData,
    methods: Sequence[str] | Mapping[str, Mapping[str, Any]] = ("simplednn", "nnls"),
    *,
    cv: CV = "leave-one-donor-out",
    seeds: Sequence[int] = (0, 1, 2),
    allow_leakage: bool = False,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    """Compare methods on held-out donors, the mean composition always among them.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. Not changed.
    methods
        Names from :func:`scdeconv.tl.methods`; or a mapping from labels to arguments of
        :func:`scdeconv.tl.cross_validate`: ``{"wide": {"method": "simplednn", "hidden": (512, 256)}, "tuned": {"method":
        "simplednn", "tune": {"n_trials": 15}}}``.
    cv, allow_leakage
        As for :func:`scdeconv.tl.cross_validate`.
    seeds
        One run for each; methods without randomness run once.
    n_jobs
        Runs (a method and a seed) at once, as everywhere in joblib: None is 1 unless ``joblib.parallel_config`` says
        otherwise, which also names the backend: ``"loky"`` (processes of this machine), ``"dask"``, ``"ray"``. The data go
        to every process; on one machine joblib shares large arrays between them.

    Returns
    -------
    Tidy frame with one row per method, seed and cell type, "all entries" (pooled) and "mean of types" among the cell
    types; columns ``method, seed, cell_type, n, rmse, mae, r2, pearson, ccc, bias, coverage, width, seconds``. Coverage
    and width are those of 90 % intervals, each donor's made from the errors on all others (NaN where donors are too few).
    Ctrl-C returns what is complete (nothing with Ray's backend, which hands all over at the end).

    Raises
    ------
    ValueError
        Where a split leaks, ``cv`` is unknown or there are fewer than 3 paired donors.
    TypeError
        Where ``seed`` is among the arguments of a method, or one that neither the method, the steps before it nor
        :func:`scdeconv.tl.tune` take.
    KeyboardInterrupt
        On Ctrl-C before the first run is complete.

    Warns
    -----
    UserWarning
        After Ctrl-C.

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
    named = {label: {"method": label, **given.get(label, {})} for label in (*given, keys.BASELINE)}
    for arguments in named.values():
        options = {name: value for name, value in arguments.items() if name != "method"}
        if "seed" in options:
            msg = f"Expected the seeds of all runs in seeds=, found seed={options['seed']!r} among the arguments of a method."
            raise TypeError(msg)
        _check_arguments(arguments["method"], options)
    parts = pack(mdata)
    runs = [
        delayed(_run)(parts, label, seed, {"cv": cv, "allow_leakage": allow_leakage, **arguments})
        for label, arguments in named.items()
        for seed in (seeds if get_record(arguments["method"]).stochastic or "tune" in arguments else seeds[:1])
    ]
    tables = []
    try:
        with progress(len(runs), f"benchmark: {len(runs)} runs") as bar:
            for table in _parallel(n_jobs)(runs):
                tables.append(table)
                bar.update()
    except KeyboardInterrupt:
        if not tables:
            raise
        warn("Interrupted: the table holds the runs that were complete.")
    return pd.concat(tables, ignore_index=True)


def _parallel(n_jobs: int | None) -> Parallel:
    """Return joblib's loop, which hands over each result when it is there, in order, if its backend can."""
    try:
        return Parallel(n_jobs=n_jobs, return_as="generator")
    except ValueError:
        return Parallel(n_jobs=n_jobs)
