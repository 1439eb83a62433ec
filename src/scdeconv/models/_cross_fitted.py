"""Base class of the methods with a pure ``fit``, which is cross-fitted over donors."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.checks import Problems, check_cell_sizes, check_expressed, check_paired, checked, examples
from scdeconv._data.paired_data import PairedData
from scdeconv._stats.compositions import to_fractions
from scdeconv._stats.conformal import HeldOut
from scdeconv._stats.recognition.familiarity import Familiarity
from scdeconv.pp import FEWEST_PAIRS, paired_donors

from ._base import DeconvolutionModel
from ._needs import check_needs
from ._training_record import DeconvolutionRecord, TrainingSamples
from ._usable import to_all_rows, warn_of_left_out

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from anndata import AnnData
    from mudata import MuData

    from ._state import State

Data = TypeVar("Data")
# maximum number of donor folds for out-of-fold errors; set by hand
MAX_DONOR_FOLDS = 10


def require_data(data: Data | None) -> Data:
    """Return the training data of a model; raise ``RuntimeError`` for a loaded model, which has none."""
    if data is None:
        msg = "Expected training data, found a loaded model without data. Create a new model from a MuData."
        raise RuntimeError(msg)
    return data


def input_genes(mdata: MuData) -> pd.Index:
    """Return the selected genes of the bulk modality, or all genes if none were selected."""
    var = mdata[keys.BULK].var
    return var.index[var[keys.SELECTED].to_numpy(dtype=bool)] if keys.SELECTED in var else var.index


class CrossFittedModel(DeconvolutionModel):
    """Base class of the methods with a pure ``fit``, which is cross-fitted over donors. Derive your own methods from it.

    A method is a class with a ``record``, a ``state_type`` and ``fit``. ``fit`` reads data and returns a state. It changes
    neither the model nor the data. ``train`` fits the method to all donors. It also fits the method once without each
    fold of donors to estimate the errors on new donors.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> import scdeconv
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Shares(scdeconv.models.State):
    ...     profiles: np.ndarray
    ...
    ...     def predict(self, expression):
    ...         return np.linalg.lstsq(self.profiles.T, np.nan_to_num(expression).T, rcond=None)[0].T
    >>> @scdeconv.models.register
    ... class LeastSquares(scdeconv.models.CrossFittedModel):
    ...     record = scdeconv.models.Method(
    ...         key="least_squares", family="reference", needs=("profiles",), summary="least squares", reference="me"
    ...     )
    ...     state_type = Shares
    ...
    ...     def fit(self, data, without=()):
    ...         return Shares(profiles=data.profiles(without))
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> model = scdeconv.tl.train(mdata, "least_squares")
    least_squares: 300 genes
    >>> model.predict(mdata["bulk"]).shape
    (12, 7)
    """

    # minimum number of paired donors for cross-fitting
    fewest_to_hold_out: ClassVar[int] = FEWEST_PAIRS + 1

    @checked()
    def __init__(self, mdata: MuData | None = None) -> None:
        self.mdata = mdata
        self.parameters_ = {}

    @classmethod
    @checked()
    def setup_mudata(cls, mdata: MuData) -> None:
        """Check that the data have what the method needs. Nothing is written.

        Parameters
        ----------
        mdata
            From :func:`scdeconv.pp.pair`.

        Raises
        ------
        KeyError
            If there is no bulk.
        ValueError
            If the reference or the cells that the method needs are missing, if the data were changed after pairing, if a
            bulk sample has no donor, if donors or cell types have two spellings, or if the method needs unknown cell
            sizes.
        """
        check_needs(mdata, cls.record, count_pairs=False)
        check_paired(mdata)
        if cls.record.uses_cell_sizes or ("pairs" not in cls.record.needs and not paired_donors(mdata)):
            check_cell_sizes(mdata, cls.record.key)

    @abstractmethod
    def fit(self, data: PairedData, without: Collection[str] = ()) -> State:
        """Fit the method to paired data. The function is pure: it changes neither the model nor the data.

        Parameters
        ----------
        data
            Pairs, bulk and reference over the model's genes.
        without
            Donors to exclude from pairs, bulk and reference.

        Returns
        -------
        The learned state, of the class ``state_type``.
        """

    @checked()
    def train(self, *, held_out: bool = True) -> None:
        """Fit the method to all donors.

        Parameters
        ----------
        held_out
            Also compute out-of-fold predictions over at most 10 folds of donors. Prediction intervals need them.
        """
        self._train(held_out=held_out)

    def _train(self, *, held_out: bool, seed: int | None = None, **settings: Any) -> None:
        """Cross-fit, fit to all donors and store the result; ``seed`` and ``settings`` are passed to ``fit``."""
        if seed is not None:
            settings["seed"] = seed
        data = PairedData(self._require_data(), self._input_genes())
        if set(self.record.needs) & {"profiles", "cells"} and len(data.genes):
            problems = Problems(f"{type(self).__name__} cannot be trained")
            # a type without cells of the remaining donors has size 0
            rows = data.cell_sizes() > 0
            check_expressed(problems, data.profiles()[rows].sum(axis=1), np.array(data.cell_types)[rows], "genes")
            problems.raise_if_any()
        if "pairs" in self.record.needs:
            warn_of_left_out(data.samples.index[data.measured & ~data.paired()])
        state, predicted, familiarity = self._learn(data, held_out=held_out, **settings)
        summary = state.summary or f"{len(data.genes)} genes"
        if predicted is not None and "pairs" in self.record.needs and self.record.key != keys.BASELINE:
            summary += f"; {predicted.describe()}"
        samples = None
        if self.record.learns_from_pairs and data.paired().any():
            n_held_out = 0 if predicted is None else len(predicted.predicted)
            samples = TrainingSamples.of(data.mdata[keys.BULK], data.genes, data.paired(), range(n_held_out))
        record = DeconvolutionRecord(
            genes=list(data.genes),
            cell_types=self._output_types(data),
            summary=summary,
            seed=seed,
            bulk_unit=data.bulk_unit,
            held_out=predicted,
            familiarity=familiarity,
            samples=samples,
            library_size=data.library_size,
            levels=data.levels,
        )
        self._store(state, record)

    def _learn(
        self, data: PairedData, *, held_out: bool, **settings: Any
    ) -> tuple[State, HeldOut | None, Familiarity | None]:
        """Return the state fitted to all donors, out-of-fold predictions and familiarity."""
        predicted, familiarity = self.cross_fit(data, **settings) if held_out else (None, None)
        return self.fit(data, **settings), predicted, familiarity

    def _require_data(self) -> MuData:
        return require_data(self.mdata)

    def _input_genes(self) -> pd.Index:
        return input_genes(self._require_data())

    def _output_types(self, data: PairedData) -> list[str]:
        return data.cell_types

    def _folds(self, donors: list[str]) -> list[list[str]]:
        """Return the folds of donors that are held out together."""
        return [donors[fold::MAX_DONOR_FOLDS] for fold in range(min(MAX_DONOR_FOLDS, len(donors)))]

    def cross_fit(
        self, data: PairedData, without: Collection[str] = (), **settings: Any
    ) -> tuple[HeldOut | None, Familiarity | None]:
        """Predict each fold of donors with a state fitted without that fold. Pure, like :meth:`fit`.

        Parameters
        ----------
        data, without
            As for :meth:`fit`.
        **settings
            Further arguments of :meth:`fit`.

        Returns
        -------
        Out-of-fold predictions, and the compositions and noise levels of the donors if the method estimates noise. Both
        are None if there are too few donors.
        """
        pairs = data.pairs(without)
        donors = sorted(set(pairs.donors))
        if len(donors) < self.fewest_to_hold_out:
            return None, None
        measured = pairs.fractions
        if self.fraction_kind == "rna":
            measured = to_fractions(measured * data.cell_sizes(without))
        predicted, noise, members = np.empty_like(measured), np.full(len(measured), np.nan), None
        for fold in self._folds(donors):
            rows = np.isin(pairs.donors, fold)
            estimate = self.fit(data, [*without, *fold], **settings).estimate(pairs.expression[rows])
            # samples without an estimate count with equal fractions
            predicted[rows] = np.where(np.isfinite(estimate.fractions), estimate.fractions, 1 / measured.shape[1])
            if estimate.members is not None:
                if members is None:
                    members = np.empty((len(estimate.members), *measured.shape))
                members[:, rows] = np.nan_to_num(estimate.members, nan=1 / measured.shape[1])
            if estimate.noise is not None:
                noise[rows] = estimate.noise
        held_out = HeldOut(measured, predicted, pairs.donors, members)
        known = not np.isnan(noise).any()
        return held_out, Familiarity.from_held_out(noise, measured, pairs.donors) if known else None

    @checked()
    def predict_expression(
        self, adata: AnnData, *, cell_types: Sequence[str] | None = None, layer: str | None = None
    ) -> Iterator[tuple[str, pd.DataFrame]]:
        """Estimate the expression of each cell type in bulk samples.

        Parameters
        ----------
        adata, layer
            As for :meth:`predict`.
        cell_types
            Types to return; None: all.

        Returns
        -------
        Iterator over pairs of a cell type and a DataFrame (samples × model genes) with its part of the expression, in the
        unit of ``adata``; missing genes and samples without reads are NaN. One type is in memory at a time; ``dict(...)``
        collects all.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        TypeError
            If the method does not estimate expression.
        ValueError
            If a cell type is unknown, and as in :meth:`predict`.
        """
        self._require_trained()
        wanted = self.cell_types_ if cell_types is None else list(cell_types)
        unknown = [name for name in wanted if name not in self.cell_types_]
        if unknown:
            msg = f"Expected cell_types of {self.cell_types_}, found {examples(unknown)}. Correct the names."
            raise ValueError(msg)
        expression, usable = self._aligned(adata, layer)
        parts = self.state_.contributions(expression, [self.cell_types_.index(name) for name in wanted])
        if parts is None:
            msg = (
                f"Expected a model that estimates expression, found {type(self).__name__}, which does not, or has no cells of the "
                "paired donors. Train with method='bayesprism', or with method='calibrated_map' on pairs with cells."
            )
            raise TypeError(msg)
        return (
            (name, pd.DataFrame(to_all_rows(part, usable), adata.obs_names, self.genes_))
            for name, part in zip(wanted, parts, strict=True)
        )
