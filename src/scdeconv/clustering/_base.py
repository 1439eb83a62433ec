"""What the models of single cells share: set-up through scvi-tools, reading cells, files, clusters."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField, LayerField
from scvi.model.base import BaseModelClass

from scdeconv._data.genes import find_genes, strip_versions
from scdeconv._data.matrix import get_matrix, is_integer
from scdeconv._data.validation import Problems, check_expression, check_names, examples
from scdeconv._nn import SoftClusters, quiet
from scdeconv.io import curves_from_plain, curves_to_plain, read_model, write_model

from ._cells import Cells, Scaling

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from anndata import AnnData

SCALING = "scaling."
# share of the cells that are held out to stop training in time
VALIDATION_SHARE = 0.1


def check_columns(problems: Problems, adata: AnnData, keys: Mapping[str, str | None]) -> None:
    """Report columns of ``obs`` that are not there or not complete; ``keys``: the argument that names each."""
    for name, key in keys.items():
        if key is not None and key not in adata.obs:
            problems.add(f"Expected obs[{key!r}] in adata, found {list(adata.obs)}.")
        elif key is not None and adata.obs[key].isna().any():
            what, n_missing = name.removesuffix("_key").replace("_", " "), int(adata.obs[key].isna().sum())
            problems.add(f"Expected a {what} for every cell in obs[{key!r}], found {n_missing} without.")


class CellModel(BaseModelClass):
    """Base of the models of single cells.

    A subclass fills in ``train``, which sets ``scaling_`` and ``module``, ``_encode`` and ``_make_module``.

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
    # whether training needs counts, or any expression on a linear scale will do
    whole_numbers: ClassVar[bool]
    # further attributes of plain values that are saved
    saved: ClassVar[tuple[str, ...]] = ()

    module: torch.nn.Module
    scaling_: Scaling
    genes_: pd.Index
    batch_key_: str | None = None
    batches_: list[str]
    parameters_: dict[str, Any]
    history_: dict[str, pd.DataFrame] | None = None
    seed_: int | None = None
    interrupted_: bool = False
    is_trained_: bool = False
    summary_: str = ""

    def __init__(self, adata: AnnData | None, parameters: dict[str, Any]) -> None:
        self.parameters_ = parameters
        if adata is None:
            # a loaded model: everything it needs comes from its files
            self._adata = None
            return
        BaseModelClass.__init__(self, adata)
        self.genes_ = adata.var_names
        self.batch_key_ = self.adata_manager.registry["setup_args"]["batch_key"]
        self.batches_ = [str(name) for name in self.adata_manager.get_state_registry("batch").categorical_mapping]

    @classmethod
    def setup_anndata(
        cls, adata: AnnData, *, layer: str | None = None, batch_key: str | None = None, **kwargs: Any
    ) -> None:
        """Register cells × genes, which are checked first.

        As everywhere in scvi-tools, marks of the registration are written to ``adata.uns`` and ``adata.obs``.

        Parameters
        ----------
        adata
            Cells × genes: counts, sparse or dense.
        layer
            Layer to read instead of ``X``.
        batch_key
            Column of ``obs`` with the batch of each cell.

        Raises
        ------
        ValueError
            One report of every problem found.
        """
        cls._setup(adata, layer, {"batch_key": batch_key}, **kwargs)

    @classmethod
    def _setup(cls, adata: AnnData, layer: str | None, keys: dict[str, str | None], **kwargs: Any) -> None:
        cls.check_cells(adata, layer=layer, **keys)
        setup_method_args = cls._get_setup_method_args(**{"cls": cls, "adata": adata, "layer": layer, **keys})
        columns = [CategoricalObsField(name.removesuffix("_key"), key) for name, key in keys.items()]
        fields = [LayerField("X", layer, is_count_data=False), *columns]
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        with quiet("scvi"), warnings.catch_warnings():
            # rare batches and cell types are no obstacle: labels are hardly ever input
            warnings.filterwarnings("ignore", message=".*has fewer than 3 cells")
            manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    @classmethod
    def check_cells(cls, adata: AnnData, *, layer: str | None = None, **keys: str | None) -> None:
        """Raise one ``ValueError`` with every problem that :meth:`setup_anndata` would find; ``keys``: of ``obs``."""
        matrix = get_matrix(adata, layer, "adata")
        problems = Problems("The cells cannot be read")
        check_names(problems, adata.obs_names, adata.var_names, "adata")
        check_expression(problems, adata, matrix, "adata", logged="log1p" in adata.uns and layer is None)
        if cls.whole_numbers and not problems.messages and not is_integer(matrix):
            values = matrix.data if sp.issparse(matrix) else matrix.ravel()
            fractional = values[values != np.rint(values)]
            problems.add(
                f"Expected counts in adata, found {len(fractional)} values that are not whole numbers, such as "
                f'{examples(f"{value:.4g}" for value in fractional[:2])}. Name the layer with the counts: layer="counts".'
            )
        check_columns(problems, adata, keys)
        problems.raise_if_any()

    @abstractmethod
    def train(self) -> None:
        """Learn from the cells that the model was made with."""

    @abstractmethod
    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the latent representation of input."""

    @abstractmethod
    def _make_module(self, arrays: dict[str, np.ndarray]) -> torch.nn.Module:
        """Return the network with the sizes that the saved arrays have."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.summary_ if self.is_trained_ else 'not trained'}"

    @property
    def history(self) -> dict[str, pd.DataFrame] | None:
        """Losses by epoch."""
        return self.history_

    def _training_data(self) -> tuple[Any, np.ndarray]:
        """Return the counts and the batch of each cell that the model was made with."""
        if self._adata is None:
            msg = "Expected cells to train on, found none (a loaded model). Make a new model from an AnnData."
            raise RuntimeError(msg)
        matrix = self.adata_manager.get_from_registry("X")
        matrix = sp.csr_matrix(matrix) if sp.issparse(matrix) else np.asarray(matrix)
        return matrix, self.adata_manager.get_from_registry("batch").ravel()

    def _cells(self, adata: AnnData | None = None, layer: str | None = None) -> Cells:
        """Return cells to be read by the trained model: new ones, or those it was made with."""
        if not self.is_trained_:
            msg = f"Expected a trained model, found an untrained {type(self).__name__}. Call .train() first."
            raise RuntimeError(msg)
        if adata is None:
            counts, batches = self._training_data()
            return Cells(counts, batches, self.scaling_, np.ones(len(self.genes_), dtype=bool))
        counts, columns = find_genes(adata, strip_versions(self.genes_), layer=layer)
        present = columns >= 0
        counts = counts[:, columns * present]
        if not present.all():
            counts = sp.csr_matrix(counts) @ sp.diags(present.astype(float))
        return Cells(counts, self._batches_of(adata), self.scaling_, present)

    def _batches_of(self, adata: AnnData) -> np.ndarray:
        """Return the number of the batch of each new cell; 0 where the model does not tell batches apart."""
        if len(self.scaling_.mean) == 1:
            return np.zeros(adata.n_obs, dtype=int)
        key = self.batch_key_
        if key not in adata.obs:
            msg = f"Expected obs[{key!r}] in adata, one of the batches {examples(self.batches_)}, found {list(adata.obs)}."
            raise KeyError(msg)
        codes = pd.Index(self.batches_).get_indexer(adata.obs[key].astype(str))
        if (codes < 0).any():
            unknown = adata.obs[key][codes < 0].unique()
            msg = f"Expected the batches {examples(self.batches_)} in obs[{key!r}], found {examples(unknown)}. Train again."
            raise ValueError(msg)
        return codes

    def get_latent_representation(self, adata: AnnData | None = None, *, layer: str | None = None) -> np.ndarray:
        """Return the latent representation, cells × dimensions.

        Parameters
        ----------
        adata
            New cells, whose genes are found by name; by default those that the model was made with. Not changed.
        layer
            Layer of ``adata`` to read instead of ``X``.
        """
        return np.concatenate(list(self._encoded(self._cells(adata, layer))))

    @torch.no_grad()
    def _encoded(self, cells: Cells) -> Iterator[np.ndarray]:
        yield from (self._encode(batch.x).numpy() for batch in cells.chunks())

    def _split(self, n_cells: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Divide cells into those to learn from and those to validate on."""
        order = rng.permutation(n_cells)
        n_validation = int(VALIDATION_SHARE * n_cells)
        return np.sort(order[n_validation:]), np.sort(order[:n_validation])

    def save(self, dir_path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model, without cells, to a directory: arrays and JSON.

        A failed save leaves an earlier model as it was. ``overwrite`` replaces a saved model, and nothing else.

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
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.module.state_dict().items()}
        arrays |= {SCALING + name: array for name, array in vars(self.scaling_).items()}
        description = {
            "parameters": self.parameters_,
            "seed": self.seed_,
            "genes": list(self.genes_),
            "batch_key": self.batch_key_,
            "batches": self.batches_,
            "summary": self.summary_,
            "history": curves_to_plain(self.history_),
            **{name: getattr(self, name) for name in self.saved},
        }
        write_model(dir_path, type(self).__name__, description, arrays, overwrite=overwrite)

    @classmethod
    def load(cls, dir_path: str | os.PathLike[str]) -> Self:
        """Read a model that :meth:`save` wrote. No cells are needed, and nothing in the files is executed.

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
        model.batch_key_, model.batches_ = description["batch_key"], description["batches"]
        model.summary_, model.seed_ = description["summary"], description["seed"]
        model.history_ = curves_from_plain(description["history"])
        for name in cls.saved:
            setattr(model, name, description[name])
        own = [name for name in arrays if name.startswith(SCALING)]
        model.scaling_ = Scaling(**{name.removeprefix(SCALING): arrays.pop(name) for name in own})
        model.module = model._make_module(arrays)
        model.module.load_state_dict({name: torch.as_tensor(array) for name, array in arrays.items()})
        model.module.eval()
        model.is_trained_ = True
        return model


class ClusteringModel(CellModel):
    """Base of the models that assign cells to clusters softly; ``module.clusters`` holds the centroids.

    Examples
    --------
    >>> import scdeconv
    >>> cells, _ = scdeconv.datasets.paired_cohort(n_donors=3, n_genes=300, cells_per_donor=(30, 50))
    >>> scdeconv.clustering.ScDeepCluster.setup_anndata(cells)
    >>> model = scdeconv.clustering.ScDeepCluster(cells, n_clusters=3)
    >>> model.train(pretrain_epochs=5, max_epochs=2)
    >>> model.get_soft_assignments(cells[:5]).sum(axis=1).round(6).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    >>> bool(model.get_clusters().isin(["0", "1", "2"]).all())
    True
    """

    # a ModuleDict, whose members' classes mypy does not know
    module: Any

    @torch.no_grad()
    def _assign(self, cells: Cells) -> torch.Tensor:
        """Return the soft assignments, cells × centroids, on the device of the module; its mode is put back."""
        clusters = self.module["clusters"]
        was_training = self.module.training
        self.module.eval()
        device = clusters.centroids.device
        assigned = [clusters(self._encode(batch.x.to(device))) for batch in cells.chunks()]
        self.module.train(was_training)
        return torch.cat(assigned)

    def _name_clusters(self, cells: Cells) -> None:
        """Order the clusters by size, and drop those that died: no cell belongs to them most."""
        clusters = self.module["clusters"]
        sizes = np.bincount(self._assign(cells).argmax(dim=1).numpy(), minlength=len(clusters.centroids))
        order = np.argsort(-sizes, kind="stable")
        self.n_died_ = int((sizes == 0).sum())
        kept = torch.as_tensor(order[: len(order) - self.n_died_].copy())
        self.module["clusters"] = SoftClusters(clusters.centroids.detach()[kept], clusters.alpha)

    def _count_clusters(self) -> str:
        n_clusters = len(self.module["clusters"].centroids)
        died = f" ({self.n_died_} died)" if self.n_died_ else ""
        return f"{n_clusters} clusters{died}"

    def get_soft_assignments(self, adata: AnnData | None = None, *, layer: str | None = None) -> pd.DataFrame:
        """Return how much each cell belongs to each cluster: cells × clusters, rows sum to 1.

        Clusters are named ``"0"``, ``"1"``, ... from the largest to the smallest.

        Parameters
        ----------
        adata
            New cells, whose genes are found by name; by default those that the model was made with. Not changed.
        layer
            Layer of ``adata`` to read instead of ``X``.
        """
        assignments = self._assign(self._cells(adata, layer)).numpy().astype(float)
        names = (self.adata if adata is None else adata).obs_names
        frame = pd.DataFrame(assignments, index=names, columns=[str(k) for k in range(assignments.shape[1])])
        return frame.div(frame.sum(axis=1), axis=0)

    def get_clusters(self, adata: AnnData | None = None, *, layer: str | None = None) -> pd.Series:
        """Return the cluster that each cell belongs to most, as a categorical.

        Parameters
        ----------
        adata, layer
            As for :meth:`get_soft_assignments`.
        """
        assignments = self.get_soft_assignments(adata, layer=layer)
        labels = assignments.columns.to_numpy()[assignments.to_numpy().argmax(axis=1)]
        return pd.Series(pd.Categorical(labels, categories=assignments.columns), index=assignments.index)
