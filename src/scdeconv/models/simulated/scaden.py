"""Scaden (Menden et al. 2020) in PyTorch, with the constants of its released program."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from mudata import MuData

from scdeconv._data import keys
from scdeconv._data.checks import checked
from scdeconv._data.matrix import to_dense
from scdeconv._nn import (
    LOSSES,
    Perceptrons,
    TrainingData,
    fit,
    inference,
    last_bias,
    seeded,
    trainer_arguments,
    weights_of,
    with_weights,
)
from scdeconv.io import curves_of
from scdeconv.models._neural import NeuralModel, Source
from scdeconv.models._record import Method
from scdeconv.models._state import State

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

# widths and dropout rates of the hidden layers, from scaden 1.1.2
MEMBERS = {
    "m256": ((256, 128, 64, 32), (0.0, 0.0, 0.0, 0.0)),
    "m512": ((512, 256, 128, 64), (0.0, 0.3, 0.2, 0.1)),
    "m1024": ((1024, 512, 256, 128), (0.0, 0.6, 0.3, 0.1)),
}
# hyperparameters of scaden 1.1.2
LEARNING_RATE = 1e-4
ADAM_EPSILON = 1e-7
BATCH_SIZE = 128
# samples per chunk, limits memory; set by hand
ROWS_AT_ONCE = 500


def scaden_input(expression: np.ndarray) -> np.ndarray:
    """Return log2(x + 1), scaled to 0–1 within each sample; missing genes (NaN) are 0."""
    logs = np.log2(np.nan_to_num(expression) + 1)
    low, high = logs.min(axis=1, keepdims=True), logs.max(axis=1, keepdims=True)
    return (logs - low) / np.maximum(high - low, np.finfo(float).tiny)


class ScadenNetwork(torch.nn.Module):
    """Three members of the ensemble; returns their logits, members × samples × cell types."""

    def __init__(self, n_genes: int, n_types: int) -> None:
        super().__init__()
        self.members = torch.nn.ModuleDict(
            {name: Perceptrons(1, n_genes, hidden, dropout, n_types) for name, (hidden, dropout) in MEMBERS.items()}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, members × samples × cell types."""
        return torch.cat([member(x) for member in self.members.values()])


@dataclass(frozen=True, kw_only=True)
class ScadenState(State):
    """Weights of the three networks by name."""

    weights: dict[str, np.ndarray]

    @cached_property
    def network(self) -> ScadenNetwork:
        """Networks of the ensemble."""
        sizes = self.weights["members.m256.0.weight"].shape[1], last_bias(self.weights, "members.m256").shape[-1]
        network: ScadenNetwork = with_weights(partial(ScadenNetwork, *sizes), self.weights)
        return network

    @inference()
    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return the mean over networks, samples × cell types."""
        logits = self.network(torch.as_tensor(scaden_input(expression), dtype=torch.float32))
        fractions: np.ndarray = torch.softmax(logits, dim=-1).mean(dim=0).numpy().astype(float)
        return fractions


class Scaden(NeuralModel):
    """Ensemble of three networks, trained on simulated bulk or, as in the SimpleDNN paper, on pairs.

    Architecture and hyperparameters are those of scaden 1.1.2: three members with four hidden layers, mean squared
    error, Adam with learning rate 1e-4 and epsilon 1e-7, batch size 128, 5,000 steps, no validation and no early
    stopping. The input is log2(x + 1), scaled to 0–1 within each sample. Genes with a variance above ``var_cutoff``
    over the bulk samples are used.

    Parameters
    ----------
    data
        A MuData from :func:`scdeconv.pp.pair` (with ``simulated``, from :func:`scdeconv.pp.simulate`), or an AnnData of
        bulk samples with measured fractions, after :meth:`setup_mudata` or :meth:`setup_anndata`.
    loss
        ``"mse"`` as in the scaden program; ``"l1"`` as in its documentation and in the SimpleDNN paper.
    var_cutoff
        Minimum variance of a gene over the bulk samples, linear scale. Ignored if genes were selected.
    train_on
        ``"simulated"`` (default) bulk or ``"pairs"``.

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
    state_type = ScadenState

    @classmethod
    def tuning_space(cls) -> dict[str, Any]:
        """Return the default search space of :func:`scdeconv.tl.tune`, without the number of genes.

        Returns
        -------
        Dictionary from argument names to choices or Optuna distributions.
        """
        from optuna.distributions import FloatDistribution, IntDistribution

        return {
            "loss": ["mse", "l1"],
            "max_steps": IntDistribution(1000, 10000, log=True),
            "n_samples": IntDistribution(500, 8000, log=True),
            "cells_per_sample": [50, 100, 500],
            "sparse_share": FloatDistribution(0.0, 1.0),
        }

    @checked()
    def __init__(
        self,
        data: AnnData | MuData | None = None,
        *,
        loss: Literal["mse", "l1"] = "mse",
        var_cutoff: float = 0.1,
        train_on: Source | None = None,
    ) -> None:
        super().__init__(data, {"train_on": train_on, "loss": loss, "var_cutoff": var_cutoff})
        if isinstance(data, MuData) and keys.SELECTED not in data[keys.BULK].var:
            self._training_genes = _varying_genes(data[keys.BULK], var_cutoff)

    @checked(further=trainer_arguments)
    def train(self, *, max_steps: int = 5000, accelerator: str = "auto", seed: int = 0, **trainer_kwargs: Any) -> None:
        """Train the three members for a fixed number of steps. Ctrl-C stops the training and keeps the current weights.

        Parameters
        ----------
        max_steps
            Number of optimiser steps.
        accelerator
            As in Lightning: ``"auto"``, ``"cpu"``, ``"gpu"``.
        seed
            Random seed. The global random state does not change.
        **trainer_kwargs
            Passed to ``lightning.Trainer``.
        """
        rows = self._training_rows()
        x = torch.empty(len(rows.rows), len(rows.columns))
        # only one dense copy of the training samples, to save memory
        for start in range(0, len(x), ROWS_AT_ONCE):
            end = start + ROWS_AT_ONCE
            x[start:end] = torch.as_tensor(scaden_input(rows.dense(start, end)))
        targets = torch.tensor(rows.fractions, dtype=torch.float32)
        with seeded(seed):
            network = ScadenNetwork(x.shape[1], targets.shape[-1])
            plan = fit(
                network,
                TrainingData(x, targets, torch.ones(len(MEMBERS), len(x))),
                LOSSES[self.parameters_["loss"]],
                max_steps=max_steps,
                batch_size=BATCH_SIZE,
                learning_rate=LEARNING_RATE,
                adam_epsilon=ADAM_EPSILON,
                accelerator=accelerator,
                description="training Scaden",
                **trainer_kwargs,
            )
        summary = f"{len(x)} {self.train_on} samples, {x.shape[1]} genes, {max_steps} steps"
        record = self._record(summary, rows, seed=seed, interrupted=plan.stop, curves=curves_of(plan.history()))
        self._store(ScadenState(weights=weights_of(network), summary=summary), record)


def _varying_genes(bulk: AnnData, var_cutoff: float) -> pd.Index:
    varying = np.zeros(bulk.n_vars, dtype=bool)
    if bulk.n_obs > 1:
        varying = to_dense(bulk.X).var(axis=0, ddof=1) > var_cutoff
    if not varying.any():
        msg = (
            f"Expected genes with a variance above var_cutoff={var_cutoff:g} over the {bulk.n_obs} bulk samples, "
            "found none. Lower var_cutoff, add samples, or call pp.select_genes(mdata) first."
        )
        raise ValueError(msg)
    return bulk.var_names[varying]
