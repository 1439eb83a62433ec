"""scGen (Lotfollahi et al. 2019): a latent space of cells in which conditions and batches differ by addition."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from scvi.nn import Encoder, FCLayers
from torch import nn
from torch.distributions import Normal, kl_divergence

from scdeconv._data.annotated import make_adata
from scdeconv._data.validation import Problems
from scdeconv._nn import fit_cells

from ._base import CellModel, check_columns
from ._cells import CHUNK, Cells, Scaling

if TYPE_CHECKING:
    from anndata import AnnData

KL_WEIGHT = 5e-5


def perturbation_effect(latent: np.ndarray, cell_types: np.ndarray, perturbed: np.ndarray) -> np.ndarray:
    """Return by how much perturbed cells differ from the others, every cell type counting alike.

    Parameters
    ----------
    latent
        Cells × dimensions.
    cell_types, perturbed
        Of each cell: its type, and whether it is perturbed (bool). Every type has cells of both kinds.
    """
    effects = []
    for cell_type in np.unique(cell_types):
        members = cell_types == cell_type
        after, before = (latent[members & chosen].mean(axis=0, dtype=float) for chosen in (perturbed, ~perturbed))
        effects.append(after - before)
    return np.mean(effects, axis=0)


def align_batches(latent: np.ndarray, cell_types: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """Return ``latent`` with each batch's mean moved, type by type, to that of the batch with most cells of the type.

    Parameters
    ----------
    latent
        Cells × dimensions.
    cell_types, batches
        Of each cell. Cells of a type that is in one batch only stay where they are.
    """
    aligned = latent.astype(float)
    for cell_type in np.unique(cell_types):
        members = cell_types == cell_type
        names, sizes = np.unique(batches[members], return_counts=True)
        means = {name: latent[members & (batches == name)].mean(axis=0, dtype=float) for name in names}
        for name in names:
            aligned[members & (batches == name)] += means[names[sizes.argmax()]] - means[name]
    return aligned


def expected_counts(log_expression: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Return log1p expression (cells × genes) on the linear scale, each cell brought to its total."""
    linear = np.expm1(np.maximum(log_expression, 0))
    sums = linear.sum(axis=1)
    return linear * (totals / np.where(sums > 0, sums, 1)).astype(linear.dtype)[:, None]


