"""Evaluation of methods by cross-validation over donors."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from joblib import Parallel, delayed

from scdeconv import metrics
from scdeconv._data import keys
from scdeconv._data.checks import check_keywords, checked
from scdeconv._data.fractions import has_measured, scored_tables
from scdeconv._data.modalities import cell_types_of
from scdeconv._data.progress import no_progress, progress
from scdeconv._data.warnings import warn
from scdeconv.models import built_in_methods, check_needs, resolve
from scdeconv.pp import hold_out, paired_donors

from ._cohorts import prepare_cohorts, score_other_cohort
from ._folds import CV, arguments_in_folds, deal_donors, interval_scores, pack, predict_unseen, refuse_leakage, unpack
from ._train import check_method_arguments, default_method
from ._tuning import fit_or_tune
from ._workers import end_with

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from scdeconv.models import MethodLike

# arguments that cross_validate passes to tl.tune in each fold
TUNING = frozenset({"search_space", "n_trials", "cv", "executor"})


def _as_rows(mdata: MuData) -> MuData:
    """Return the data with each sample as its own donor."""
    modalities, records = pack(mdata)
    modalities[keys.BULK] = mdata[keys.BULK].copy()
    modalities[keys.BULK].obs[keys.DONOR] = mdata[keys.BULK].obs_names.to_numpy()
    return unpack((modalities, records))


def _check_arguments(mdata: MuData, method: MethodLike, arguments: dict[str, Any]) -> None:
    """Refuse arguments that are unknown to the method, the preparation steps and ``tl.tune``, and data without its needs."""
    options = dict(arguments)
    check_keywords("tl.tune in tune=", options.pop("tune", None) or {}, TUNING)
    check_method_arguments(method, options, cross_validate)
    cls, parameters = resolve(method)
    check_needs(mdata, cls.record, {**parameters, **options}.get("train_on"))


@checked()
def cross_validate(
    mdata: MuData,
    method: MethodLike,
    *,
    cv: CV = "leave-one-donor-out",
    allow_leakage: bool = False,
    seed: int = 0,
    tune: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> pd.DataFrame:
    """Predict each paired sample with a model trained without its donor.

    All steps of the method, such as gene selection, simulation, scaling and early stopping, are repeated in each fold.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. Not changed.
    method
        Name from :func:`scdeconv.tl.methods`, or the class or an instance of a method.
    cv
        ``"leave-one-donor-out"``, or a number of donor folds. ``"rows"`` splits samples into five folds without regard
        to donors. This leaks information if donors have several samples, and needs ``allow_leakage=True``.
    allow_leakage
        Allow the same donor, or identical bulk rows, in training and test data.
    seed
        Seed of the folds and of the training.
    tune
        Tune the method in each fold on its training donors (nested cross-validation). Arguments of
        :func:`scdeconv.tl.tune`, such as ``{"n_trials": 15}``.
    **kwargs
        Arguments of the method, as for :func:`scdeconv.tl.train`.

    Returns
    -------
    Cell fractions, paired samples × cell types. RNA fractions are converted to cell fractions with the RNA content of
    the training cells.

    Raises
    ------
    ValueError
        If the split leaks, ``cv`` is unknown or there are fewer than 3 paired donors.
    TypeError
        If an argument is unknown to the method, the preparation steps and :func:`scdeconv.tl.tune`.
    KeyboardInterrupt
        On Ctrl-C. Partial results are discarded.

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
    _check_arguments(mdata, method, {**kwargs, "tune": tune})
    donors = mdata[keys.BULK].obs[keys.DONOR]
    data = _as_rows(mdata) if cv == "rows" else mdata
    folds = deal_donors(paired_donors(data), cv, seed)
    if not allow_leakage:
        refuse_leakage(data, folds, donors)
    arguments = arguments_in_folds(method, kwargs, seed)
    predictions = []
    with progress(len(folds), f"{resolve(method)[0].record.key}: {len(folds)} folds") as bar:
        for members in folds:
            training, held_out = hold_out(data, members)
            model = fit_or_tune(training, method, arguments, tune, seed, **kwargs)
            predictions.append(predict_unseen(model, training, held_out))
            bar.update()
    measured = mdata[keys.BULK].obsm[keys.MEASURED]
    return pd.concat(predictions).reindex(measured.index[has_measured(measured)])


def _score_held_out(mdata: MuData, **arguments: Any) -> pd.DataFrame:
    """Return the errors on held-out donors by cell type; arguments of :func:`cross_validate`."""
    predicted = cross_validate(mdata, **arguments)
    # shares of the same types for all methods
    truth, predicted = scored_tables(mdata[keys.BULK].obsm[keys.MEASURED], predicted, cell_types_of(mdata))
    scores = metrics.table(truth, predicted)
    return scores.join(interval_scores(truth, predicted, mdata[keys.BULK].obs[keys.DONOR]))


