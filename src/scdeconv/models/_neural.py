"""What the neural methods share: set-up through scvi-tools, training rows, donor folds, arrays for files."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import mudata
import numpy as np
import torch
from scvi.data import AnnDataManager
from scvi.data.fields import LayerField, ObsmField
from scvi.model.base import BaseModelClass

from scdeconv._data import keys
from scdeconv._data.matrix import Matrix, to_dense
from scdeconv._nn import quiet

from ._base import NO_DATA, DeconvolutionModel, input_genes

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

Source = Literal["pairs", "simulated"]


@dataclass
class TrainingRows:
    """Samples to learn from: which rows and columns of a matrix, fractions (rows × choices × types), donors, weights."""

    matrix: Matrix
    rows: np.ndarray
    columns: np.ndarray
    fractions: np.ndarray
    donors: np.ndarray
    weights: np.ndarray

    def dense(self, start: int, end: int) -> np.ndarray:
        """Return the expression of some of the samples, rows × genes."""
        return to_dense(self.matrix[self.rows[start:end]][:, self.columns])

    @cached_property
    def expression(self) -> np.ndarray:
        """The expression of all samples, rows × genes."""
        return self.dense(0, len(self.rows))


def training_rows(adata: AnnData, genes: pd.Index) -> TrainingRows:
    """Take the samples whose fractions are known; donors weigh the same however many samples they have."""
    measured = adata.obsm[keys.MEASURED]
    known = measured.notna().all(axis=1).to_numpy()
    fractions = measured.to_numpy(dtype=float)[known, None, :]
    if keys.AUGMENTED in adata.obsm:
        augmented = adata.obsm[keys.AUGMENTED][known]
        missing = np.isnan(augmented).any(axis=(1, 2), keepdims=True)
        fractions = np.where(missing, fractions, augmented)
    donors = adata.obs[keys.DONOR].to_numpy()[known].astype(str)
    _, codes, sizes = np.unique(donors, return_inverse=True, return_counts=True)
    weights = 1 / sizes[codes]
    return TrainingRows(
        adata.X,
        np.flatnonzero(known),
        adata.var_names.get_indexer(genes),
        fractions,
        donors,
        weights / weights.mean(),
    )


def donor_folds(donors: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Give every row a fold so that no donor is in two; rows are the units where there are fewer than three donors."""
    unique, codes = np.unique(donors, return_inverse=True)
    if len(unique) < 3:
        unique, codes = np.arange(len(donors)), np.arange(len(donors))
    return (rng.permutation(len(unique)) % n_folds)[codes]


class NeuralModel(DeconvolutionModel, BaseModelClass):
    """Base of the neural methods: an scvi-tools model whose data are bulk samples with measured fractions."""

    module: torch.nn.Module

    @classmethod
    def default_source(cls) -> Source:
        """Return what the method is trained on unless ``train_on`` says otherwise."""
        return "simulated" if "simulated" in cls.record.needs else "pairs"

    def __init__(self, data: AnnData | MuData | None, train_on: Source | None, parameters: dict[str, Any]) -> None:
        self.train_on = train_on or self.default_source()
        self.parameters_ = {"train_on": self.train_on, **parameters}
        if data is None:
            # a loaded model: everything it needs comes from its files
            self._adata = self.mdata = None
            return
        self.mdata = data if isinstance(data, mudata.MuData) else None
        self.rows_from = self._registered(data, self.train_on)
        BaseModelClass.__init__(self, self.rows_from)
        self.genes_ = input_genes(data) if isinstance(data, mudata.MuData) else data.var_names
        self.cell_types_ = list(self.rows_from.obsm[keys.MEASURED].columns)

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
    def setup_anndata(cls, adata: AnnData, **kwargs: Any) -> None:
        """Register bulk samples with ``obs["donor"]`` and ``obsm["measured_fractions"]``.

        As everywhere in scvi-tools, marks of the registration are written to ``adata.uns``.
        """
        for container, key in (("obs", keys.DONOR), ("obsm", keys.MEASURED)):
            if key not in getattr(adata, container):
                msg = f"Expected {container}[{key!r}] in adata, found {list(getattr(adata, container))}. Call pp.pair."
                raise KeyError(msg)
        setup_method_args = cls._get_setup_method_args(**{"cls": cls, "adata": adata})
        fields = [LayerField("X", None, is_count_data=False), ObsmField("fractions", keys.MEASURED)]
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        with quiet("scvi"):
            manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    @classmethod
    def setup_mudata(cls, mdata: MuData, *, train_on: Source | None = None, **kwargs: Any) -> None:
        """Register the modality that is trained on: ``bulk`` (pairs) or ``simulated``; by default the method's own."""
        cls.setup_anndata(cls._registered(mdata, train_on or cls.default_source()), **kwargs)

    def _training_rows(self) -> TrainingRows:
        if self.adata is None:
            raise RuntimeError(NO_DATA)
        rows = training_rows(self.adata, self.genes_)
        if self.train_on == "simulated" and len(np.unique(rows.donors)) == 1:
            # bulk simulated from profiles, or across donors: there is no donor to hold out
            rows.donors = np.arange(len(rows.donors)).astype(str)
        return rows

    @abstractmethod
    def _make_module(self, arrays: dict[str, np.ndarray]) -> torch.nn.Module:
        """Return the network with the sizes that the saved arrays have."""

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: tensor.cpu().numpy() for name, tensor in self.module.state_dict().items()}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.module = self._make_module(arrays)
        self.module.load_state_dict({name: torch.as_tensor(array) for name, array in arrays.items()})
        self.module.eval()
