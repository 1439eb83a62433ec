"""SimpleDNN: a network that learns composition from real pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from scipy.special import softmax

from scdeconv import metrics
from scdeconv.nn import LOSSES, Ensemble, TrainingData, centred_log_ratio, fit

from ._neural import NeuralModel, Source, TrainingRows, donor_folds
from ._ridge import fit_ridge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

# shares below this are one to the linear start: their logarithms are mostly counting noise
FLOOR = 1e-2
# mean count of a gene after normalisation, which sets where log1p turns from linear to logarithmic
LEVEL = 10.0
# a gene that hardly varies over donors is not blown up to unit variance
LEAST_SD = 0.1
N_FOLDS = 5


def log_expression(expression: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return log1p of expression scaled to ``LEVEL`` per gene; missing genes take the value of ``reference``.

    Parameters
    ----------
    expression
        Samples × genes, linear; NaN where a gene is missing.
    reference
        Share of each gene in the training samples, length genes, sums to 1.

    Returns
    -------
    Samples × genes.
    """
    present = ~np.isnan(expression)
    covered = (present * reference).sum(axis=1, keepdims=True)
    totals = np.where(present, expression, 0).sum(axis=1, keepdims=True)
    shares = np.where(present, expression / np.maximum(totals, np.finfo(float).tiny) * covered, reference)
    return np.log1p(shares * LEVEL * expression.shape[1])


