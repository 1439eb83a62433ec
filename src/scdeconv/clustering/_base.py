"""Base class of the single-cell models: registration with scvi-tools, reading of cells, learned state."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy.sparse as sp
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField, LayerField
from scvi.model.base import BaseModelClass

from scdeconv._data.checks import CELLS, Problems, check_expression, check_labels, check_names, checked, examples
from scdeconv._data.matrix import get_matrix, is_integer
from scdeconv._data.warnings import warnings_ignored
from scdeconv._nn import quiet, registration_arguments, with_weights
from scdeconv.io import SavedModel, TrainingRecord, curves_of

from ._cells import Cells, Scaling, encode_cells, read_cells

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    import torch
    from anndata import AnnData

# share of held-out cells for early stopping; set by hand
VALIDATION_SHARE = 0.1


def check_columns(problems: Problems, adata: AnnData, keys: Mapping[str, str | None]) -> None:
    """Refuse missing columns of ``obs``, missing labels in them and two spellings; ``keys``: column by argument name."""
    for name, key in keys.items():
        if key is not None and key not in adata.obs:
            problems.add(f"Expected obs[{key!r}] in adata, found {list(adata.obs)}.")
        elif key is not None:
            check_labels(problems, adata.obs[key], f"adata.obs[{key!r}]", name.removesuffix("_key").replace("_", " "))


@dataclass(frozen=True, kw_only=True)
class CellState:
    """Learned state of a single-cell model.

    Parameters
    ----------
    scaling
        Transformation of counts to network input.
    weights
        Weights and buffers of the network by name, as in its ``state_dict``. ``model.module`` shares their memory.
    """

    scaling: Scaling
    weights: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class CellRecord(TrainingRecord):
    """Training record with columns of ``obs`` by argument of ``setup_anndata``, and names of the batches."""

    keys: dict[str, str | None]
    batches: list[str]


class CellModel(SavedModel, BaseModelClass):
    """Base class of the single-cell models.

    A subclass implements ``train``, which ends with ``_store``, and ``_make_network``.

    Parameters
    ----------
    adata
        Cells × genes, after :meth:`setup_anndata`; None for a loaded model.
    parameters
        Constructor arguments of the subclass, plain values.

    Attributes
    ----------
    state_
        Learned state, a frozen dataclass of arrays; None before training.
    training_
        Training record: genes, batches, seed, loss curves.
    module
        Trained network. It shares memory with ``state_.weights``.
    parameters_
        Constructor arguments, plain values.

    Examples
    --------
    >>> import scdeconv
    >>> cells, _ = scdeconv.datasets.paired_cohort(n_donors=3, n_genes=300, cells_per_donor=(30, 50))
    >>> scdeconv.clustering.Scvis.setup_anndata(cells)
    >>> model = scdeconv.clustering.Scvis(cells)
    >>> model.train(max_epochs=2)
    >>> model.save("model", overwrite=True)
    >>> scdeconv.clustering.Scvis.load("model").get_latent_representation(cells[:5]).shape
    (5, 2)
    """

    method: ClassVar[str]
    # True: counts; False: any expression on a linear scale
    whole_numbers: ClassVar[bool]
    state_type: ClassVar[Any] = CellState
    record_type: ClassVar[type[TrainingRecord]] = CellRecord

    # Any: the network class depends on the subclass
    module: Any

    def __init__(self, adata: AnnData | None, parameters: dict[str, Any]) -> None:
        self.parameters_ = parameters
        if adata is None:
            # a loaded model has no cells
            self._adata = None
            return
        BaseModelClass.__init__(self, adata)
        # scvi-tools stores losses here; this package stores them in training_
        del self.history_

    @classmethod
    @checked(adata=CELLS, further=registration_arguments)
    def setup_anndata(
        cls, adata: AnnData, *, layer: str | None = None, batch_key: str | None = None, **kwargs: Any
    ) -> None:
        """Check cells × genes, and register them with scvi-tools.

        Parameters
        ----------
        adata
            Cells × genes: counts, sparse or dense.
        layer
            Layer to read instead of ``X``.
        batch_key
            Column of ``obs`` with the batch of each cell.
        **kwargs
            Passed to ``AnnDataManager.register_fields`` of scvi-tools.

        Writes
        ------
        ``adata.uns["_scvi_uuid"]``, ``adata.uns["_scvi_manager_uuid"]``
            Identifiers of the registration.
        ``adata.obs["_scvi_batch"]``
            Code of the batch of each cell.

        Raises
        ------
        ValueError
            If the input is invalid; all problems are reported.
        """
        cls._setup(adata, layer, {"batch_key": batch_key}, **kwargs)

    @classmethod
    def _setup(cls, adata: AnnData, layer: str | None, keys: dict[str, str | None], **kwargs: Any) -> None:
        cls.check_cells(adata, layer=layer, **keys)
        setup_method_args = cls._get_setup_method_args(**{"cls": cls, "adata": adata, "layer": layer, **keys})
        columns = [CategoricalObsField(name.removesuffix("_key"), key) for name, key in keys.items()]
        fields = [LayerField("X", layer, is_count_data=False), *columns]
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        # rare batches and cell types are allowed: labels are rarely network input
        with quiet("scvi"), warnings_ignored(message=".*has fewer than 3 cells"):
            manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    @classmethod
    @checked(adata=CELLS)
    def check_cells(cls, adata: AnnData, *, layer: str | None = None, **keys: str | None) -> None:
        """Check cells like :meth:`setup_anndata`, without registration.

        Parameters
        ----------
        adata, layer
            As for :meth:`setup_anndata`.
        **keys
            Columns of ``obs`` by argument name, such as ``batch_key``.

        Raises
        ------
        ValueError
            If the input is invalid; all problems are reported.
        """
        matrix = get_matrix(adata, layer, "adata")
        problems = Problems("The cells cannot be read")
        check_names(problems, adata.obs_names, adata.var_names, "adata")
        check_expression(problems, adata, matrix, "adata", logged="log1p" in adata.uns and layer is None)
        if cls.whole_numbers and not problems.messages and not is_integer(matrix):
            values = matrix.data if sp.issparse(matrix) else matrix.ravel()
            fractional = values[values != np.rint(values)]
            problems.add(
                f"Expected counts in adata, found {len(fractional)} values that are not whole numbers, such as "
                f'{examples(f"{value:.4g}" for value in fractional[:2])}. Pass the layer with counts: layer="counts".'
            )
        check_columns(problems, adata, keys)
        problems.raise_if_any()

    @abstractmethod
    def train(self) -> None:
        """Train the model on the cells passed to the constructor."""

    @abstractmethod
    def _make_network(self, weights: Mapping[str, np.ndarray]) -> torch.nn.Module:
        """Return an untrained network with the sizes of these weights."""

    def _store(self, state: CellState, training: TrainingRecord) -> None:
        module = with_weights(lambda: self._make_network(state.weights), state.weights)
        super()._store(state, training)
        self.module = module

    @property
    def scaling_(self) -> Scaling:
        """Transformation of counts to network input."""
        self._require_trained()
        scaling: Scaling = self.state_.scaling
        return scaling

    @property
    def batch_key_(self) -> str | None:
        """Column of ``obs`` with the batch of each cell; None: no batches."""
        return self._registration()[0].get("batch_key")

    @property
    def batches_(self) -> list[str]:
        """Names of the batches."""
        return self._registration()[1]

    def _registration(self) -> tuple[dict[str, str | None], list[str]]:
        """Return the columns of ``obs`` by argument of ``setup_anndata``, and the names of the batches."""
        if self.is_trained_:
            return self.training_.keys, self.training_.batches
        if self._adata is None:
            return {}, []
        keys = {name: key for name, key in self.adata_manager.registry["setup_args"].items() if name != "layer"}
        return keys, [str(name) for name in self.adata_manager.get_state_registry("batch").categorical_mapping]

    def _record(self, summary: str, history: Mapping[str, pd.DataFrame], *, seed: int, interrupted: bool) -> CellRecord:
        """Return the training record."""
        keys, batches = self._registration()
        return CellRecord(
            genes=list(self.adata.var_names),
            summary=summary,
            seed=seed,
            interrupted=interrupted,
            curves=curves_of(history),
            keys=keys,
            batches=batches,
        )

    def _training_data(self) -> tuple[Any, np.ndarray]:
        """Return the counts and the batch codes of the training cells."""
        if self._adata is None:
            msg = "Expected training cells, found a loaded model without cells. Create a new model from an AnnData."
            raise RuntimeError(msg)
        matrix = self.adata_manager.get_from_registry("X")
        matrix = sp.csr_matrix(matrix) if sp.issparse(matrix) else np.asarray(matrix)
        return matrix, self.adata_manager.get_from_registry("batch").ravel()

    def _cells(self, adata: AnnData | None = None, layer: str | None = None) -> Cells:
        """Return the cells of ``adata``, or the training cells if it is None."""
        if adata is None:
            counts, batches = self._training_data()
            return Cells.to_train_on(counts, batches, self.scaling_)
        return read_cells(
            adata, self.scaling_, genes=self.genes_, batch_key=self.batch_key_, batches=self.batches_, layer=layer
        )

    @checked(adata=CELLS)
    def get_latent_representation(self, adata: AnnData | None = None, *, layer: str | None = None) -> np.ndarray:
        """Return the latent representation.

        Parameters
        ----------
        adata
            New cells. Genes are matched by name; the object is not changed. None: the training cells.
        layer
            Layer of ``adata`` to read instead of ``X``.

        Returns
        -------
        Cells × dimensions.

        Raises
        ------
        RuntimeError
            If the model is not trained, or if ``adata`` is None for a loaded model.
        ValueError
            If the cells cannot be read, lack half of the genes of the model, or have unknown batches.
        KeyError
            If batches were scaled separately and the cells have no column with the batch.
        """
        cells = self._cells(adata, layer)
        return encode_cells(self.module, cells)

    def _split(self, n_cells: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of training cells and held-out cells."""
        order = rng.permutation(n_cells)
        n_validation = int(VALIDATION_SHARE * n_cells)
        return np.sort(order[n_validation:]), np.sort(order[:n_validation])
