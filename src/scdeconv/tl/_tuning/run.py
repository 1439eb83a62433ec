"""Execution of the trials of a search, fold by fold, in this process or on a Ray cluster."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from scdeconv.tl._folds import fold_error, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from mudata import MuData

    from scdeconv.models import MethodLike

    from .study import Study

Fold = tuple["MuData", "AnnData"]


class ThisProcess:
    """Sequential execution of the folds."""

    n_workers = 1

    def __init__(self, folds: list[Fold], method: MethodLike) -> None:
        self.folds, self.method = folds, method

    def start(self, fold: int, arguments: Mapping[str, Any]) -> Any:
        """Return the arguments of the computation, which ``result`` runs."""
        return partial(fold_error, *self.folds[fold], self.method, arguments)

    def next_done(self, handles: list[Any]) -> Any:
        """Return the first handle."""
        return handles[0]

    def result(self, handle: Any) -> float:
        """Compute the error."""
        error: float = handle()
        return error

    def close(self, handles: list[Any]) -> None:
        """Do nothing, because there are no background tasks."""


class RayCluster:
    """One task per fold of a trial on the connected Ray cluster, or on the local cores.

    The folds are put into the object store once. Ray restarts tasks of failed workers.
    """

    def __init__(self, folds: list[Fold], method: MethodLike) -> None:
        try:
            import ray
        except ImportError:
            msg = "Expected Ray for executor='ray', found no installation. Run: pip install 'scdeconv[ray]'."
            raise ImportError(msg) from None
        self.ray, self.started = ray, not ray.is_initialized()
        if self.started:
            # connects to RAY_ADDRESS if it is set
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        self.folds = [(ray.put(pack(training)), ray.put(held_out)) for training, held_out in folds]
        self.method = method
        self.task: Any = ray.remote(num_cpus=1, max_retries=3)(_packed_fold_error)

    @property
    def n_workers(self) -> int:
        """Current number of cores of the cluster."""
        return max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    def start(self, fold: int, arguments: Mapping[str, Any]) -> Any:
        """Start a task."""
        return self.task.remote(*self.folds[fold], self.method, arguments)

    def next_done(self, handles: list[Any]) -> Any:
        """Wait for the next completed task."""
        (done, *_), _ = self.ray.wait(handles)
        return done

    def result(self, handle: Any) -> float:
        """Return the error, or raise the exception of the task."""
        error: float = self.ray.get(handle)
        return error

    def close(self, handles: list[Any]) -> None:
        """Cancel unfinished tasks; shut Ray down if it was started here."""
        for handle in handles:
            self.ray.cancel(handle, force=True)
        if self.started:
            self.ray.shutdown()


def _packed_fold_error(training: Any, held_out: AnnData, method: MethodLike, arguments: Mapping[str, Any]) -> float:
    return fold_error(unpack(training), held_out, method, arguments)


def run_trials(
    study: Study, workers: ThisProcess | RayCluster, fixed: Mapping[str, Any], *, n_folds: int, n_trials: int, bar: Any
) -> None:
    """Run trials until ``n_trials`` are finished; a trial computes its folds in order and may be pruned after each.

    The arguments of a trial are the fixed arguments and the suggestions of the study.
    """
    running: dict[Any, tuple[Any, dict[str, Any], list[float]]] = {}
    try:
        while study.n_finished < n_trials:
            while len(running) < min(workers.n_workers, n_trials - study.n_finished):
                trial = study.ask()
                arguments = {**fixed, **study.space.arguments(trial.params)}
                running[workers.start(0, arguments)] = trial, arguments, []
            done = workers.next_done(list(running))
            trial, arguments, errors = running.pop(done)
            try:
                errors.append(workers.result(done))
            except Exception as error:
                study.fail(trial, error)
                error.add_note(f"in trial {trial.number} of the search, with {arguments}")
                raise
            if study.report(trial, errors, n_folds):
                bar.set_postfix_str(f"best RMSE {study.best:.4f}")
                bar.update()
            else:
                running[workers.start(len(errors), arguments)] = trial, arguments, errors
    finally:
        workers.close(list(running))
