"""Base class of all trained models: state, files, history and repr."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pandas as pd

from scdeconv._data.checks import checked
from scdeconv._data.warnings import warnings_ignored

from ._model_files import read_model, write_model
from ._plain import Arrays, from_plain

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

PARTS = ("parameters", "training", "state")


@contextmanager
def refuse_failed_parts(expected: str) -> Iterator[None]:
    """Convert any error into a ``ValueError`` about a saved model and suppress warnings."""
    try:
        with warnings_ignored():
            yield
    # the type of the error depends on the class and the damage
    except Exception as error:
        msg = f"Expected {expected}, found an error: {error}. Train and save the model again."
        raise ValueError(msg) from error


@contextmanager
def _naming_the_model(dir_path: str | os.PathLike[str]) -> Iterator[None]:
    """Add the directory to errors about the content of a saved model."""
    try:
        yield
    except ValueError as error:
        if str(dir_path) in str(error):
            raise
        msg = f"{error} The model is in {dir_path}."
        raise ValueError(msg) from error


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """Metadata of a training run.

    Parameters
    ----------
    genes
        Genes of the model.
    summary
        One-line description of the training data.
    seed
        Seed of the training; None for deterministic methods.
    interrupted
        Whether Ctrl-C stopped the training.
    curves
        Losses by epoch from :func:`curves_of`: ``"epoch"`` and ``"value"`` for each loss name.
    """

    genes: list[str]
    summary: str
    seed: int | None = None
    interrupted: bool = False
    curves: dict[str, dict[str, list[float]]] | None = None


def curves_of(history: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, list[float]]]:
    """Return losses (DataFrames indexed by epoch) as plain lists."""
    return {name: {"epoch": frame.index.tolist(), "value": frame[name].tolist()} for name, frame in history.items()}


def _restore(cls: Any, parameters: Mapping[str, Any], state: Any, training: TrainingRecord) -> SavedModel:
    """Return a trained model without data."""
    model: SavedModel = cls(None, **parameters)
    model._store(state, training)
    return model


class SavedModel:
    """Base class of all trained models: ``save``, ``load``, ``history`` and ``repr``.

    A subclass sets ``state_type`` and ``record_type`` and calls ``_store`` at the end of ``train``. The first argument
    of its constructor is the data (None for a loaded model). The other arguments are the keywords in ``parameters_``.
    A pickle or a copy of a trained model contains what ``save`` writes.

    Attributes
    ----------
    parameters_
        Arguments of the constructor, plain values.
    state_
        Fitted state, a frozen dataclass; None before training.
    training_
        Metadata of the training, a :class:`TrainingRecord`; None before training.
    """

    state_type: ClassVar[Any]
    record_type: ClassVar[type[TrainingRecord]] = TrainingRecord

    parameters_: dict[str, Any]
    state_: Any = None
    training_: Any = None
    is_trained_: bool = False

    def _store(self, state: Any, training: TrainingRecord) -> None:
        """Store the result of a training; no other method changes the fitted state."""
        self.state_, self.training_ = state, training
        self.is_trained_ = True

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle and copy a trained model as :meth:`save` writes it: without its training data."""
        if not self.is_trained_:
            return super().__reduce_ex__(protocol)
        return _restore, (type(self), self.parameters_, self.state_, self.training_)

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.summary_ if self.is_trained_ else 'not trained'}"

    def _require_trained(self) -> None:
        if not self.is_trained_:
            msg = f"Expected a trained model, found an untrained {type(self).__name__}. Call .train() first."
            raise RuntimeError(msg)

    @property
    def genes_(self) -> pd.Index:
        """Genes of the trained model."""
        self._require_trained()
        return pd.Index(self.training_.genes)

    @property
    def summary_(self) -> str:
        """One-line description of the training data; empty before training."""
        return self.training_.summary if self.is_trained_ else ""

    @property
    def seed_(self) -> int | None:
        """Seed of the training; None before training and for deterministic methods."""
        return self.training_.seed if self.is_trained_ else None

    @property
    def interrupted_(self) -> bool:
        """Whether Ctrl-C stopped the training."""
        return bool(self.is_trained_ and self.training_.interrupted)

    @property
    def history(self) -> dict[str, pd.DataFrame] | None:
        """Losses by epoch, one DataFrame per loss; None before training and for methods without epochs."""
        if not self.is_trained_ or self.training_.curves is None:
            return None
        return {
            name: pd.DataFrame({name: curve["value"]}, index=pd.Index(curve["epoch"], name="epoch"))
            for name, curve in self.training_.curves.items()
        }

    @checked()
    def save(self, dir_path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model without data to a directory: ``weights.npz`` (arrays) and ``model.json`` (all other state).

        Both files appear at the same time: a process that ends at any moment leaves the earlier model or the new one,
        and readers and other writers see one whole model.

        Parameters
        ----------
        dir_path
            Directory of the model. Missing parent directories are created.
        overwrite
            Replace a saved model. A directory with other files is never replaced.

        Raises
        ------
        FileExistsError
            If the directory exists and ``overwrite`` is False, or if it contains other files.
        RuntimeError
            If the model is not trained.
        """
        self._require_trained()
        parts = dict(zip(PARTS, (self.parameters_, self.training_, self.state_), strict=True))
        write_model(dir_path, type(self).__name__, parts, overwrite=overwrite)

    @classmethod
    @checked()
    def load(cls, dir_path: str | os.PathLike[str]) -> Self:
        """Load a model written by :meth:`save`; data are not needed, and the files contain no executable code.

        Parameters
        ----------
        dir_path
            Directory of the model.

        Returns
        -------
        The trained model.

        Raises
        ------
        FileNotFoundError
            If there is no model.
        ValueError
            If the model is of another class or format, or if its files were changed.
        """
        with _naming_the_model(dir_path):
            parts, arrays = read_model(dir_path, cls.__name__, PARTS)
            # constructor arguments differ between versions of a class
            with refuse_failed_parts(f"parameters of {cls.__name__}"):
                model = cls(None, **parts["parameters"])  # type: ignore[call-arg]
            unread = Arrays(arrays)
            state = from_plain(parts["state"], cls.state_type, "state", unread)
            training = from_plain(parts["training"], cls.record_type, "training", unread)
            unread.refuse_rest()
            with refuse_failed_parts(f"the state of a {cls.__name__}"):
                model._store(state, training)
            model._check_loaded()
        return model

    def _check_loaded(self) -> None:
        """Raise ``ValueError`` if the loaded parts do not match each other."""
