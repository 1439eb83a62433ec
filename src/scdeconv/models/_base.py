"""Base classes: predict, intervals, save, load."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import values_of
from scdeconv._data.chunks import first_rows
from scdeconv._data.genes import align_genes, strip_versions
from scdeconv._data.matrix import get_matrix
from scdeconv._data.reference import Reference
from scdeconv._data.units import COUNTS, TPM, unit_of
from scdeconv._data.warnings import warn
from scdeconv._stats.conformal import HeldOut
from scdeconv._stats.familiarity import Familiarity
from scdeconv.io import curves_from_plain, curves_to_plain, read_model, write_model
from scdeconv.pp import FEWEST_PAIRS, paired_donors

if TYPE_CHECKING:
    import os
    from collections.abc import Collection

    from anndata import AnnData
    from mudata import MuData

    from ._record import Method

# npz key prefixes of non-method arrays
HELD_OUT = "held_out."
FAMILIARITY = "familiarity."
# samples from which the unit of bulk is recognised
SAMPLES_THAT_TELL = 100
# maximum number of donor folds for out-of-fold errors
HELD_OUT_FOLDS = 10
NO_DATA = "Expected data to train on, found none (a loaded model). Make a new model from a MuData."


def normalise(values: np.ndarray) -> np.ndarray:
    """Clip at zero and make rows sum to 1; a row without any signal becomes uniform."""
    values = np.maximum(values, 0)
    totals = values.sum(axis=1, keepdims=True)
    uniform = np.full_like(values, 1 / values.shape[1])
    # not "> 0": NaN rows must stay NaN
    return np.divide(values, totals, out=uniform, where=totals != 0)


def _take(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Remove the arrays whose names start with the prefix, and return them without it."""
    return {name[len(prefix) :]: arrays.pop(name) for name in list(arrays) if name.startswith(prefix)}


def input_genes(mdata: MuData) -> pd.Index:
    """Return the selected genes of the bulk modality, or all where none were selected."""
    var = mdata[keys.BULK].var
    return var.index[var[keys.SELECTED].to_numpy(dtype=bool)] if keys.SELECTED in var else var.index


