"""Base class of the neural networks: scvi-tools registration and training rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import mudata
import numpy as np
from scvi.data import AnnDataManager
from scvi.data.fields import LayerField, ObsmField
from scvi.model.base import BaseModelClass

from scdeconv._data import keys
from scdeconv._data.checks import SAMPLES_ONLY, check_cell_sizes, check_paired, check_training_samples, checked
from scdeconv._data.fractions import complete_fractions, has_measured, measured_shares
from scdeconv._data.matrix import Matrix, to_dense
from scdeconv._data.modalities import cell_types_of
from scdeconv._data.paired_data import PairedData
from scdeconv._nn import quiet, registration_arguments

from ._base import DeconvolutionModel
from ._cross_fitted import input_genes, require_data
from ._needs import check_needs
from ._training_record import DeconvolutionRecord, TrainingSamples
from ._usable import warn_of_left_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

Source = Literal["pairs", "simulated"]


@dataclass
class TrainingRows:
    """Training samples.

    Parameters
    ----------
    matrix
        Expression.
    rows, columns
        Indices of the used rows and columns of ``matrix``.
    measured
        Measured fractions, rows × cell types.
    fractions
        Measured or augmented fractions, rows × choices × cell types. One choice is drawn at each use.
    donors
        Donor of each row.
    weights
        Weight of each row; equal total weight for each donor; mean 1.
    totals
        Sum of each row over all genes of ``matrix``.
    """

    matrix: Matrix
    rows: np.ndarray
    columns: np.ndarray
    measured: np.ndarray
    fractions: np.ndarray
    donors: np.ndarray
    weights: np.ndarray
    totals: np.ndarray

    def dense(self, start: int, end: int) -> np.ndarray:
        """Return the expression of the samples ``start`` to ``end``, rows × genes."""
        return to_dense(self.matrix[self.rows[start:end]][:, self.columns])

    @cached_property
    def expression(self) -> np.ndarray:
        """The expression of all samples, rows × genes."""
        return self.dense(0, len(self.rows))


def training_rows(
    adata: AnnData, genes: pd.Index, cell_types: list[str], never_measured: Mapping[str, float] | None = None
) -> TrainingRows:
    """Return the samples with measured fractions and reads in the genes; fractions are shares of the cell types.

    ``never_measured`` has mean fractions of types that no sample has measured.
    """
    columns = adata.var_names.get_indexer(genes)
    known = has_measured(adata.obsm[keys.MEASURED])
    readable = np.asarray(adata.X[:, columns].sum(axis=1)).ravel() > 0
    warn_of_left_out(adata.obs_names[known & ~readable])
    # pandas 3 returns read-only arrays
    known = known & readable
    completed = complete_fractions(adata.obsm[keys.MEASURED][known], never_measured)
    measured = measured_shares(completed, cell_types).to_numpy(dtype=float)
    fractions = measured[:, None, :]
    if keys.AUGMENTED in adata.obsm:
        augmented = adata.obsm[keys.AUGMENTED][known]
        missing = np.isnan(augmented).any(axis=(1, 2), keepdims=True)
        fractions = np.where(missing, fractions, augmented)
    donors = adata.obs[keys.DONOR].to_numpy()[known].astype(str)
    _, codes, sizes = np.unique(donors, return_inverse=True, return_counts=True)
    weights = 1 / sizes[codes]
    totals = np.asarray(adata.X.sum(axis=1), dtype=float).ravel()[known]
    rows = np.flatnonzero(known)
    return TrainingRows(adata.X, rows, columns, measured, fractions, donors, weights / weights.mean(), totals)


class NeuralModel(DeconvolutionModel, BaseModelClass):
    """Base class of the neural networks: an scvi-tools model of bulk samples with measured fractions.

    ``train`` stores a state with the property ``network``.
    """

    module: Any

    @classmethod
    def default_source(cls) -> Source:
        """Return the default of ``train_on``.

        Returns
        -------
        ``"pairs"`` or ``"simulated"``.
        """
        return "simulated" if "simulated" in cls.record.needs else "pairs"

    def __init__(self, data: AnnData | MuData | None, parameters: dict[str, Any]) -> None:
        self.train_on = parameters.get("train_on") or self.default_source()
        self.parameters_ = parameters if "train_on" not in parameters else {**parameters, "train_on": self.train_on}
        if data is None:
            # a loaded model has no data
            self._adata = self.mdata = None
            return
        self.mdata = data if isinstance(data, mudata.MuData) else None
        self.rows_from = self._registered(data, self.train_on)
        BaseModelClass.__init__(self, self.rows_from)
        self._training_genes = input_genes(data) if isinstance(data, mudata.MuData) else data.var_names
        of_samples = list(self.rows_from.obsm[keys.MEASURED].columns)
        self._training_types = cell_types_of(data) if isinstance(data, mudata.MuData) else of_samples

    @staticmethod
    def _registered(data: AnnData | MuData, train_on: Source) -> AnnData:
        if not isinstance(data, mudata.MuData):
            return data
        modality = keys.BULK if train_on == "pairs" else keys.SIMULATED
        if modality not in data.mod:
            msg = (
                f"Expected modality {modality!r} to train on, found {sorted(data.mod)}. Call pp.simulate(mdata) first."
            )
            raise KeyError(msg)
        return data[modality]

    @classmethod
    @checked(adata=SAMPLES_ONLY, further=registration_arguments)
    def setup_anndata(cls, adata: AnnData, **kwargs: Any) -> None:
        """Register bulk samples with scvi-tools. The registration is written to ``adata.uns``.

        Parameters
        ----------
        adata
            Bulk samples with ``obs["donor"]`` and ``obsm["measured_fractions"]``.
        **kwargs
            Passed to ``AnnDataManager.register_fields`` of scvi-tools.

        Raises
        ------
        KeyError
            If ``obs["donor"]`` or ``obsm["measured_fractions"]`` is missing.
        ValueError
            If the expression was changed after pairing or is not on a linear scale, if a sample has no donor, if donors
            or cell types have two spellings, or if the fractions are invalid.
        """
        check_training_samples(adata)
        setup_method_args = cls._get_setup_method_args(**{"cls": cls, "adata": adata})
        fields = [LayerField("X", None, is_count_data=False), ObsmField("fractions", keys.MEASURED)]
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        with quiet("scvi"):
            manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    @classmethod
    @checked(further=registration_arguments)
    def setup_mudata(cls, mdata: MuData, *, train_on: Source | None = None, **kwargs: Any) -> None:
        """Register the training modality with scvi-tools.

        Parameters
        ----------
        mdata
            From :func:`scdeconv.pp.pair`.
        train_on
            ``"pairs"`` registers the modality ``bulk``, ``"simulated"`` the modality ``simulated``. None: the default
            of the method.
        **kwargs
            As for :meth:`setup_anndata`.

        Raises
        ------
        KeyError
            If the modality is missing.
        ValueError
            If the data were changed after pairing, or if the method needs unknown cell sizes.
        """
        check_needs(mdata, cls.record, train_on, count_pairs=False)
        check_paired(mdata)
        if cls.record.uses_cell_sizes and train_on != "pairs":
            check_cell_sizes(mdata, cls.record.key)
        cls.setup_anndata(cls._registered(mdata, train_on or cls.default_source()), **kwargs)

    @property
    def best_epoch_(self) -> int:
        """Epoch of the stored weights; 0: initial weights."""
        self._require_trained()
        return int(self.training_.curves["best_epoch"]["epoch"][0])

    def _training_rows(self) -> TrainingRows:
        adata = require_data(self.adata)
        paired = {} if self.mdata is None else self.mdata.uns.get(keys.UNS, {}).get("pair", {})
        rows = training_rows(adata, self._training_genes, self._training_types, paired.get("never_measured"))
        if self.train_on == "simulated" and len(np.unique(rows.donors)) == 1:
            # bulk simulated from profiles or across donors has no donor: split by sample
            rows.donors = np.arange(len(rows.donors)).astype(str)
        return rows

    def _store(self, state: Any, training: Any) -> None:
        super()._store(state, training)
        self.module = state.network

    def _record(
        self, summary: str, rows: TrainingRows, held_out_rows: Sequence[int] | np.ndarray = (), **parts: Any
    ) -> DeconvolutionRecord:
        """Return the training record.

        Parameters
        ----------
        summary
            Description in one line.
        rows
            Training samples.
        held_out_rows
            Training sample of each out-of-fold prediction.
        **parts
            Further fields.
        """
        samples = self._training_samples(rows, held_out_rows)
        if self.mdata is not None:
            data = PairedData(self.mdata, self._training_genes)
            parts |= {"bulk_unit": data.bulk_unit, "library_size": data.library_size, "levels": data.levels}
        genes, cell_types = list(self._training_genes), self._training_types
        return DeconvolutionRecord(genes=genes, cell_types=cell_types, summary=summary, samples=samples, **parts)

    def _training_samples(
        self, rows: TrainingRows, held_out_rows: Sequence[int] | np.ndarray
    ) -> TrainingSamples | None:
        """Return the bulk samples of which the model learned the measured fractions; None for simulation from cells."""
        genes = self._training_genes
        if self.train_on == "pairs":
            return TrainingSamples.of(self.adata, genes, rows.rows, held_out_rows)
        if self.mdata is not None and self.mdata.uns.get(keys.UNS, {}).get("simulate", {}).get("calibration"):
            return TrainingSamples.of(self.mdata[keys.BULK], genes, PairedData(self.mdata, genes).paired())
        return None