class ScGenNetwork(nn.Module):
    """Variational autoencoder of log expression: the encoder of scvi-tools, and a decoder whose output is linear."""

    def __init__(self, n_genes: int, *, n_latent: int, n_hidden: int, n_layers: int, dropout_rate: float) -> None:
        super().__init__()
        options = {"n_layers": n_layers, "n_hidden": n_hidden, "dropout_rate": dropout_rate}
        self.encoder = Encoder(n_genes, n_latent, return_dist=True, activation_fn=nn.LeakyReLU, **options)
        hidden = FCLayers(n_latent, n_hidden, activation_fn=nn.LeakyReLU, **options)
        self.decoder = nn.Sequential(hidden, nn.Linear(n_hidden, n_genes))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean of the latent representation, without drawing."""
        mean: torch.Tensor = self.encoder.mean_encoder(self.encoder.encoder(x))
        return mean

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """Return half the squared error and the weighted divergence from the prior, summed by cell, mean over cells."""
        posterior, z = self.encoder(x)
        squared_error = (x - self.decoder(z)).square().sum(dim=1)
        kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum(dim=1)
        return 0.5 * (squared_error + KL_WEIGHT * kl).mean()


class ScGen(CellModel):
    """A variational autoencoder in whose latent space perturbations and batch effects are shifts of cell types.

    The network sees log expression only, no labels. Their arithmetic comes afterwards: what a perturbation does to other
    cell types is added to the control cells of a type (:meth:`predict_perturbation`), and each cell type's batches are
    moved onto each other (:meth:`remove_batch_effects`).

    Parameters
    ----------
    adata
        Cells × genes: counts, or other expression on a linear scale, after :meth:`setup_anndata`.
    n_latent
        Latent dimensions.
    n_hidden, n_layers
        Width and number of the hidden layers of the encoder, and of the decoder.
    dropout_rate
        Share of hidden units that are left out in training.

    Raises
    ------
    ValueError
        One report of every parameter that is out of range.

    Notes
    -----
    Constants are the authors'. Their program adds cells to even out cell types, and leaves cells out to even out the
    conditions, at random. Here every cell type weighs alike, which is what their draws are on average, and nothing is
    random. They also let cell types count that are in one condition only (the predicted type always is), so that
    differences between cell types enter the effect; here those that are in both count.

    References
    ----------
    Lotfollahi, Wolf, Theis (2019), *scGen predicts single-cell perturbation responses*, Nature Methods 16:715–721.

    Examples
    --------
    >>> import scdeconv
    >>> cells, _ = scdeconv.datasets.paired_cohort(n_donors=3, n_genes=300, cells_per_donor=(30, 50))
    >>> scdeconv.clustering.ScGen.setup_anndata(cells, batch_key="donor", cell_type_key="cell_type")
    >>> model = scdeconv.clustering.ScGen(cells, n_latent=8, n_hidden=32)
    >>> model.train(max_epochs=2)
    >>> corrected = model.remove_batch_effects()
    >>> corrected.shape == cells.shape, "counts" in corrected.layers
    (True, True)
    """

    method = "scgen"
    whole_numbers = False
    saved: ClassVar = ("cell_type_key_",)
    module: ScGenNetwork
    cell_type_key_: str | None = None

    def __init__(
        self,
        adata: AnnData | None = None,
        *,
        n_latent: int = 100,
        n_hidden: int = 800,
        n_layers: int = 2,
        dropout_rate: float = 0.2,
    ) -> None:
        sizes = {"n_latent": n_latent, "n_hidden": n_hidden, "n_layers": n_layers}
        problems = Problems("scGen cannot be set up")
        for name, size in sizes.items():
            if size < 1:
                problems.add(f"Expected {name} of at least 1, found {size}.")
        if not 0 <= dropout_rate < 1:
            problems.add(f"Expected a dropout_rate from 0 to below 1, found {dropout_rate:g}.")
        if adata is not None and adata.n_obs < 2:
            problems.add(f"Expected at least 2 cells to train on, found {adata.n_obs}.")
        problems.raise_if_any()
        super().__init__(adata, {**sizes, "dropout_rate": dropout_rate})
        if adata is not None:
            self.cell_type_key_ = self.adata_manager.registry["setup_args"]["cell_type_key"]

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        cell_type_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Register cells × genes, which are checked first.

        As everywhere in scvi-tools, marks of the registration are written to ``adata.uns`` and ``adata.obs``.

        Parameters
        ----------
        adata
            Cells × genes: counts, or other expression on a linear scale, sparse or dense.
        layer
            Layer to read instead of ``X``.
        batch_key
            Column of ``obs`` with the condition or the batch of each cell.
        cell_type_key
            Column of ``obs`` with the cell type of each cell.

        Raises
        ------
        ValueError
            One report of every problem found.
        """
        cls._setup(adata, layer, {"batch_key": batch_key, "cell_type_key": cell_type_key}, **kwargs)

    def train(
        self,
        *,
        max_epochs: int = 100,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        patience: int = 25,
        accelerator: str = "auto",
        seed: int = 0,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the network. Ctrl-C ends training and keeps what was learned.

        Parameters
        ----------
        max_epochs, batch_size, learning_rate
            Most passes over the cells; cells in a step; of Adam.
        patience
            Training stops after so many epochs in which the loss of a tenth of the cells, held out, has not fallen, and
            goes back to the best.
        accelerator
            As in Lightning: ``"auto"``, ``"cpu"``, ``"gpu"``.
        seed
            Seed of everything; the global random state is left alone.
        **trainer_kwargs
            Handed to ``lightning.Trainer``.
        """
        if batch_size < 2:
            msg = f"Expected a batch_size of at least 2, found {batch_size}: batch norm compares the cells of a batch."
            raise ValueError(msg)
        counts, batches = self._training_data()
        self.scaling_ = Scaling.learn(counts, np.zeros_like(batches), None)
        cells = Cells(counts, batches, self.scaling_, np.ones(counts.shape[1], dtype=bool))
        rows, validation_rows = self._split(len(cells), np.random.default_rng(seed))
        if len(rows) % batch_size == 1:
            # batch norm cannot learn from a last batch of one cell, so that cell validates
            rows, validation_rows = rows[:-1], np.append(validation_rows, rows[-1])
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            module = self.module = self._make_module({})
            plan = fit_cells(
                module,
                cells,
                lambda batch: module.loss(batch.x),
                rows=rows,
                validation_rows=validation_rows,
                # half of the time of a small step goes into the weights otherwise
                optimizer=partial(torch.optim.Adam, lr=learning_rate, fused=True),
                max_epochs=max_epochs,
                batch_size=batch_size,
                patience=patience,
                description="training scGen",
                accelerator=accelerator,
                **trainer_kwargs,
            )
        self.history_ = plan.history()
        n_epochs = len(plan.losses["train_loss"])
        self.summary_ = f"{len(cells)} cells, {counts.shape[1]} genes, {n_epochs} epochs"
        self.seed_, self.interrupted_, self.is_trained_ = seed, plan.stop, True

    def predict_perturbation(
        self,
        control: str,
        perturbed: str,
        cell_type: str,
        adata: AnnData | None = None,
        *,
        layer: str | None = None,
    ) -> AnnData:
        """Return what the control cells of a cell type are expected to express when perturbed.

        What the perturbation does is learned from the other cell types that have cells in both conditions. Perturbed
        cells of ``cell_type``, where there are any, are not read here; for an honest test keep them from training too.

        Parameters
        ----------
        control, perturbed
            Two of the conditions in ``obs[batch_key]``.
        cell_type
            One of the cell types in ``obs[cell_type_key]``.
        adata
            New cells with both columns, whose genes are found by name; by default those that the model was made with. A
            loaded model has none of its own. Not changed.
        layer
            Layer of ``adata`` to read instead of ``X``.

        Returns
        -------
        Control cells of ``cell_type`` × genes: ``X`` is the expected log1p expression of cells brought to one total (dense,
        may fall a little below 0), ``obs`` that of the control cells.

        Raises
        ------
        ValueError
            Where there is no such condition or cell type, or no cells to start or to learn from; where
            :meth:`setup_anndata` was not told conditions and cell types.
        RuntimeError
            Before training; without ``adata`` for a loaded model.
        """
        cells = self._cells(adata, layer)
        source = self.adata if adata is None else adata
        conditions, cell_types = self._labels(source)
        problems = Problems("The perturbation cannot be predicted")
        for name, values, key in (
            (control, conditions, self.batch_key_),
            (perturbed, conditions, self.batch_key_),
            (cell_type, cell_types, self.cell_type_key_),
        ):
            if name not in values:
                problems.add(f"Expected one of {np.unique(values).tolist()} of obs[{key!r}], found {name!r}.")
        if control == perturbed:
            problems.add(f"Expected two conditions, found {control!r} twice.")
        problems.raise_if_any()
        start = (cell_types == cell_type) & (conditions == control)
        if not start.any():
            problems.add(f"Expected cells of {cell_type!r} in {control!r}, found none. There is nothing to start from.")
        in_both = set(cell_types[conditions == control]) & set(cell_types[conditions == perturbed]) - {cell_type}
        if not in_both:
            problems.add(
                f"Expected other cell types than {cell_type!r} with cells in {control!r} and in {perturbed!r}, found none. "
                "There is nothing to learn from."
            )
        problems.raise_if_any()
        latent = np.concatenate(list(self._encoded(cells)))
        teach = np.isin(cell_types, list(in_both)) & np.isin(conditions, [control, perturbed])
        effect = perturbation_effect(latent[teach], cell_types[teach], conditions[teach] == perturbed)
        return self._decode(latent[start] + effect, source.obs[start])

    def remove_batch_effects(self, adata: AnnData | None = None, *, layer: str | None = None) -> AnnData:
        """Return cells without the differences between batches.

        Within each cell type, every batch is moved so that its mean is that of the batch with most cells of the type.
        Cells of a type that is in one batch only are passed through the network as they are.

        Parameters
        ----------
        adata, layer
            As for :meth:`predict_perturbation`.

        Returns
        -------
        Cells × genes with the same ``obs``, all dense:

        - ``X``: corrected log1p expression of cells brought to one total, which may fall a little below 0;
        - ``layers["counts"]``: the same on the linear scale, each cell with as many counts as it had in these genes;
          expected counts, not whole numbers. For :func:`scdeconv.pp.pair`, with ``layer="counts"``;
        - ``obsm["X_scgen"]``: the corrected latent representation.

        Raises
        ------
        ValueError
            Where no cell type has cells in two batches; where :meth:`setup_anndata` was not told batches and cell types.
        RuntimeError
            Before training; without ``adata`` for a loaded model.
        """
        cells = self._cells(adata, layer)
        source = self.adata if adata is None else adata
        batches, cell_types = self._labels(source)
        names = np.unique(batches).tolist()
        if len(names) == 1:
            msg = f"Expected at least two batches in obs[{self.batch_key_!r}], found {names}."
            raise ValueError(msg)
        if pd.Series(batches).groupby(cell_types).nunique().max() == 1:
            msg = (
                f"Expected a cell type with cells in two of the batches {names}, found none. Cell types of different "
                "batches cannot be compared; name the same types alike."
            )
            raise ValueError(msg)
        latent = align_batches(np.concatenate(list(self._encoded(cells))), cell_types, batches)
        corrected = self._decode(latent, source.obs)
        totals = np.asarray(cells.counts.sum(axis=1), dtype=float).ravel()
        corrected.layers["counts"] = expected_counts(corrected.X, totals)
        corrected.obsm["X_scgen"] = latent
        return corrected

    def _labels(self, adata: AnnData) -> tuple[np.ndarray, np.ndarray]:
        """Return the condition or batch, and the cell type, of each cell."""
        keys = {"batch_key": self.batch_key_, "cell_type_key": self.cell_type_key_}
        missing = [name for name, key in keys.items() if key is None]
        if missing:
            msg = (
                f"Expected {' and '.join(missing)} at set-up, found none. Call "
                f"ScGen.setup_anndata(adata, {', '.join(f'{name}=...' for name in keys)}) and make a new model."
            )
            raise ValueError(msg)
        problems = Problems("The cells cannot be told apart")
        check_columns(problems, adata, keys)
        problems.raise_if_any()
        batches, cell_types = (adata.obs[key].astype(str).to_numpy() for key in keys.values())
        return batches, cell_types

    @torch.no_grad()
    def _decode(self, latent: np.ndarray, obs: pd.DataFrame) -> AnnData:
        parts = torch.as_tensor(latent, dtype=torch.float32).split(CHUNK)
        own = obs.loc[:, ~obs.columns.str.startswith("_scvi_")].copy()
        decoded = make_adata(
            np.concatenate([self.module.decoder(part).numpy() for part in parts]),
            obs=own,
            var=pd.DataFrame(index=self.genes_),
        )
        # scanpy's mark of log expression
        decoded.uns["log1p"] = {"base": None}
        return decoded

    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.module.encode(x)

    def _make_module(self, arrays: dict[str, np.ndarray]) -> ScGenNetwork:
        return ScGenNetwork(len(self.genes_), **self.parameters_)
