"""Storage of the trials of a search, in memory or in an SQLite file that allows a restart."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from scdeconv._data import keys
from scdeconv._data.checks import Problems
from scdeconv._data.files import locked, note_written, publishing, resolved
from scdeconv._data.matrix import to_dense
from scdeconv._data.progress import quiet

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

    from mudata import MuData

    from .space import Space

NAME = "scdeconv"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
# number of trials without pruning, to estimate the median; set by hand
WARM_UP_TRIALS = 5
# minimum number of folds before pruning; set by hand
WARM_UP_FOLDS = 2


class _Given(optuna.samplers.RandomSampler):
    """Sampler that returns given values."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__()
        self.params = params

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        return self.params[param_name]


def data_fingerprint(mdata: MuData) -> str:
    """Return a hash of the training data; cells are represented by profiles and pseudobulk.

    The hash uses bytes and text, so it does not depend on the versions of Python, NumPy and pandas.
    """
    digest = hashlib.sha256()

    def add(label: str, values: Any) -> None:
        array = np.ascontiguousarray(values)
        text = array.dtype.kind in "OSU"
        content = json.dumps(array.astype(str).tolist()).encode() if text else array.astype(float).tobytes()
        digest.update(f"{label} {array.shape} ".encode() + content)

    for name in (keys.BULK, keys.PROFILES, keys.PSEUDOBULK, keys.SIMULATED):
        if name in mdata.mod:
            adata = mdata[name]
            add(name, to_dense(adata.X))
            add("genes", adata.var_names.to_numpy())
            if keys.DONOR in adata.obs:
                add("donors", adata.obs[keys.DONOR].to_numpy())
            for key in (keys.MEASURED, keys.AUGMENTED):
                if key in adata.obsm:
                    add(key, adata.obsm[key])
    if keys.SELECTED in mdata[keys.BULK].var:
        add(keys.SELECTED, mdata[keys.BULK].var[keys.SELECTED].to_numpy())
    steps = mdata.uns.get(keys.UNS, {})
    for step in ("calibrate", "simulate", "select_genes", "augment"):
        if step in steps:
            add(step, [f"{name}: {value}" for name, value in sorted(steps[step].items())])
    return digest.hexdigest()


def _check_file(path: Path) -> None:
    """Raise an error if the file exists and is not an intact study; the file is not changed."""
    if not path.parent.is_dir():
        msg = f"Expected a directory for study={str(path)!r}, found none. Create {str(path.parent)!r} first."
        raise FileNotFoundError(msg)
    if not _has_content(path):
        return
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if found == "ok" and not {"studies", "trials"} <= tables:
            found = "an SQLite file without trials"
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        msg = (
            f"Expected an intact study of tl.tune in {str(path)!r}, found: {found}. The file was not changed. "
            "Restore a backup, or move the file to start a new study."
        )
        raise ValueError(msg)


def _has_content(path: Path) -> bool:
    return path.exists() and (path.is_dir() or path.stat().st_size > 0)


def _open_study(path: Path | None) -> optuna.Study:
    storage = None
    if path is not None:
        # connections end with their transactions: a new file is renamed
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"poolclass": NullPool})
    pruner = optuna.pruners.MedianPruner(n_startup_trials=WARM_UP_TRIALS, n_warmup_steps=WARM_UP_FOLDS)
    return optuna.create_study(storage=storage, study_name=NAME, pruner=pruner, load_if_exists=True)


@contextmanager
def sole_user(path: str | os.PathLike[str] | None) -> Iterator[None]:
    """Refuse the file of a study that another process or thread uses."""
    if path is None:
        yield
        return
    study = resolved(path)
    # not the file itself: closing it would release the locks of SQLite
    lock = study.with_name(f".{hashlib.sha256(study.name.encode()).hexdigest()[:16]}.scdeconv-lock")
    if study.parent.is_dir():
        lock.touch()
    with locked(lock) as obtained:
        if not obtained and lock.exists():
            msg = (
                f"Expected a study that no other search uses, found one in use: {str(path)!r}. Wait until the other "
                "search ends, or use another file."
            )
            raise BlockingIOError(msg)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


