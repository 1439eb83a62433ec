"""Hyperparameter search by cross-validation over donors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.checks import Problems, checked
from scdeconv._data.progress import progress
from scdeconv._data.warnings import warn
from scdeconv.models import DeconvolutionModel, MethodLike, check_needs, resolve
from scdeconv.pp import hold_out, paired_donors
from scdeconv.tl._folds import arguments_in_folds, deal_donors, fold_error, refuse_leakage
from scdeconv.tl._train import check_method_arguments, default_method, fit_method

if TYPE_CHECKING:
    import os

    from mudata import MuData

    from .space import SearchSpace


@dataclass(frozen=True, repr=False)
class Tuning:
    """Result of :func:`scdeconv.tl.tune`.

    Attributes
    ----------
    method
        Name of the method.
    trials
        One row per trial, the defaults first: ``state`` ("complete", or "pruned": stopped because the mean over its
        first folds was above the median), ``rmse`` (mean over the folds; NaN if pruned), ``seconds``, then a column for
        each searched argument.
    best_params
        Arguments for :func:`scdeconv.tl.train`: those of the best complete trial, and the fixed arguments.
    model
        Model trained with ``best_params`` on all pairs.
    baseline
        RMSE of the mean composition on the same folds.
    interrupted
        Whether Ctrl-C interrupted the search.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> tuning = scdeconv.tl.tune(mdata, "ridge", {"n_genes": [50, 100]}, n_trials=2, cv=3)
    >>> tuning  # doctest: +ELLIPSIS
    Tuning of ridge: 2 trials, 0 pruned; RMSE on held-out donors ...
    >>> list(tuning.trials)
    ['state', 'rmse', 'seconds', 'n_genes']
    """

    method: str
    trials: pd.DataFrame
    best_params: dict[str, Any]
    model: DeconvolutionModel
    baseline: float
    interrupted: bool = False

    def __repr__(self) -> str:
        rmse = self.trials["rmse"]
        return (
            f"Tuning of {self.method}: {len(rmse)} trials, {rmse.isna().sum()} pruned; RMSE on held-out donors "
            f"{rmse.min():.4f} (defaults {rmse.iloc[0]:.4f}, mean composition {self.baseline:.4f})"
        )


@checked()
def tune(
    mdata: MuData,
    method: MethodLike | None = None,
    search_space: SearchSpace | None = None,
    *,
    n_trials: int = 50,
    cv: int | Literal["leave-one-donor-out"] = 5,
    study: str | os.PathLike[str] | None = None,
    executor: Literal["ray"] | None = None,
    seed: int = 0,
    **kwargs: Any,
) -> Tuning:
    """Search for the arguments of a method with the lowest error on held-out donors, then train on all pairs.

    All trials use the same donor folds. In each fold, all steps of the method, including gene selection and simulation,
    are repeated without the held-out donors. The first trial uses the defaults. Optuna's tree-structured Parzen
    estimator (Bergstra et al. 2011) suggests the other trials. A trial is pruned if the mean over its first folds is
    above the median of the other trials.

    The error of the best trial is biased downwards, because the same folds selected it. For an unbiased estimate, tune
    inside an outer cross-validation:
    ``tl.benchmark(mdata, {"tuned": {"method": "simplednn", "tune": {"n_trials": 15}}})``.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. Not changed.
    method
        Name from :func:`scdeconv.tl.methods`, or the class or an instance of a method; None:
        :func:`scdeconv.tl.default_method`.
    search_space
        Mapping from arguments of :func:`scdeconv.tl.train` to a list of choices or an Optuna distribution:
        ``{"hidden": [(64,), (128, 64)], "dropout": optuna.distributions.FloatDistribution(0, 0.5)}``. None: the search
        space of the method and the number of genes. The search space of networks has layers, widths, dropout, learning
        rate, weight decay and augmentation.
    n_trials
        Number of finished trials, including pruned trials and trials in ``study``.
    cv
        Number of donor folds for each trial.
    study
        SQLite file for the trials. A repeated call continues an interrupted search, or adds trials if ``n_trials`` is
        larger. Only one search can use the file at a time.
    executor
        ``"ray"``: run folds of several trials in parallel on the connected Ray cluster (``ray.init`` or the variable
        RAY_ADDRESS), or on the local cores. The value of a trial is the same as without Ray. The suggested trials
        depend on the order in which earlier trials finish.
    seed
        Seed of folds, suggestions and training.
    **kwargs
        Fixed arguments, as for :func:`scdeconv.tl.train`.

    Returns
    -------
    Trials, best arguments and model. After Ctrl-C: the results so far, if a trial was complete.

    Raises
    ------
    ValueError
        If an argument is out of range, there are too few pairs, or the file contains another search or is damaged.
    OSError
        If the study cannot be written, or if another search uses the file. The file keeps the completed trials.

    Warns
    -----
    UserWarning
        After Ctrl-C.

    Notes
    -----
    All folds are in memory at the same time. Each is a copy of the data without some donors.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> tuning = scdeconv.tl.tune(mdata, "ridge", {"n_genes": [50, 100, 300]}, n_trials=3, cv=3)
    >>> len(tuning.trials), tuning.best_params["n_genes"] in (50, 100, 300)
    (3, True)
    """
    # lazy import: Optuna takes 0.1 s
    from optuna.distributions import distribution_to_json
    from optuna.trial import TrialState

    from .run import RayCluster, ThisProcess, run_trials
    from .space import Space, default_arguments
    from .study import Study, data_fingerprint, sole_user

    method = default_method(mdata) if method is None else method
    cls, parameters = resolve(method)
    name = cls.record.key
    given = _checked_space(mdata, method, search_space, cv=cv, fixed=kwargs)
    donors = deal_donors(paired_donors(mdata), cv, seed)
    refuse_leakage(mdata, donors, mdata[keys.BULK].obs[keys.DONOR])
    space = Space(given, default_arguments(mdata, method))
    record = {
        "data": data_fingerprint(mdata),
        "method": name,
        "fixed arguments": {key: repr(value) for key, value in sorted((parameters | kwargs).items())},
        "search_space": {key: distribution_to_json(values) for key, values in sorted(space.distributions.items())},
        "cv": str(cv),
        "seed": seed,
    }
    with sole_user(study):
        kept = Study(study, record, space, seed=seed)
        folds = [hold_out(mdata, members) for members in donors]
        fixed = arguments_in_folds(method, kwargs, seed)
        baseline = float(np.mean([fold_error(*fold, keys.BASELINE, {"held_out": False}) for fold in folds]))
        interrupted = False
        if kept.n_finished < n_trials:
            try:
                workers = (ThisProcess if executor is None else RayCluster)(folds, method)
                with progress(n_trials, f"tuning {name}") as bar:
                    bar.update(kept.n_finished)
                    run_trials(kept, workers, fixed, n_folds=len(folds), n_trials=n_trials, bar=bar)
            except KeyboardInterrupt:
                if not np.isfinite(kept.best):
                    raise
                interrupted = True
                warn(f"Interrupted: the result is the best of {kept.n_finished} trials.")
        finished = kept.finished()
    searched = [space.arguments(trial.params) for trial in finished]
    trials = pd.DataFrame(
        {
            "state": [trial.state.name.lower() for trial in finished],
            "rmse": [trial.value if trial.state == TrialState.COMPLETE else np.nan for trial in finished],
            "seconds": [trial.duration.total_seconds() if trial.duration else np.nan for trial in finished],
            # object dtype: a numeric column would convert None to NaN
            **{
                key: pd.Series([values[key] for values in searched], dtype=object if key in space.choices else None)
                for key in space.distributions
            },
        }
    ).rename_axis("trial")
    best_params = {**kwargs, **searched[int(trials["rmse"].argmin())]}
    model = fit_method(mdata, method, {"seed": seed, **best_params})
    return Tuning(name, trials, best_params, model, baseline, interrupted)


def _checked_space(
    mdata: MuData,
    method: MethodLike,
    given: SearchSpace | None,
    *,
    cv: int | str,
    fixed: dict[str, Any],
) -> SearchSpace:
    """Return the search space; raise ``ValueError`` with all problems of the arguments."""
    from .space import default_space, known_arguments, methods_with_space, problems_of_space

    cls, parameters = resolve(method)
    check_method_arguments(method, fixed, tune)
    check_needs(mdata, cls.record, {**parameters, **fixed}.get("train_on"))
    problems = Problems("tl.tune")
    n_donors = len(paired_donors(mdata))
    if cv != "leave-one-donor-out" and not (isinstance(cv, int) and cv <= n_donors):
        problems.add(
            f"Expected cv 'leave-one-donor-out' or 2 to {n_donors} folds (the number of paired donors), found {cv!r}."
        )
    if given is not None:
        for message in problems_of_space(given, method, fixed):
            problems.add(message)
    elif cls.tuning_space() is None:
        problems.add(
            f"Expected search_space= for {cls.record.key!r}, which has no default search space, found none. Its "
            f"arguments are {sorted(known_arguments(method))}. Methods with a default are "
            f"{sorted(methods_with_space())}."
        )
    problems.raise_if_any()
    return default_space(mdata, method, fixed) if given is None else given
