"""scGen (Lotfollahi et al. 2019): conditions and batches as shifts in the latent space of an autoencoder."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scdeconv._data.checks import CELLS, checked, whole
from scdeconv._nn import fit_cells, registration_arguments, seeded, trainer_arguments, weights_of

from . import _scgen_arithmetic as arithmetic
from ._base import CellModel, CellState
from ._cells import Cells, Scaling, encode_cells
from ._scgen_network import ScGenNetwork, decode_cells

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData


class ScGen(CellModel):
    """Variational autoencoder with latent-space arithmetic for perturbations and batch effects.

    The network is trained without labels. :meth:`predict_perturbation` adds the mean effect of a perturbation on other cell
    types to the control cells of a type. :meth:`remove_batch_effects` aligns the batches of each cell type.

    Parameters
    ----------
    adata
        Cells × genes, counts or other expression on a linear scale, after :meth:`setup_anndata`.
    n_latent
        Number of latent dimensions.
    n_hidden, n_layers
        Width and number of the hidden layers of encoder and decoder.
    dropout_rate
        Dropout rate of the hidden layers.

    Raises
    ------
    ValueError
        If parameters are out of range; all are reported.

    Notes
    -----
    Constants are those of the authors' program, which balances cell types and conditions by random resampling. Here, cell
    types have equal weights, the expectation of the resampling. The program also uses cell types in one condition only
    (such as the predicted type), which adds differences between types to the effect. They are not used here.

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

    @checked(adata=CELLS)
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
        if adata is not None and adata.n_obs < 2:
            msg = f"Expected at least 2 cells to train on, found {adata.n_obs}. Add cells."
            raise ValueError(msg)
        super().__init__(adata, {**sizes, "dropout_rate": dropout_rate})

    @classmethod
    @checked(adata=CELLS, further=registration_arguments)
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        cell_type_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Check cells × genes, and register them with scvi-tools.

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
        **kwargs
            Passed to ``AnnDataManager.register_fields`` of scvi-tools.

        Writes
        ------
        ``adata.uns["_scvi_uuid"]``, ``adata.uns["_scvi_manager_uuid"]``
            Identifiers of the registration.
        ``adata.obs["_scvi_batch"]``, ``adata.obs["_scvi_cell_type"]``
            Codes of the batch and of the cell type of each cell.

        Raises
        ------
        ValueError
            If the input is invalid; all problems are reported.
        """
        cls._setup(adata, layer, {"batch_key": batch_key, "cell_type_key": cell_type_key}, **kwargs)

    @checked(batch_size=whole(2), further=trainer_arguments)
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
        """Train the network. Ctrl-C stops the training and keeps the best weights.

        Parameters
        ----------
        max_epochs
            Maximum number of epochs.
        batch_size
            Number of cells in a step.
        learning_rate
            Learning rate of Adam.
        patience
            Early stopping: number of epochs without a lower loss on held-out cells (10 % of all). The best weights are
            restored.
        accelerator
            As in Lightning: ``"auto"``, ``"cpu"``, ``"gpu"``.
        seed
            Random seed. The global random state does not change.
        **trainer_kwargs
            Further arguments of ``lightning.Trainer``.

        Raises
        ------
        ValueError
            If ``batch_size`` is below 2.
        RuntimeError
            If the model was loaded and has no training cells.
        """
        counts, batches = self._training_data()
        n_cells, n_genes = counts.shape
        scaling = Scaling.learn(counts, np.zeros_like(batches), None)
        rows, validation_rows = self._split(n_cells, np.random.default_rng(seed))
        if len(rows) % batch_size == 1:
            # batch normalisation fails on a batch of one cell: hold this cell out
            rows, validation_rows = rows[:-1], np.append(validation_rows, rows[-1])
        with seeded(seed):
            network = ScGenNetwork(n_genes, **self.parameters_)
            plan = fit_cells(
                network,
                Cells.to_train_on(counts, batches, scaling),
                lambda batch: network.loss(batch.x),
                rows=rows,
                validation_rows=validation_rows,
                # fused: faster weight updates for small steps
                optimizer=partial(torch.optim.Adam, lr=learning_rate, fused=True),
                max_epochs=max_epochs,
                batch_size=batch_size,
                patience=patience,
                description="training scGen",
                accelerator=accelerator,
                **trainer_kwargs,
            )
        summary = f"{n_cells} cells, {n_genes} genes, {len(plan.train_losses)} epochs"
        self._store(
            CellState(scaling=scaling, weights=weights_of(network)),
            self._record(summary, plan.history(), seed=seed, interrupted=plan.stop),
        )

    @property
    def cell_type_key_(self) -> str | None:
        """Column of ``obs`` with the cell type of each cell; None: no cell types."""
        return self._registration()[0].get("cell_type_key")

    @checked(adata=CELLS)
    def predict_perturbation(
        self,
        control: str,
        perturbed: str,
        cell_type: str,
        adata: AnnData | None = None,
        *,
        layer: str | None = None,
    ) -> AnnData:
        """Predict the expression of the control cells of a cell type under perturbation.

        The effect of the perturbation is estimated from the other cell types with cells in both conditions. Perturbed
        cells of ``cell_type`` are not used. To test the prediction, also exclude them from training.

        Parameters
        ----------
        control, perturbed
            Two of the conditions in ``obs[batch_key]``.
        cell_type
            One of the cell types in ``obs[cell_type_key]``.
        adata
            New cells with both columns. Genes are matched by name; the object is not changed. None: the training cells
            (not available for a loaded model).
        layer
            Layer of ``adata`` to read instead of ``X``.

        Returns
        -------
        Control cells of ``cell_type`` × genes. ``X`` is the expected log1p expression after library-size normalisation
        (dense; may be slightly negative). ``obs`` is that of the control cells.

        Raises
        ------
        ValueError
            If the condition or cell type does not occur, if there are no control cells of the type or no other types in
            both conditions, or if :meth:`setup_anndata` was called without the columns.
        RuntimeError
            If the model is not trained, or if ``adata`` is None for a loaded model.
        """
        cells = self._cells(adata, layer)
        source = self.adata if adata is None else adata
        keys, _ = self._registration()
        conditions, cell_types = arithmetic.read_labels(source, keys)
        start, others = arithmetic.choose_cells(
            conditions, cell_types, control=control, perturbed=perturbed, cell_type=cell_type, keys=keys
        )
        latent = encode_cells(self.module, cells)
        effect = arithmetic.perturbation_effect(latent[others], cell_types[others], conditions[others] == perturbed)
        return decode_cells(self.module, latent[start] + effect, source.obs[start], self.genes_)

    @checked(adata=CELLS)
    def remove_batch_effects(self, adata: AnnData | None = None, *, layer: str | None = None) -> AnnData:
        """Return cells without batch effects.

        For each cell type, each batch is shifted in latent space to the mean of the batch with most cells of the type.
        Cells of a type that occurs in one batch only are encoded and decoded without shift.

        Parameters
        ----------
        adata, layer
            As for :meth:`predict_perturbation`.

        Returns
        -------
        Cells × genes with the same ``obs``, all dense:

        - ``X``: corrected log1p expression after library-size normalisation; may be slightly negative;
        - ``layers["counts"]``: corrected expression, linear, with the total of each cell in these genes (not whole
          numbers), for :func:`scdeconv.pp.pair` with ``layer="counts"``;
        - ``obsm["X_scgen"]``: corrected latent representation.

        Raises
        ------
        ValueError
            If no cell type has cells in two batches, or if :meth:`setup_anndata` was called without the columns.
        RuntimeError
            If the model is not trained, or if ``adata`` is None for a loaded model.
        """
        cells = self._cells(adata, layer)
        source = self.adata if adata is None else adata
        batches, cell_types = arithmetic.read_labels(source, self._registration()[0])
        arithmetic.check_batches(batches, cell_types, self.batch_key_)
        latent = arithmetic.align_batches(encode_cells(self.module, cells), cell_types, batches)
        corrected = decode_cells(self.module, latent, source.obs, self.genes_)
        totals = np.asarray(cells.counts.sum(axis=1), dtype=float).ravel()
        corrected.layers["counts"] = arithmetic.expected_counts(corrected.X, totals)
        corrected.obsm["X_scgen"] = latent
        return corrected

    def _make_network(self, weights: Mapping[str, np.ndarray]) -> ScGenNetwork:
        return ScGenNetwork(len(weights["decoder.1.bias"]), **self.parameters_)