class Study:
    """Study: suggests trials and stores their results. All completed trials are in the file.

    Parameters
    ----------
    path
        SQLite file, created if missing; None: trials are stored in memory.
    record
        Description of the study, plain values. It must match the record in the file.
    space
        Search space.
    seed
        Seed of the suggestions.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, record: Mapping[str, Any], space: Space, *, seed: int
    ) -> None:
        self.path, self.space, self.seed = None if path is None else Path(path), space, seed
        self.first = space.first()
        self.n_finished = 0
        record = json.loads(json.dumps(record))
        if self.path is not None:
            _check_file(self.path)
        with self._writing():
            if self.path is not None and not _has_content(self.path):
                # a process that ends meanwhile leaves no study without its tables
                with publishing(self.path) as (new,):
                    _open_study(new).set_user_attr(NAME, record)
            self.study = _open_study(self.path)
            self._compare(record)
            killed = self.study.get_trials(states=(TrialState.RUNNING,))
            for trial in killed:
                self.study.tell(trial.number, state=TrialState.FAIL)
            finished = self.finished()
        self.n_finished = len(finished)
        # re-queue interrupted trials whose values were drawn
        self.to_try = [trial.params for trial in killed if set(trial.params) == set(space.distributions)]
        if self.first not in [*self.to_try, *(trial.params for trial in finished)]:
            self.to_try.insert(0, self.first)

    def _compare(self, record: Mapping[str, Any]) -> None:
        """Write the record to a new study; raise ``ValueError`` if the file has another record."""
        kept = self.study.user_attrs.get(NAME)
        if kept is None:
            self.study.set_user_attr(NAME, record)
            return
        problems = Problems(f"The study in {str(self.path)!r} is of another search")
        for name, value in record.items():
            if kept.get(name) != value:
                problems.add(
                    f"Expected {name} {value!r} as in this call, found {kept.get(name)!r} in the file. Repeat the call "
                    "that started the study, or use another file."
                )
        problems.raise_if_any()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Silence Optuna, and raise ``OSError`` if the file cannot be read or written."""
        try:
            with quiet("optuna"):
                yield
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            found = str(error.__cause__ or error).splitlines()[0]
            msg = (
                f"Expected to write to the study {str(self.path)!r}, found: {found}. The file keeps the "
                f"{self.n_finished} completed trials. Free disk space or fix the file, then repeat the call to "
                "continue."
            )
            raise OSError(msg) from error

    def ask(self) -> optuna.Trial:
        """Start a trial: first the defaults, then interrupted trials, then suggestions of the sampler."""
        with self._writing():
            params = self.to_try.pop(0) if self.to_try else None
            if params is not None:
                self.study.sampler = _Given(params)
                return self.study.ask({name: self.space.distributions[name] for name in params})
            # one seed per trial: an interrupted search continues with the same suggestions
            begun = [t for t in self.study.get_trials(deepcopy=False) if t.state != TrialState.FAIL or t.user_attrs]
            seed = np.random.SeedSequence([self.seed, len(begun)]).generate_state(1)[0]
            self.study.sampler = optuna.samplers.TPESampler(seed=int(seed))
            return self.study.ask(self.space.distributions)

    def report(self, trial: optuna.Trial, errors: Sequence[float], n_folds: int) -> bool:
        """Store the errors of a trial's folds so far; return whether the trial is finished."""
        with self._writing():
            mean = float(np.mean(errors))
            trial.report(mean, len(errors))
            if len(errors) == n_folds:
                self.study.tell(trial, mean)
            elif trial.params != self.first and trial.should_prune():
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                return False
            self.n_finished += 1
            if self.path is not None:
                note_written(self.path)
            return True

    def fail(self, trial: optuna.Trial, error: Exception) -> None:
        """Mark a trial as failed, so that a restart does not repeat it."""
        with self._writing():
            trial.set_user_attr("error", str(error)[:1000])
            self.study.tell(trial, state=TrialState.FAIL)

    def finished(self) -> list[optuna.trial.FrozenTrial]:
        """Return the complete and pruned trials, the defaults first."""
        trials = self.study.get_trials(states=FINISHED)
        return sorted(trials, key=lambda trial: (trial.params != self.first, trial.number))

    @property
    def best(self) -> float:
        """Lowest mean error of the complete trials; infinite without complete trials."""
        values = [
            t.value for t in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if t.value is not None
        ]
        return min(values, default=np.inf)
