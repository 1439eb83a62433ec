"""Search for the arguments that predict held-out donors best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.progress import progress
from scdeconv._data.validation import Problems
from scdeconv._data.warnings import warn
from scdeconv.models import load_class
from scdeconv.pp import hold_out, paired_donors

from ._folds import arguments_in_folds, deal_donors, fold_error, refuse_leakage
from ._train import fit_method, split_arguments, take_preparation

if TYPE_CHECKING:
    import os

    from mudata import MuData

    from scdeconv.models import DeconvolutionModel

    from ._tune_space import SearchSpace


@dataclass(frozen=True, repr=False)
class Tuning:
    """What :func:`scdeconv.tl.tune` found.

    Attributes
    ----------
    method
        The method's name.
    trials
        One row per trial, that of the defaults first: ``state`` ("complete", or "pruned": given up because its first
        folds were worse than the median), ``rmse`` (mean over the folds; NaN where pruned), ``seconds``, then a column
        for each argument that was searched.
    best_params
        Arguments for :func:`scdeconv.tl.train`: those of the best complete trial, and those that were fixed.
    model
        Trained with them on all pairs.
    baseline
        RMSE of the mean composition on the same folds.
    interrupted
        Whether Ctrl-C ended the search.

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


def tune(
    mdata: MuData,
    method: str = "simplednn",
    search_space: SearchSpace | None = None,
    *,
    n_trials: int = 50,
    cv: int | Literal["leave-one-donor-out"] = 5,
    study: str | os.PathLike[str] | None = None,
    executor: Literal["ray"] | None = None,
    seed: int = 0,
    **kwargs: Any,
) -> Tuning:
    """Search for the arguments of a method that predict held-out donors best, then train with them on all pairs.

    The donors are dealt into folds, the same for all trials; in each fold whatever the method learns, gene selection and
    simulation included, is done again without the held-out donors. Trials are suggested by Optuna's tree-structured
    Parzen estimator (Bergstra et al. 2011), the defaults first, so that the result is never worse than the defaults on
    these folds; a trial whose mean over its first folds is worse than the median of the others is given up.

    The best of many trials looks better on the folds that chose it than on new donors. For an honest figure tune inside
    an outer cross-validation: ``tl.benchmark(mdata, {"tuned": {"method": "simplednn", "tune": {"n_trials": 15}}})``.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. Not changed.
    method
        A name from :func:`scdeconv.tl.methods`.
    search_space
        Mapping from arguments, as :func:`scdeconv.tl.train` takes them, to a list of choices or an Optuna distribution:
        ``{"hidden": [(64,), (128, 64)], "dropout": optuna.distributions.FloatDistribution(0, 0.5)}``. By default a space
        of the method's own: for ``"simplednn"`` layers and their widths, dropout, learning rate, weight decay, number
        of genes, of simulated samples, and augmentation.
    n_trials
        Trials to finish, pruned ones and those that ``study`` already holds included.
    cv
        Donor folds in which every trial is judged.
    study
        SQLite file in which the trials are kept. The same call goes on where an earlier one was killed, or adds trials
        where ``n_trials`` is larger. One process at a time.
    executor
        ``"ray"`` runs folds of several trials at once on the cluster that Ray is connected to (``ray.init`` or the
        variable RAY_ADDRESS), or on the cores of this machine. A trial has the same value as without; which trials are
        suggested depends on which were finished before.
    seed
        Seed of folds, suggestions and training.
    **kwargs
        Arguments that stay fixed, as for :func:`scdeconv.tl.train`.

    Returns
    -------
    Trials, the best arguments and the model. After Ctrl-C what was found so far, where a trial was complete.

    Raises
    ------
    ValueError
        Where an argument is out of range, there are too few pairs, or the file holds another search or is damaged.
    OSError
        Where the study cannot be written. The file keeps the trials that were complete.

    Warns
    -----
    UserWarning
        After Ctrl-C.

    Notes
    -----
    The folds, each a copy of the data without some donors, are all in memory at once.

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
    # Optuna costs a tenth of a second, which those who do not tune are spared
    from optuna.distributions import distribution_to_json
    from optuna.trial import TrialState

    from ._tune_run import RayCluster, ThisProcess, run_trials
    from ._tune_space import Space, default_arguments
    from ._tune_study import Study, data_fingerprint

    given = _checked_space(mdata, method, search_space, n_trials=n_trials, cv=cv, executor=executor, fixed=kwargs)
    donors = deal_donors(paired_donors(mdata), cv, seed)
    refuse_leakage(mdata, donors, mdata[keys.BULK].obs[keys.DONOR])
    space = Space(given, default_arguments(mdata, method))
    record = {
        "data": data_fingerprint(mdata),
        "method": method,
        "fixed arguments": {name: repr(value) for name, value in sorted(kwargs.items())},
        "search_space": {name: distribution_to_json(values) for name, values in sorted(space.distributions.items())},
        "cv": str(cv),
        "seed": seed,
    }
    kept = Study(study, record, space, seed=seed)
    folds = [hold_out(mdata, members) for members in donors]
    fixed = arguments_in_folds(method, kwargs, seed)
    baseline = float(np.mean([fold_error(*fold, keys.BASELINE, {"held_out": False}) for fold in folds]))
    interrupted = False
    if kept.n_finished < n_trials:
        try:
            workers = (ThisProcess if executor is None else RayCluster)(folds, method)
            with progress(n_trials, f"tuning {method}") as bar:
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
            # choices stay what they are: a column of numbers would turn None into NaN
            **{
                name: pd.Series([values[name] for values in searched], dtype=object if name in space.choices else None)
                for name in space.distributions
            },
        }
    ).rename_axis("trial")
    best_params = {**kwargs, **searched[int(trials["rmse"].argmin())]}
    model = fit_method(mdata, method, {"seed": seed, **best_params})
    return Tuning(method, trials, best_params, model, baseline, interrupted)


def _checked_space(
    mdata: MuData,
    method: str,
    given: SearchSpace | None,
    *,
    n_trials: int,
    cv: int | str,
    executor: str | None,
    fixed: dict[str, Any],
) -> SearchSpace:
    """Return what is searched; raise with everything that is wrong with the arguments."""
    from ._tune_space import SPACES, default_space, known_arguments, problems_of_space

    split_arguments(load_class(method), take_preparation(fixed)[1])
    problems = Problems("tl.tune")
    if not isinstance(n_trials, (int, np.integer)) or n_trials < 1:
        problems.add(f"Expected n_trials of at least 1, found {n_trials!r}.")
    n_donors = len(paired_donors(mdata))
    if cv != "leave-one-donor-out" and not (isinstance(cv, (int, np.integer)) and 2 <= cv <= n_donors):
        problems.add(
            f"Expected cv 'leave-one-donor-out' or 2 to {n_donors} folds (the number of paired donors), found {cv!r}."
        )
    if executor not in (None, "ray"):
        problems.add(f"Expected executor None or 'ray', found {executor!r}.")
    if given is not None:
        for message in problems_of_space(given, method, fixed):
            problems.add(message)
    elif method not in SPACES:
        problems.add(
            f"Expected search_space= for {method!r}, which has none of its own, found none. Its arguments are "
            f"{sorted(known_arguments(method))}; methods with a space are {sorted(SPACES)}."
        )
    problems.raise_if_any()
    return default_space(mdata, method, fixed) if given is None else given
