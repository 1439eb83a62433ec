"""The trials of a search, kept in memory or in an SQLite file that survives being killed."""

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

from scdeconv._data import keys
from scdeconv._data.matrix import to_dense
from scdeconv._data.progress import quiet
from scdeconv._data.validation import Problems

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

    from mudata import MuData

    from ._tune_space import Space

NAME = "scdeconv"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
# trials without pruning, so that there is a median to be worse than
WARM_UP_TRIALS = 5
# folds that every trial is judged on: a single one says little
WARM_UP_FOLDS = 2


class _Given(optuna.samplers.RandomSampler):
    """Draws the values that it was given."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__()
        self.params = params

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        return self.params[param_name]


def data_fingerprint(mdata: MuData) -> str:
    """Return a hash of what a method can learn from the data, the cells by their profiles and pseudobulk.

    It is made of bytes and text, so that it is the same on every release of Python, NumPy and pandas.
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
    """Raise where a file is there that is no intact study; it is left as it is."""
    if not path.parent.is_dir():
        msg = f"Expected a folder for study={str(path)!r}, found none. Make {str(path.parent)!r} first."
        raise FileNotFoundError(msg)
    if not path.exists() or path.stat().st_size == 0:
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
            f"Expected an intact study of tl.tune in {str(path)!r}, found: {found}. The file was not changed: put back a "
            "copy of it, or move it away to start the study again."
        )
        raise ValueError(msg)


class Study:
    """Asks for trials, takes their results, and remembers both; every trial that is complete is in the file.

    Parameters
    ----------
    path
        SQLite file, made where there is none; None to keep the trials in memory.
    record
        What the study is of: plain values, compared with those in the file.
    space
        What is searched.
    seed
        Seed of the values to try.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, record: Mapping[str, Any], space: Space, *, seed: int
    ) -> None:
        self.path, self.space, self.seed = None if path is None else Path(path), space, seed
        self.first = space.first()
        self.n_finished = 0
        if self.path is not None:
            _check_file(self.path)
        with self._writing():
            storage = None if self.path is None else optuna.storages.RDBStorage(f"sqlite:///{self.path}")
            pruner = optuna.pruners.MedianPruner(n_startup_trials=WARM_UP_TRIALS, n_warmup_steps=WARM_UP_FOLDS)
            self.study = optuna.create_study(storage=storage, study_name=NAME, pruner=pruner, load_if_exists=True)
            self._compare(json.loads(json.dumps(record)))
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
        """Write the record into a new study; raise where that of the file is another one."""
        kept = self.study.user_attrs.get(NAME)
        if kept is None:
            self.study.set_user_attr(NAME, record)
            return
        problems = Problems(f"The study in {str(self.path)!r} is of another search")
        for name, value in record.items():
            if kept.get(name) != value:
                problems.add(
                    f"Expected {name} {value!r} as in this call, found {kept.get(name)!r} in the file. Repeat the call "
                    "that began the study, or name another file."
                )
        problems.raise_if_any()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Keep Optuna quiet, and say what is kept where its file cannot be read or written."""
        try:
            with quiet("optuna"):
                yield
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            found = str(error.__cause__ or error).splitlines()[0]
            msg = (
                f"Expected to write to the study {str(self.path)!r}, found: {found}. The file keeps the "
                f"{self.n_finished} trials that were complete. Make room (or see to the file), then repeat the call: it goes on."
            )
            raise OSError(msg) from error

    def ask(self) -> optuna.Trial:
        """Begin a trial: the defaults first, then interrupted trials, then what the sampler suggests."""
        with self._writing():
            params = self.to_try.pop(0) if self.to_try else None
            if params is not None:
                self.study.sampler = _Given(params)
                return self.study.ask({name: self.space.distributions[name] for name in params})
            # a seed for each trial, so that a search that was interrupted tries what it would have tried anyway
            begun = [t for t in self.study.get_trials(deepcopy=False) if t.state != TrialState.FAIL or t.user_attrs]
            seed = np.random.SeedSequence([self.seed, len(begun)]).generate_state(1)[0]
            self.study.sampler = optuna.samplers.TPESampler(seed=int(seed))
            return self.study.ask(self.space.distributions)

    def report(self, trial: optuna.Trial, errors: Sequence[float], n_folds: int) -> bool:
        """Note the errors of a trial's folds so far; return whether the trial is finished."""
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
            return True

    def fail(self, trial: optuna.Trial, error: Exception) -> None:
        """Note that a trial ended with an error, so that a rerun does not try it again."""
        with self._writing():
            trial.set_user_attr("error", str(error)[:1000])
            self.study.tell(trial, state=TrialState.FAIL)

    def finished(self) -> list[optuna.trial.FrozenTrial]:
        """Return the trials that were complete or pruned, that of the defaults first."""
        trials = self.study.get_trials(states=FINISHED)
        return sorted(trials, key=lambda trial: (trial.params != self.first, trial.number))

    @property
    def best(self) -> float:
        """The lowest mean error of a complete trial; infinite before there is one."""
        values = [
            t.value for t in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if t.value is not None
        ]
        return min(values, default=np.inf)
