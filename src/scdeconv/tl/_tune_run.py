"""Running the trials of a search, fold by fold, in this process or on a Ray cluster."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from ._folds import fold_error, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from mudata import MuData

    from ._tune_study import Study

Fold = tuple["MuData", "AnnData"]


class ThisProcess:
    """One fold after the other."""

    n_workers = 1

    def __init__(self, folds: list[Fold], method: str) -> None:
        self.folds, self.method = folds, method

    def start(self, fold: int, arguments: Mapping[str, Any]) -> Any:
        """Return the computation; it is done when its result is asked for."""
        return partial(fold_error, *self.folds[fold], self.method, arguments)

    def next_done(self, handles: list[Any]) -> Any:
        """Return the only one."""
        return handles[0]

    def result(self, handle: Any) -> float:
        """Compute the error."""
        error: float = handle()
        return error

    def close(self, handles: list[Any]) -> None:
        """Nothing goes on behind the scenes."""


class RayCluster:
    """One task for each fold of a trial, on the cluster that Ray is connected to, or else on the cores of this machine.

    The folds are put into the object store once. Tasks whose worker dies are started again by Ray.
    """

    def __init__(self, folds: list[Fold], method: str) -> None:
        try:
            import ray
        except ImportError:
            msg = "Expected Ray for executor='ray', found none. Install it: pip install 'scdeconv[ray]'."
            raise ImportError(msg) from None
        self.ray, self.started = ray, not ray.is_initialized()
        if self.started:
            # connects to RAY_ADDRESS where that is set
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        self.folds = [(ray.put(pack(training)), ray.put(held_out)) for training, held_out in folds]
        self.method = method
        self.task: Any = ray.remote(num_cpus=1, max_retries=3)(_packed_fold_error)

    @property
    def n_workers(self) -> int:
        """Cores of the cluster, which may grow."""
        return max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    def start(self, fold: int, arguments: Mapping[str, Any]) -> Any:
        """Begin a task."""
        return self.task.remote(*self.folds[fold], self.method, arguments)

    def next_done(self, handles: list[Any]) -> Any:
        """Wait for the first task that is done."""
        (done, *_), _ = self.ray.wait(handles)
        return done

    def result(self, handle: Any) -> float:
        """Return the error, or raise what the task raised."""
        error: float = self.ray.get(handle)
        return error

    def close(self, handles: list[Any]) -> None:
        """Cancel tasks that are not done; end Ray where it was started here."""
        for handle in handles:
            self.ray.cancel(handle, force=True)
        if self.started:
            self.ray.shutdown()


def _packed_fold_error(training: Any, held_out: AnnData, method: str, arguments: Mapping[str, Any]) -> float:
    return fold_error(unpack(training), held_out, method, arguments)


def run_trials(
    study: Study, workers: ThisProcess | RayCluster, fixed: Mapping[str, Any], *, n_folds: int, n_trials: int, bar: Any
) -> None:
    """Run trials until ``n_trials`` are finished; each computes its folds in turn and may be given up after any.

    The arguments of a trial are the fixed ones and those that the study suggests.
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
