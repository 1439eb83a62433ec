"""Ensembles trained on pairs: each member holds out a fold of donors, then all members are refitted on all donors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch

from scdeconv._nn import LOSSES, Ensemble, TrainingData, fit, inference
from scdeconv._stats.expression import log_shares, to_shares
from scdeconv._stats.ridge import LEAST_SD

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ._neural import TrainingRows

LossName = Literal["cross_entropy", "mse", "l1"]
# minimum number of donor folds; set by hand
MIN_DONOR_FOLDS = 5
# maximum number of members that hold out the same fold; set by hand
HELD_OUT_MEMBERS = 2


@dataclass(frozen=True)
class Trained:
    """Result of :func:`train_members`.

    Parameters
    ----------
    held_out
        Networks trained without the donors of their fold.
    final
        Networks for prediction.
    refitted
        Whether ``final`` were trained on all donors.
    best_epoch
        Number of epochs of ``final``; 0: initial weights.
    interrupted
        Whether Ctrl-C ended the training.
    history
        Losses by epoch.
    """

    held_out: Ensemble
    final: Ensemble
    refitted: bool
    best_epoch: int
    interrupted: bool
    history: dict[str, pd.DataFrame]


def check_network(hidden: Sequence[int], dropout: float | Sequence[float]) -> tuple[list[int], list[float]]:
    """Return widths and dropout rates, one for each hidden layer; raise ``ValueError`` if they do not match."""
    rates = [float(dropout)] * len(hidden) if isinstance(dropout, (int, float)) else [float(rate) for rate in dropout]
    if len(rates) != len(hidden):
        msg = (
            f"Expected one dropout rate for each of {len(hidden)} hidden layers, found {len(rates)}. Pass one number "
            "for all."
        )
        raise ValueError(msg)
    return list(hidden), rates


def network_space() -> dict[str, Any]:
    """Return the default search space of :func:`scdeconv.tl.tune` for networks trained on pairs."""
    from optuna.distributions import FloatDistribution

    return {
        "hidden": [(32,), (64,), (64, 32), (128, 64), (256, 128), (128, 64, 32), (256, 128, 64, 32)],
        "dropout": FloatDistribution(0.0, 0.5),
        "learning_rate": FloatDistribution(1e-5, 1e-2, log=True),
        "weight_decay": FloatDistribution(1e-4, 1.0, log=True),
        "aug_ratio": [None, 0.95, 0.8, 0.5],
    }


def donor_folds(donors: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Return the fold of each row. All rows of a donor are in one fold."""
    unique, codes = np.unique(donors, return_inverse=True)
    return (rng.permutation(len(unique)) % n_folds)[codes]


def member_folds(donors: np.ndarray, n_members: int, seed: int, *, refit: bool) -> np.ndarray:
    """Return a mask of the rows that each member holds out (members × rows); raise ``ValueError`` for a single donor.

    With ``refit`` there are at least 5 members while donors are held out, so that each donor is held out once.
    """
    if len(np.unique(donors)) < 2:
        msg = f"Expected training samples of at least 2 donors, found {len(np.unique(donors))}. Add paired donors."
        raise ValueError(msg)
    n_folds = max(MIN_DONOR_FOLDS, n_members)
    folds = donor_folds(donors, n_folds, np.random.default_rng(seed))
    # with fewer donors than members some folds are empty: reuse the other folds
    held = np.stack([folds == fold % (folds.max() + 1) for fold in range(n_folds)])
    return held if refit else held[:n_members]


def repeated_folds(donors: np.ndarray, n_members: int, seed: int, *, refit: bool) -> np.ndarray:
    """Return a mask as :func:`member_folds`; with ``refit``, each of 5 folds is held out by at most 2 members.

    The mean over these members is the out-of-fold prediction. More members would take time and change it little.
    """
    if not refit:
        return member_folds(donors, n_members, seed, refit=False)
    folds = member_folds(donors, 1, seed, refit=True)
    return np.repeat(folds, min(n_members, HELD_OUT_MEMBERS), axis=0)