class SimpleDNN(NeuralModel):
    """A network trained on real pairs of bulk and single cells, tuned for few donors.

    Each member of an ensemble is a multi-layer perceptron (Linear, ReLU, dropout) beside a linear path. The linear path
    starts at the ridge solution from log expression to centred log-ratios of the fractions, and the perceptron at zero,
    so that training starts from the best linear answer and learns only what held-out donors confirm. With
    ``linear_start=False``, ``loss="mse"``, ``n_members=1`` it is the network of the paper.

    Parameters
    ----------
    data
        A MuData from :func:`scdeconv.pp.pair` (its selected genes are used), or an AnnData of bulk samples, after
        :meth:`setup_mudata` or :meth:`setup_anndata`.
    hidden
        Width of each hidden layer; as many layers as numbers.
    dropout
        Dropout rate after each hidden layer: one for all, or one each.
    n_members
        Networks whose fractions are averaged.
    linear_start
        Whether there is a linear path, started at the ridge solution.
    loss
        ``"cross_entropy"`` suits compositions; ``"mse"`` is the paper's; ``"l1"``.
    train_on
        ``"pairs"`` (by default) or ``"simulated"`` bulk.

    Notes
    -----
    The paper takes log1p of raw counts; here samples are brought to one depth first, since users' samples differ.
    """

    method = "simplednn"
    module: Ensemble
    learns_from = "pairs"

    def __init__(
        self,
        data: AnnData | MuData | None = None,
        *,
        hidden: Sequence[int] = (64, 32),
        dropout: float | Sequence[float] = 0.1,
        n_members: int = 5,
        linear_start: bool = True,
        loss: Literal["cross_entropy", "mse", "l1"] = "cross_entropy",
        train_on: Source | None = None,
    ) -> None:
        if loss not in LOSSES:
            msg = f"Expected loss to be one of {sorted(LOSSES)}, found {loss!r}."
            raise ValueError(msg)
        rates = [float(dropout)] * len(hidden) if isinstance(dropout, (int, float)) else [float(d) for d in dropout]
        if len(rates) != len(hidden):
            msg = f"Expected a dropout rate for each of {len(hidden)} hidden layers, found {len(rates)}."
            raise ValueError(msg)
        self.hidden, self.dropout, self.n_members = [int(width) for width in hidden], rates, n_members
        self.linear_start, self.loss = linear_start, loss
        parameters = {
            "hidden": self.hidden,
            "dropout": self.dropout,
            "n_members": n_members,
            "linear_start": linear_start,
            "loss": loss,
        }
        super().__init__(data, train_on, parameters)

    def train(
        self,
        *,
        max_epochs: int = 500,
        learning_rate: float = 3e-4,
        weight_decay: float = 1e-2,
        batch_size: int = 128,
        patience: int = 30,
        refit: bool = True,
        accelerator: str = "auto",
        seed: int = 0,
        **trainer_kwargs: Any,
    ) -> None:
        """Train with donors held out, then again on all donors for as many epochs as were best.

        The donors are dealt into folds and each member leaves one fold out. The epoch with the lowest mean validation
        loss counts, the starting point being epoch 0. Ctrl-C ends training and keeps the best weights so far.

        Parameters
        ----------
        max_epochs, patience
            Longest training, and epochs without a better validation loss before it stops.
        learning_rate, weight_decay, batch_size
            Of AdamW.
        refit
            Train again on all donors. Otherwise each member keeps the weights that were best on its held-out donors.
        accelerator
            As in Lightning: ``"auto"``, ``"cpu"``, ``"gpu"``.
        seed
            Seed of everything; the global random state is left alone.
        **trainer_kwargs
            Handed to ``lightning.Trainer``.

        Writes
        ------
        ``history`` (losses by epoch), ``held_out_`` (RMSE on held-out donors beside that of the mean composition) and
        ``best_epoch_``.
        """
        rows = self._training_rows()
        if len(np.unique(rows.donors)) < 2:
            msg = f"Expected samples of at least 2 donors to train on, found {len(np.unique(rows.donors))}."
            raise ValueError(msg)
        folds = donor_folds(rows.donors, max(N_FOLDS, self.n_members), np.random.default_rng(seed))
        # with fewer donors than members some folds are empty; those members share the folds there are
        held = np.stack([folds == fold % (folds.max() + 1) for fold in range(max(N_FOLDS, self.n_members))])
        held = held[: self.n_members] if not refit else held
        settings = {
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "accelerator": accelerator,
            **trainer_kwargs,
        }
        steps_per_epoch = max(1, len(rows.donors) // batch_size)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            module, data = self._start(rows, held)
            plan = fit(
                module,
                data,
                LOSSES[self.loss],
                max_steps=max_epochs * steps_per_epoch,
                patience=patience,
                description="training with donors held out",
                **settings,
            )
            self.history_ = plan.history()
            self.best_epoch_, interrupted = plan.best_epoch, plan.stop
            self._report(module, rows, held)
            if refit and not interrupted:
                full, data = self._start(rows, np.zeros((self.n_members, len(rows.donors)), dtype=bool))
                if self.best_epoch_:
                    plan = fit(
                        full,
                        data,
                        LOSSES[self.loss],
                        max_steps=self.best_epoch_ * steps_per_epoch,
                        description="training on all donors",
                        **settings,
                    )
                    interrupted = plan.stop
                # half a refit is worse than the best weights of the training with held-out donors
                module = module if interrupted else full
        self.module = module.eval()
        self.seed_, self.interrupted_, self.is_trained_ = seed, interrupted, True

    def _start(self, rows: TrainingRows, held: np.ndarray) -> tuple[Ensemble, TrainingData]:
        """Return networks at their starting point and the rows, each member without its held-out ones."""
        module = self._network(len(held), rows.expression.shape[1])
        totals = np.maximum(rows.expression.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        shares = (rows.expression / totals).mean(axis=0)
        module.reference.copy_(torch.as_tensor(shares))
        x = log_expression(rows.expression, shares)
        centre, scale = x.mean(axis=0), x.std(axis=0) + LEAST_SD
        module.centre.copy_(torch.as_tensor(centre))
        module.scale.copy_(torch.as_tensor(scale))
        measured = rows.fractions.mean(axis=1)
        ratios = centred_log_ratio(measured, FLOOR)
        for member, left_out in enumerate(held):
            kept = ~left_out

            def error(predicted: np.ndarray, truth: np.ndarray = measured[kept]) -> float:
                return metrics.mse(truth, softmax(predicted, axis=1))

            ridge = fit_ridge(((x - centre) / scale)[kept], ratios[kept], rows.donors[kept], error)
            module.start_linear(member, ridge.coefficients, ridge.intercept)
        weights = torch.as_tensor(~held * rows.weights, dtype=torch.float32)
        validation = torch.as_tensor(held * rows.weights, dtype=torch.float32) if held.any() else None
        targets = torch.as_tensor(rows.fractions, dtype=torch.float32)
        return module, TrainingData(torch.as_tensor(x, dtype=torch.float32), targets, weights, validation)

    @torch.no_grad()
    def _report(self, module: Ensemble, rows: TrainingRows, held: np.ndarray) -> None:
        """Note how well held-out donors were predicted, and how well their mean would have done."""
        x = torch.as_tensor(
            log_expression(rows.expression, module.reference.numpy().astype(float)), dtype=torch.float32
        )
        predicted = torch.softmax(module(x), dim=-1).numpy()
        measured = rows.fractions.mean(axis=1)
        pairs = [
            (measured[left_out], predicted[member][left_out], measured[~left_out].mean(axis=0))
            for member, left_out in enumerate(held)
            if left_out.any()
        ]
        truth = np.concatenate([pair[0] for pair in pairs])
        baseline = np.concatenate([np.tile(pair[2], (len(pair[0]), 1)) for pair in pairs])
        self.held_out_ = {
            "rmse": metrics.rmse(truth, np.concatenate([pair[1] for pair in pairs])),
            "rmse_mean_composition": metrics.rmse(truth, baseline),
        }
        self.summary_ = (
            f"{len(np.unique(rows.donors))} donors, {len(self.genes_)} genes, {self.n_members} members, best epoch "
            f"{self.best_epoch_}; inner held-out RMSE {self.held_out_['rmse']:.4f} "
            f"(mean composition {self.held_out_['rmse_mean_composition']:.4f})"
        )

    def _network(self, n_members: int, n_genes: int) -> Ensemble:
        return Ensemble(n_members, n_genes, len(self.cell_types_), self.hidden, self.dropout, linear=self.linear_start)

    def _make_module(self, arrays: dict[str, np.ndarray]) -> Ensemble:
        last = max(name for name in arrays if name.startswith("perceptrons") and name.endswith("bias"))
        return self._network(len(arrays[last]), len(arrays["centre"]))

    def _input(self, expression: np.ndarray) -> np.ndarray:
        return log_expression(expression, self.module.reference.numpy().astype(float))