def _run(parts: Any, label: str, seed: int, arguments: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows of the benchmark for one method and seed, on packed data."""
    mdata = unpack(parts)
    start = time.perf_counter()
    with no_progress():
        scores = (score_other_cohort if "cohort" in arguments else _score_held_out)(mdata, seed=seed, **arguments)
    seconds = time.perf_counter() - start
    table = scores.rename_axis("cell_type").reset_index()
    table.insert(0, "seed", seed)
    table.insert(0, "method", label)
    return table.assign(seconds=seconds)


def _run_in_worker(caller: int, *run: Any) -> pd.DataFrame:
    """Return the result of :func:`_run`, in the process that was started for it."""
    end_with(caller)
    return _run(*run)


@checked()
def benchmark(
    mdata: MuData,
    methods: Sequence[MethodLike] | Mapping[str, Mapping[str, Any]] | None = None,
    *,
    cv: CV = "leave-one-donor-out",
    seeds: Sequence[int] = (0, 1, 2),
    allow_leakage: bool = False,
    n_jobs: int | None = None,
    test: AnnData | MuData | None = None,
) -> pd.DataFrame:
    """Compare methods on held-out donors, or on another cohort. The mean composition is always included.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. Not changed.
    methods
        Names from :func:`scdeconv.tl.methods`, classes or instances of methods; or a mapping from labels to arguments of
        :func:`scdeconv.tl.cross_validate`, such as ``{"wide": {"method": "simplednn", "hidden": (512, 256)}}``.
        None: the default of :func:`scdeconv.tl.train` for these data and, if they have a reference, ``"nnls"``.
    cv, allow_leakage
        As for :func:`scdeconv.tl.cross_validate`.
    seeds
        Seeds, one run for each. Methods without randomness run once.
    n_jobs
        Number of parallel runs (method and seed), as in joblib. None: 1, or the value of ``joblib.parallel_config``.
        The backend is set by ``joblib.parallel_config``: ``"loky"`` (local processes), ``"dask"``, ``"ray"``. The data
        are copied to each process; local processes share large arrays.
    test
        Another cohort with measured fractions, as for :func:`scdeconv.tl.validate`. Methods are trained on ``mdata``
        and scored on ``test``; ``cv`` and ``allow_leakage`` are not used.

    Returns
    -------
    Tidy DataFrame with one row per method, seed and cell type; "all entries" (pooled) and "mean of types" are further
    values of ``cell_type``. The columns are
    ``method, seed, cell_type, n, rmse, mae, r2, pearson, ccc, bias, coverage, width, seconds``. Coverage and width are those
    of 90 % prediction intervals, computed for each donor from the errors of all other donors (NaN if there are too few
    donors). With ``test``, they are those of the model, and the method ``"mean_composition_in_hindsight"`` is the mean of the
    measured fractions of the test cohort. After Ctrl-C the table has the completed runs (none with the backend ``"ray"``).

    Raises
    ------
    ValueError
        If a split leaks, ``cv`` is unknown or there are fewer than 3 paired donors.
    TypeError
        If the arguments of a method contain ``seed``, or an argument that is unknown to the method, the preparation
        steps and :func:`scdeconv.tl.tune`.
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
    if methods is None:
        methods = dict.fromkeys([default_method(mdata), *(["nnls"] if keys.PROFILES in mdata.mod else [])], {})
    given = methods if isinstance(methods, Mapping) else _by_key(methods)
    named = {label: {"method": label, **given.get(label, {})} for label in (*given, keys.BASELINE)}
    for arguments in named.values():
        options = {name: value for name, value in arguments.items() if name != "method"}
        if "seed" in options:
            msg = (
                f"Expected the seeds of all runs in seeds=, found seed={options['seed']!r} in the arguments of a "
                "method. Use seeds=."
            )
            raise TypeError(msg)
        _check_arguments(mdata, arguments["method"], options)
        if arguments["method"] not in built_in_methods():
            # registered methods are not registered in other processes: pass the class
            cls, parameters = resolve(arguments["method"])
            arguments |= {"method": cls, **parameters, **options}
    settings: dict[str, Any] = {"cv": cv, "allow_leakage": allow_leakage}
    if test is not None:
        mdata, cohort = prepare_cohorts(mdata, test, None)
        settings = {"cohort": cohort}
    parts = pack(mdata)
    runs = [
        delayed(_run_in_worker)(os.getpid(), parts, label, seed, {**settings, **arguments})
        for label, arguments in named.items()
        for seed in (seeds if resolve(arguments["method"])[0].record.stochastic or "tune" in arguments else seeds[:1])
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
        warn("Interrupted: the table contains the completed runs only.")
    if test is not None:
        in_hindsight = cohort.score_constant(cohort.truth.mean().to_numpy()).rename_axis("cell_type").reset_index()
        tables.append(in_hindsight.assign(method=f"{keys.BASELINE}_in_hindsight", seed=seeds[0]))
    return pd.concat(tables, ignore_index=True)


def _by_key(methods: Sequence[MethodLike]) -> dict[str, dict[str, Any]]:
    """Return the methods by the keys of their records."""
    found: dict[str, dict[str, Any]] = {}
    for method in methods:
        key = resolve(method)[0].record.key
        if key in found and found[key]["method"] is not method:
            msg = f"Expected methods with different keys, found {key!r} twice. Pass {{label: {{'method': ...}}}}."
            raise ValueError(msg)
        found[key] = {"method": method}
    return found


def _parallel(n_jobs: int | None) -> Parallel:
    """Return a joblib loop that yields results in order, each when it is complete if the backend supports it."""
    try:
        return Parallel(n_jobs=n_jobs, return_as="generator")
    except ValueError:
        return Parallel(n_jobs=n_jobs)