def held_out_means(members: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return the mean over the members that hold out a row, for each row that is held out.

    Parameters
    ----------
    members
        Predictions, members × rows × cell types.
    held
        Mask of the held-out rows, members × rows.
    """
    weights = held / np.maximum(held.sum(axis=0), 1)
    return np.einsum("mr,mrk->rk", weights, members)[held.any(axis=0)]


def held_out_members(members: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return the predictions of the members that hold out a row, for each row that is held out.

    Parameters
    ----------
    members, held
        As for :func:`held_out_means`.

    Returns
    -------
    Members × held-out rows × cell types; as many members as hold out every such row.
    """
    rows = np.flatnonzero(held.any(axis=0))
    holding = np.argsort(~held[:, rows], axis=0, kind="stable")[: held[:, rows].sum(axis=0).min()]
    found: np.ndarray = members[holding, rows]
    return found


def first_held_out(held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each held-out row, the first member that holds it out, and the row."""
    row, first = np.unique(np.nonzero(held)[1], return_index=True)
    return np.nonzero(held)[0][first], row


def standardise_input(network: Ensemble, expression: np.ndarray) -> None:
    """Set the network's input standardisation to the mean and standard deviation of these rows."""
    log = log_shares(expression)
    standard = {"reference": to_shares(expression).mean(axis=0), "centre": log.mean(axis=0)}
    for name, value in {**standard, "scale": log.std(axis=0) + LEAST_SD}.items():
        getattr(network, name).copy_(torch.as_tensor(value))


def pair_data(rows: TrainingRows, held: np.ndarray) -> tuple[TrainingData, TrainingData]:
    """Return training and validation pairs of each member."""
    x, targets, weights = (tensor(values) for values in (log_shares(rows.expression), rows.fractions, rows.weights))
    left_out = torch.as_tensor(held)
    return TrainingData(x, targets, ~left_out * weights), TrainingData(x, targets, left_out * weights)


def train_members(
    assemble: Callable[[np.ndarray], tuple[Ensemble, TrainingData, TrainingData]],
    held: np.ndarray,
    loss: str,
    *,
    n_members: int,
    max_epochs: int,
    steps_per_epoch: int,
    patience: int | None,
    refit: bool,
    settings: Mapping[str, Any],
) -> Trained:
    """Train with held-out donors, then refit on all donors for the best number of epochs.

    Parameters
    ----------
    assemble
        Function from the mask of held-out rows to networks, training data and validation data.
    held
        From :func:`member_folds`.
    loss
        Name of the loss.
    n_members
        Number of members of the final ensemble.
    max_epochs, steps_per_epoch
        Maximum number of epochs, and optimiser steps per epoch.
    patience
        Early stopping: number of epochs without a lower validation loss. None: the last weights of ``max_epochs`` are kept.
    refit
        Refit on all donors, unless Ctrl-C interrupted the first training.
    settings
        Further arguments of :func:`scdeconv._nn.fit`.

    Returns
    -------
    Networks, number of epochs and losses.
    """
    network, data, validation = assemble(held)
    plan = fit(
        network,
        data,
        LOSSES[loss],
        validation=validation,
        max_steps=max_epochs * steps_per_epoch,
        patience=patience,
        keep_best=patience is not None,
        description="training with donors held out",
        **settings,
    )
    history, best_epoch, interrupted = plan.history(), plan.best_epoch, plan.stop
    final, refitted = network, False
    if refit and not interrupted:
        again, data, _ = assemble(np.zeros((n_members, held.shape[1]), dtype=bool))
        if best_epoch:
            plan = fit(
                again,
                data,
                LOSSES[loss],
                max_steps=best_epoch * steps_per_epoch,
                description="training on all donors",
                **settings,
            )
            interrupted = plan.stop
        # an interrupted refit is discarded: the weights of the first training are complete
        if not interrupted:
            final, refitted = again, True
    return Trained(network.eval(), final.eval(), refitted, best_epoch, interrupted, history)


def tensor(values: np.ndarray) -> torch.Tensor:
    """Return the values as a single-precision tensor."""
    # a copy: arrays of pandas 3 are read-only
    return torch.tensor(values, dtype=torch.float32)


@inference()
def members_fractions(network: Ensemble, log: np.ndarray) -> np.ndarray:
    """Return the predicted fractions of each member from log expression, members × samples × cell types."""
    return torch.softmax(network(tensor(log)).double(), dim=-1).numpy()