class DeconvolutionModel:
    """What every method offers once it is trained.

    A subclass fills in ``train``, which sets ``genes_`` and ``cell_types_``, and three small pieces: ``_fractions`` (the
    estimate for aligned expression), ``_arrays`` and ``_restore`` (its state as named arrays, for files).

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> model = scdeconv.tl.train(mdata, "ridge")  # doctest: +ELLIPSIS
    ridge: ...
    >>> model.save("model", overwrite=True)
    >>> model = scdeconv.models.Ridge.load("model")
    >>> fractions = model.predict(mdata["bulk"])
    >>> lower, upper = model.predict_interval(mdata["bulk"], coverage=0.8)
    >>> bool(((lower <= fractions) & (fractions <= upper)).all(axis=None))
    True
    """

    record: ClassVar[Method]
    method: ClassVar[str]
    fraction_kind: ClassVar[Literal["cell", "rna"]]

    genes_: pd.Index
    cell_types_: list[str]
    parameters_: dict[str, Any]
    history_: dict[str, pd.DataFrame] | None = None
    is_trained_: bool = False
    summary_: str = ""
    seed_: int | None = None
    held_out_: HeldOut | None = None
    familiarity_: Familiarity | None = None
    bulk_unit_: str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "record" in vars(cls):
            cls.method, cls.fraction_kind = cls.record.key, cls.record.fraction_kind

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
        fractions = normalise(self._fractions(self._aligned(adata, layer)))
        return pd.DataFrame(fractions, index=adata.obs_names, columns=self.cell_types_)

    def estimate(
        self, adata: AnnData, *, coverage: float | None = None, layer: str | None = None
    ) -> dict[str, pd.DataFrame]:
        """Return all that the model says about bulk samples, which are read once.

        Parameters
        ----------
        adata, layer
            As for :meth:`predict`.
        coverage
            Of the intervals; without it there are none.

        Returns
        -------
        ``fractions`` as from :meth:`predict`; with ``coverage``, ``lower`` and ``upper`` as from :meth:`predict_interval`;
        ``quality`` as from :meth:`quality`, for models that have it.
        """
        expression = self._aligned(adata, layer)
        values, spread, noise = self._judge(expression)
        found = {"fractions": pd.DataFrame(values, index=adata.obs_names, columns=self.cell_types_)}
        if coverage is not None:
            found["lower"], found["upper"] = self._interval(found["fractions"], spread, coverage)
        quality = self._quality(expression, found["fractions"], noise)
        return found if quality is None else {**found, "quality": quality}

    def _judge(self, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray | float, np.ndarray | None]:
        """Return fractions, the spread of an ensemble's members (on the angular scale), and each sample's noise if known."""
        return normalise(self._fractions(expression)), 0.0, None

    def _require_trained(self) -> None:
        if not self.is_trained_:
            msg = f"Expected a trained model, found an untrained {type(self).__name__}. Call .train() first."
            raise RuntimeError(msg)

    def _aligned(self, adata: AnnData, layer: str | None) -> np.ndarray:
        """Return expression of the model's genes, NaN where a gene is missing."""
        self._require_trained()
        expression = align_genes(adata, strip_versions(self.genes_), layer=layer)
        found = unit_of(first_rows(get_matrix(adata, layer, "adata"))[:SAMPLES_THAT_TELL])
        if {self.bulk_unit_, found} == {COUNTS, TPM}:
            warn(
                f"Expected {self.bulk_unit_} as the model was trained on, found {found} in adata: the estimates may be far "
                "off. Predict in the unit that was paired, or pair and train in the other."
            )
        return expression

    def quality(self, adata: AnnData, *, layer: str | None = None) -> pd.DataFrame | None:
        """Say how well the model's idea of bulk fits each sample.

        Parameters
        ----------
        adata, layer
            As for :meth:`predict`.

        Returns
        -------
        Samples × measures of the method; None for methods that have none. Models that simulate from a calibration give
        ``noise`` (what composition does not explain, in units of what the calibration expects), ``composition`` (standard
        deviations between the most unusual cell type and the training donors) and ``outside``: one of them is a quarter
        above that of any training donor when it was held out.
        """
        return self.estimate(adata, layer=layer).get("quality")

    def _quality(
        self, expression: np.ndarray, fractions: pd.DataFrame, noise: np.ndarray | None
    ) -> pd.DataFrame | None:
        return None if self.familiarity_ is None or noise is None else self.familiarity_.quality(noise, fractions)

    def predict_interval(
        self, adata: AnnData, coverage: float = 0.9, *, layer: str | None = None
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return lower and upper bounds of the fractions of bulk samples.

        They come from the errors on training donors that were held out, so they hold for new donors of the same kind,
        whatever the model gets wrong. A fraction lies inside with probability ``coverage``, on average over entries.

        Parameters
        ----------
        adata, layer
            As for :meth:`predict`.
        coverage
            Up to n / (n + 1) for n training donors.

        Returns
        -------
        Lower and upper bounds, samples × cell types.

        Raises
        ------
        ValueError
            Where the training donors cannot support the coverage, or the model has not held any out.
        """
        found = self.estimate(adata, coverage=coverage, layer=layer)
        return found["lower"], found["upper"]

    def _interval(
        self, fractions: pd.DataFrame, spread: np.ndarray | float, coverage: float
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        if self.held_out_ is None:
            msg = (
                f"Expected a model that held donors out in training, found none in {type(self).__name__}. Intervals need a "
                "method that learns from at least 4 paired donors."
            )
            raise ValueError(msg)
        bounds = self.held_out_.intervals(fractions.to_numpy(), coverage, spread)
        lower, upper = (pd.DataFrame(bound, fractions.index, fractions.columns) for bound in bounds)
        return lower, upper

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
        self._require_trained()
        arrays = self._arrays()
        if self.held_out_ is not None:
            arrays |= {HELD_OUT + name: array for name, array in vars(self.held_out_).items()}
        if self.familiarity_ is not None:
            arrays |= {FAMILIARITY + name: array for name, array in vars(self.familiarity_).items()}
        write_model(dir_path, type(self).__name__, self._description(), arrays, overwrite=overwrite)

    def _description(self) -> dict[str, Any]:
        return {
            "parameters": self.parameters_,
            "seed": self.seed_,
            "bulk_unit": self.bulk_unit_,
            "cell_types": list(self.cell_types_),
            "genes": list(self.genes_),
            "summary": self.summary_,
            "history": curves_to_plain(self.history_),
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
        description, arrays = read_model(dir_path, cls.__name__)
        model = cls(None, **description["parameters"])
        model.genes_ = pd.Index(description["genes"])
        model.cell_types_ = description["cell_types"]
        model.summary_ = description["summary"]
        model.seed_, model.bulk_unit_ = description["seed"], description["bulk_unit"]
        model.history_ = curves_from_plain(description["history"])
        held_out, familiarity = _take(arrays, HELD_OUT), _take(arrays, FAMILIARITY)
        model.held_out_ = HeldOut(**held_out) if held_out else None
        model.familiarity_ = Familiarity(**familiarity) if familiarity else None
        model._restore(arrays)
        model.is_trained_ = True
        return model


class LinearModel(DeconvolutionModel):
    """Base of the methods that need NumPy alone; a subclass fills in ``_fit``."""

    modalities: ClassVar[tuple[str, ...]] = (keys.BULK, keys.PROFILES)

    def __init__(self, mdata: MuData | None = None) -> None:
        self.mdata = mdata
        self.parameters_ = {}

    @classmethod
    def setup_mudata(cls, mdata: MuData) -> None:
        """Check that the data have what the method needs; nothing is written."""
        if set(cls.modalities) - set(mdata.mod):
            made = "pp.pair(cells, bulk)" if {keys.CELLS, keys.SUMS} & set(cls.modalities) else "pp.pair"
            msg = f"Expected modalities {list(cls.modalities)}, found {sorted(mdata.mod)}. Make them with {made}."
            raise KeyError(msg)

    @abstractmethod
    def _fit(self, without: Collection[str]) -> None:
        """Learn from all donors but these."""

    def train(self, *, held_out: bool = True) -> None:
        """Learn from all donors; before, with ``held_out``, predict each fold of them by the rest, for intervals."""
        mdata = self._require_data()
        self.genes_ = self._input_genes()
        self.cell_types_ = list(mdata[keys.PROFILES].obs[keys.CELL_TYPE])
        self._reference = Reference(mdata, self.genes_)
        self._batch_key = mdata.uns.get(keys.UNS, {}).get("calibrate", {}).get("batch_key")
        donors = paired_donors(mdata)
        if held_out and len(donors) > FEWEST_PAIRS:
            self.held_out_ = self._predict_held_out(donors)
        self._fit(())
        del self._reference
        self.is_trained_ = True

    def _input_genes(self) -> pd.Index:
        return input_genes(self._require_data())

    def _predict_held_out(self, donors: list[str]) -> HeldOut:
        bulk = self._require_data()[keys.BULK]
        known = self._known(())
        expression = values_of(bulk, known, self.genes_)
        of_sample = bulk.obs[keys.DONOR].to_numpy()[known].astype(str)
        measured = bulk.obsm[keys.MEASURED].to_numpy(dtype=float)[known]
        if self.fraction_kind == "rna":
            measured = normalise(measured * self._reference.profiles()[1])
        predicted = np.empty_like(measured)
        for fold in range(min(HELD_OUT_FOLDS, len(donors))):
            members = donors[fold::HELD_OUT_FOLDS]
            self._fit(members)
            rows = np.isin(of_sample, members)
            predicted[rows] = normalise(self._fractions(expression[rows]))
        return HeldOut(measured, predicted, of_sample)

    def _known(self, without: Collection[str]) -> np.ndarray:
        """Return which bulk samples have measured fractions, those of some donors left out."""
        bulk = self._require_data()[keys.BULK]
        known = bulk.obsm[keys.MEASURED].notna().all(axis=1) & ~bulk.obs[keys.DONOR].isin(without)
        return known.to_numpy()

    def _require_data(self) -> MuData:
        if self.mdata is None:
            raise RuntimeError(NO_DATA)
        return self.mdata
