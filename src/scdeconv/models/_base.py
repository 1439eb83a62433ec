"""The common face of the methods: predict, save, load."""

from __future__ import annotations

import json
import shutil
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd

from scdeconv import __version__
from scdeconv import _keys as keys
from scdeconv._genes import align_genes, strip_versions
from scdeconv._validation import examples

if TYPE_CHECKING:
    import os

    from anndata import AnnData
    from mudata import MuData

DESCRIPTION = "model.json"
WEIGHTS = "weights.npz"
NO_DATA = "Expected data to train on, found none (a loaded model). Make a new model from a MuData."


def as_fractions(values: np.ndarray, samples: pd.Index, cell_types: list[str]) -> pd.DataFrame:
    """Clip at zero and make rows sum to 1; a row without any signal becomes uniform."""
    values = np.maximum(values, 0)
    totals = values.sum(axis=1, keepdims=True)
    uniform = np.full_like(values, 1 / values.shape[1])
    # not "> 0": what is not a number must stay so, and be seen
    fractions = np.divide(values, totals, out=uniform, where=totals != 0)
    return pd.DataFrame(fractions, index=samples, columns=cell_types)


def input_genes(mdata: MuData) -> pd.Index:
    """Return the selected genes of the bulk modality, or all where none were selected."""
    var = mdata[keys.BULK].var
    return var.index[var[keys.SELECTED].to_numpy(dtype=bool)] if keys.SELECTED in var else var.index


