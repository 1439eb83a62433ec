"""Scaden (Menden et al. 2020) in PyTorch, with the constants of its released program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from mudata import MuData

from scdeconv._data import keys
from scdeconv._data.matrix import to_dense
from scdeconv._nn import LOSSES, Perceptrons, TrainingData, fit
from scdeconv.models._neural import NeuralModel, Source
from scdeconv.models._record import Method

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

MEMBERS = {
    "m256": ((256, 128, 64, 32), (0.0, 0.0, 0.0, 0.0)),
    "m512": ((512, 256, 128, 64), (0.0, 0.3, 0.2, 0.1)),
    "m1024": ((1024, 512, 256, 128), (0.0, 0.6, 0.3, 0.1)),
}
LEARNING_RATE = 1e-4
ADAM_EPSILON = 1e-7
BATCH_SIZE = 128
ROWS_AT_ONCE = 500


def scaden_input(expression: np.ndarray) -> np.ndarray:
    """Return log2(x + 1), scaled to 0–1 within each sample; missing genes (NaN) count as 0."""
    logs = np.log2(np.nan_to_num(expression) + 1)
    low, high = logs.min(axis=1, keepdims=True), logs.max(axis=1, keepdims=True)
    return (logs - low) / np.maximum(high - low, np.finfo(float).tiny)


class ScadenNetwork(torch.nn.Module):
    """The three members of the ensemble; returns their logits, members × samples × types."""

    def __init__(self, n_genes: int, n_types: int) -> None:
        super().__init__()
        self.members = torch.nn.ModuleDict(
            {name: Perceptrons(1, n_genes, hidden, dropout, n_types) for name, (hidden, dropout) in MEMBERS.items()}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, members × samples × types."""
        return torch.cat([member(x) for member in self.members.values()])


class Scaden(NeuralModel):
    """An ensemble of three networks trained on simulated bulk, or on pairs as in the SimpleDNN paper.

    Constants are those of scaden 1.1.2: three members of four hidden layers, mean squared error, Adam with learning rate
    1e-4 and epsilon 1e-7, batches of 128, 5,000 steps, no validation and no early stopping; input log2(x + 1), scaled to
    0–1 within each sample; genes whose variance over the bulk samples is above ``var_cutoff``.

    Parameters
    ----------
    data
        A MuData from :func:`scdeconv.pp.pair` (with ``simulated``, from :func:`scdeconv.pp.simulate`), or an AnnData of
        bulk samples with measured fractions, after :meth:`setup_mudata` or :meth:`setup_anndata`.
    loss
        ``"mse"`` as in the program; ``"l1"`` as its documentation says and as the SimpleDNN paper runs it.
    var_cutoff
        Smallest variance of a gene over the bulk samples on the linear scale. Not used where genes were selected.
    train_on
        ``"simulated"`` bulk (by default) or ``"pairs"``.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.pp.simulate(mdata, n_samples=50)
    >>> scdeconv.models.Scaden.setup_mudata(mdata)
    >>> model = scdeconv.models.Scaden(mdata)
    >>> model.train(max_steps=10)
    >>> model.predict(mdata["bulk"]).shape
    (12, 7)
    """

    record = Method(
        key="scaden",
        family="simulated",
        needs=("simulated",),
        summary="three networks trained on pseudobulk",
        reference="Menden et al. 2020",
        stochastic=True,
        selects_genes=True,
    )
    members: ClassVar = MEMBERS

    def __init__(
        self,
        data: AnnData | MuData | None = None,
        *,
        loss: Literal["mse", "l1"] = "mse",
        var_cutoff: float = 0.1,
        train_on: Source | None = None,
    ) -> None:
        if loss not in ("mse", "l1"):
            msg = f"Expected loss 'mse' or 'l1', found {loss!r}."
            raise ValueError(msg)
        self.loss = loss
        super().__init__(data, train_on, {"loss": loss, "var_cutoff": var_cutoff})
        if isinstance(data, MuData) and keys.SELECTED not in data[keys.BULK].var:
            self.genes_ = _varying_genes(data[keys.BULK], var_cutoff)

    def train(self, *, max_steps: int = 5000, accelerator: str = "auto", seed: int = 0, **trainer_kwargs: Any) -> None:
        """Train the three members for a fixed number of steps. Ctrl-C ends training and keeps what was learned.

        Parameters
        ----------
        max_steps
            Optimiser steps.
        accelerator
            As in Lightning: ``"auto"``, ``"cpu"``, ``"gpu"``.
        seed
            Seed of everything; the global random state is left alone.
        **trainer_kwargs
            Handed to ``lightning.Trainer``.
        """
        rows = self._training_rows()
        x = torch.empty(len(rows.rows), len(self.genes_))
        # the one dense copy of the training samples
        for start in range(0, len(x), ROWS_AT_ONCE):
            end = start + ROWS_AT_ONCE
            x[start:end] = torch.as_tensor(scaden_input(rows.dense(start, end)))
        targets = torch.as_tensor(rows.fractions, dtype=torch.float32)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            self.module = ScadenNetwork(x.shape[1], len(self.cell_types_))
            plan = fit(
                self.module,
                TrainingData(x, targets, torch.ones(len(MEMBERS), len(x))),
                LOSSES[self.loss],
                max_steps=max_steps,
                batch_size=BATCH_SIZE,
                learning_rate=LEARNING_RATE,
                adam_epsilon=ADAM_EPSILON,
                accelerator=accelerator,
                description="training Scaden",
                **trainer_kwargs,
            )
        self.history_ = plan.history()
        self.summary_ = f"{len(x)} {self.train_on} samples, {len(self.genes_)} genes, {max_steps} steps"
        self.seed_, self.interrupted_, self.is_trained_ = seed, plan.stop, True

    @torch.no_grad()
    def _fractions(self, expression: np.ndarray) -> np.ndarray:
        logits = self.module(torch.as_tensor(scaden_input(expression), dtype=torch.float32))
        return torch.softmax(logits, dim=-1).mean(dim=0).numpy().astype(float)

    def _make_module(self, arrays: dict[str, np.ndarray]) -> ScadenNetwork:
        return ScadenNetwork(arrays["members.m256.0.weight"].shape[1], len(self.cell_types_))


def _varying_genes(bulk: AnnData, var_cutoff: float) -> pd.Index:
    varying = np.zeros(bulk.n_vars, dtype=bool)
    if bulk.n_obs > 1:
        varying = to_dense(bulk.X).var(axis=0, ddof=1) > var_cutoff
    if not varying.any():
        msg = (
            f"Expected genes whose variance over the {bulk.n_obs} bulk samples is above {var_cutoff:g}, found none. Lower "
            "var_cutoff, give more samples, or call pp.select_genes(mdata) first."
        )
        raise ValueError(msg)
    return bulk.var_names[varying]