class DeconvolutionModel:
    """What every method offers once it is trained.

    A subclass fills in ``train``, which sets ``genes_`` and ``cell_types_``, and three small pieces: ``_fractions`` (the
    estimate for aligned expression), ``_arrays`` and ``_restore`` (its state as named arrays, for files).
    """

    method: ClassVar[str]
    fraction_kind: ClassVar[str] = "cell"

    genes_: pd.Index
    cell_types_: list[str]
    parameters_: dict[str, Any]
    history_: dict[str, pd.DataFrame] | None = None
    is_trained_: bool = False
    summary_: str = ""
    seed_: int | None = None

    @abstractmethod
    def __init__(self, data: MuData | None = None, **parameters: Any) -> None: ...

    @abstractmethod
    def train(self) -> None:
        """Learn from the data that the model was made with."""

    @abstractmethod
    def _fractions(self, expression: np.ndarray) -> np.ndarray:
        """Return non-negative weights, samples × types, of expression samples × ``genes_`` (NaN: gene missing)."""

    @abstractmethod
    def _arrays(self) -> dict[str, np.ndarray]:
        """Return the trained state."""

    @abstractmethod
    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take the trained state back."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.summary_ if self.is_trained_ else 'not trained'}"

    @property
    def history(self) -> dict[str, pd.DataFrame] | None:
        """Losses by epoch; None for methods without epochs."""
        return self.history_

    def predict(self, adata: AnnData, *, layer: str | None = None) -> pd.DataFrame:
        """Estimate the composition of bulk samples.

        Parameters
        ----------
        adata
            Bulk samples × genes, counts or TPM as in training. Genes are found by name; the object is not changed.
        layer
            Layer to read instead of ``X``.

        Returns
        -------
        Fractions, samples × cell types; rows sum to 1.

        Raises
        ------
        RuntimeError
            Before training.
        ValueError
            Where values are not linear expression or less than half of the model's genes are there.
        """
        if not self.is_trained_:
            msg = f"Expected a trained model, found an untrained {type(self).__name__}. Call .train() first."
            raise RuntimeError(msg)
        expression = align_genes(adata, strip_versions(self.genes_), layer=layer)
        return as_fractions(self._fractions(expression), adata.obs_names, self.cell_types_)

    def save(self, dir_path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model to a directory: ``weights.npz`` (arrays) and ``model.json`` (everything else).

        The directory is written beside its place and moved there when complete, so a failed save leaves an earlier model
        as it was. ``overwrite`` replaces a saved model, and nothing else.

        Raises
        ------
        FileExistsError
            Where the directory exists and ``overwrite`` is False, or holds other files than a model's.
        RuntimeError
            Before training.
        """
        if not self.is_trained_:
            msg = f"Expected a trained model, found an untrained {type(self).__name__}. Call .train() first."
            raise RuntimeError(msg)
        target = Path(dir_path)
        if target.exists() and not overwrite:
            msg = f"Expected no directory at {target}, found one. Pass overwrite=True or choose another."
            raise FileExistsError(msg)
        others = [item.name for item in target.iterdir()] if target.exists() else []
        others = sorted(set(others) - {DESCRIPTION, WEIGHTS})
        if others:
            msg = f"Expected nothing but a saved model in {target}, found {examples(others)}. Choose another directory."
            raise FileExistsError(msg)
        target.parent.mkdir(parents=True, exist_ok=True)
        workplace = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            new = workplace / "new"
            new.mkdir()
            np.savez(new / WEIGHTS, **self._arrays())  # type: ignore[arg-type]
            (new / DESCRIPTION).write_text(json.dumps(self._description(), indent=1, default=np.generic.item))
            if target.exists():
                target.rename(workplace / "old")
            try:
                new.rename(target)
            except OSError:
                (workplace / "old").rename(target)
                raise
        finally:
            shutil.rmtree(workplace, ignore_errors=True)

    def _description(self) -> dict[str, Any]:
        history = self.history_ or {}
        return {
            "class": type(self).__name__,
            "version": __version__,
            "parameters": self.parameters_,
            "seed": self.seed_,
            "cell_types": list(self.cell_types_),
            "genes": list(self.genes_),
            "summary": self.summary_,
            "history": {
                name: {"epoch": frame.index.tolist(), "value": frame[name].tolist()} for name, frame in history.items()
            },
        }

    @classmethod
    def load(cls, dir_path: str | os.PathLike[str]) -> Self:
        """Read a model that :meth:`save` wrote. No data are needed, and nothing in the files is executed.

        Raises
        ------
        FileNotFoundError
            Where there is no model.
        ValueError
            Where it is a model of another class.
        """
        path = Path(dir_path)
        if not (path / DESCRIPTION).exists():
            msg = f"Expected a saved model with {DESCRIPTION} in {path}, found none."
            raise FileNotFoundError(msg)
        description = json.loads((path / DESCRIPTION).read_text())
        if description["class"] != cls.__name__:
            msg = f"Expected a saved {cls.__name__} in {path}, found {description['class']}. Use that class's load."
            raise ValueError(msg)
        with np.load(path / WEIGHTS, allow_pickle=False) as file:
            arrays = dict(file)
        model = cls(None, **description["parameters"])
        model.genes_ = pd.Index(description["genes"])
        model.cell_types_ = description["cell_types"]
        model.summary_ = description["summary"]
        model.seed_ = description["seed"]
        model.history_ = {
            name: pd.DataFrame({name: curve["value"]}, index=pd.Index(curve["epoch"], name="epoch"))
            for name, curve in description["history"].items()
        } or None
        model._restore(arrays)
        model.is_trained_ = True
        return model


class LinearModel(DeconvolutionModel):
    """Base of the methods that need NumPy alone."""

    def __init__(self, mdata: MuData | None = None) -> None:
        self.mdata = mdata
        self.parameters_ = {}

    @classmethod
    def setup_mudata(cls, mdata: MuData) -> None:
        """Check that the data have what the method needs; nothing is written."""
        missing = {keys.BULK, keys.PROFILES} - set(mdata.mod)
        if missing:
            msg = f"Expected modalities 'bulk' and 'profiles', found {sorted(mdata.mod)}. Make them with pp.pair."
            raise KeyError(msg)

    def _require_data(self) -> MuData:
        if self.mdata is None:
            raise RuntimeError(NO_DATA)
        return self.mdata
