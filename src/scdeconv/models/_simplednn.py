"""SimpleDNN: a network that learns composition from real pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from scdeconv import _keys as keys
from scdeconv import metrics
from scdeconv._expression import fill_missing, log_shares
from scdeconv.nn import LOSSES, Ensemble, TrainingData, fit
from scdeconv.pp import BROAD, LinearisedCalibration, Reference, fit_calibration

from ._familiarity import Familiarity
from ._intervals import HeldOut, angle
from ._neural import NeuralModel, Source, TrainingRows, donor_folds
from ._ridge import LEAST_SD, fit_log_ratios

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

N_FOLDS = 5
# a pair counts as so many simulated samples
PAIR_WEIGHT = 10.0


@dataclass
class Start:
    """Where a member starts: its linear path on log expression, and what it is shown beside the pairs."""

    coefficients: np.ndarray
    intercept: np.ndarray
    x: np.ndarray
    fractions: np.ndarray
    calibration: LinearisedCalibration | None = None


class SimpleDNN(NeuralModel):
    """A network trained on real pairs of bulk and single cells, and on bulk simulated from what the pairs teach.

    Each member of an ensemble is a multi-layer perceptron (Linear, ReLU, dropout) beside a linear path. The linear path
    starts at the best linear predictor under the calibration of the pairs (:func:`scdeconv.pp.calibrate`), and the
    perceptron at zero, so that training starts from the best linear answer and learns only what held-out donors
    confirm. With ``simulate=None`` the pairs alone are used, and the linear path starts at their ridge regression. With
    ``simulate=None, linear_start=False, loss="mse", n_members=1`` it is the network of the paper.

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
    simulate
        Bulk samples simulated from the calibration for each member; None for the pairs alone, as always where ``data``
        is an AnnData or already simulated.
    linear_start
        Whether there is a linear path, started at the closed-form solution.
    loss
        ``"mse"`` of the fractions, as in the paper; ``"cross_entropy"``; ``"l1"``.
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
        simulate: int | None = 2000,
        linear_start: bool = True,
        loss: Literal["cross_entropy", "mse", "l1"] = "mse",
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
            "simulate": simulate,
            "linear_start": linear_start,
            "loss": loss,
        }
        super().__init__(data, train_on, parameters)
        self.simulate = simulate if self.mdata is not None and self.train_on == "pairs" else None

    def train(
        self,
        *,
        max_epochs: int = 200,
        learning_rate: float = 3e-4,
        weight_decay: float = 1e-2,
        batch_size: int = 128,
        patience: int = 10,
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
        ``history`` (losses by epoch), ``held_out_`` (how held-out donors were predicted) and ``best_epoch_``.
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
        rng = np.random.default_rng(seed)
        steps_per_epoch = max(1, (len(rows.donors) + (self.simulate or 0)) // batch_size)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            starts = self._starts(rows, held, rng)
            module, data, validation = self._first(rows, held, starts)
            plan = fit(
                module,
                data,
                LOSSES[self.loss],
                validation=validation,
                max_steps=max_epochs * steps_per_epoch,
                patience=patience,
                description="training with donors held out",
                **settings,
            )
            self.history_ = plan.history()
            self.best_epoch_, interrupted = plan.best_epoch, plan.stop
            self._report(module, rows, held)
            everyone = np.zeros((self.n_members, len(rows.donors)), dtype=bool)
            full_starts = self._starts(rows, everyone, rng)
            self._note_familiarity(rows, held, starts, full_starts[0])
            if refit and not interrupted:
                full, data, _ = self._first(rows, everyone, full_starts)
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

    def _first(
        self, rows: TrainingRows, held: np.ndarray, starts: list[Start]
    ) -> tuple[Ensemble, TrainingData, TrainingData]:
        """Return networks at their starting point, what each learns from, and its held-out rows."""
        module = self._network(len(held), rows.expression.shape[1])
        shares = rows.expression / np.maximum(rows.expression.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        x = log_shares(rows.expression)
        centre, scale = x.mean(axis=0), x.std(axis=0) + LEAST_SD
        for name, value in {"reference": shares.mean(axis=0), "centre": centre, "scale": scale}.items():
            getattr(module, name).copy_(torch.as_tensor(value))
        for member, start in enumerate(starts):
            module.start_linear(
                member, start.coefficients * scale[:, None], start.intercept + centre @ start.coefficients
            )
        real, targets, weights = (
            torch.as_tensor(values, dtype=torch.float32) for values in (x, rows.fractions, rows.weights)
        )
        left_out = torch.as_tensor(held)
        # a network without a linear start has nothing to fall back on
        groups = torch.as_tensor(np.unique(rows.donors, return_inverse=True)[1]) if self.linear_start else None
        validation = TrainingData(real, targets, left_out * weights, groups)
        if self.simulate is None:
            return module, TrainingData(real, targets, ~left_out * weights), validation
        simulated, fractions = (
            torch.as_tensor(np.stack([getattr(start, name) for start in starts]), dtype=torch.float32)
            for name in ("x", "fractions")
        )
        n_members, n_choices = len(held), targets.shape[1]
        both = TrainingData(
            torch.cat([real.expand(n_members, -1, -1), simulated], dim=1),
            torch.cat(
                [targets.expand(n_members, -1, -1, -1), fractions[:, :, None].expand(-1, -1, n_choices, -1)], dim=1
            ),
            torch.cat([PAIR_WEIGHT * ~left_out * weights, torch.ones(simulated.shape[:2])], dim=1),
        )
        return module, both, validation

    def _starts(self, rows: TrainingRows, held: np.ndarray, rng: np.random.Generator) -> list[Start]:
        """Return the closed-form solution without each member's held-out donors, and bulk simulated without them."""
        x, measured = log_shares(rows.expression), rows.fractions.mean(axis=1)
        if self.simulate is None:
            scale = x.std(axis=0) + LEAST_SD
            starts = []
            for left_out in held:
                ridge = fit_log_ratios(x[~left_out] / scale, measured[~left_out], rows.donors[~left_out])
                starts.append(Start(ridge.coefficients / scale[:, None], ridge.intercept, x[:0], measured[:0]))
            return starts
        mdata: Any = self.mdata
        reference = Reference(mdata, self.genes_)
        batch_key = mdata.uns.get(keys.UNS, {}).get("calibrate", {}).get("batch_key")
        calibrations: dict[tuple[str, ...], Any] = {}
        starts = []
        for left_out in held:
            without = tuple(np.unique(rows.donors[left_out]))
            if without not in calibrations:
                calibrations[without] = fit_calibration(
                    mdata, reference, self.genes_, without=without, batch_key=batch_key
                )
            calibration = calibrations[without]
            fractions = calibration.draw_compositions(self.simulate, BROAD, rng)
            simulated = log_shares(calibration.draw_bulk(fractions, rng))
            linearised = calibration.linearised()
            coefficients, intercept = linearised.solution()
            starts.append(Start(coefficients, intercept, simulated, fractions, linearised))
        return starts

    def _note_familiarity(self, rows: TrainingRows, held: np.ndarray, starts: list[Start], full: Start) -> None:
        """Keep what tells unusual samples: the calibration, and how far off held-out donors were."""
        log = log_shares(rows.expression)
        folds = [
            (start.calibration, log[left_out])
            for start, left_out in zip(starts, held, strict=True)
            if start.calibration is not None and left_out.any()
        ]
        if full.calibration is not None and folds:
            self.familiarity_ = Familiarity.from_held_out(full.calibration, folds, rows.fractions.mean(axis=1))

    @torch.no_grad()
    def _report(self, module: Ensemble, rows: TrainingRows, held: np.ndarray) -> None:
        """Keep how held-out donors were predicted; note how well, and how well their mean would have done."""
        predicted = torch.softmax(module(torch.as_tensor(log_shares(rows.expression), dtype=torch.float32)), dim=-1)
        measured = rows.fractions.mean(axis=1)
        # few donors share folds between members; the first that left a sample out speaks for it
        row, first = np.unique(np.nonzero(held)[1], return_index=True)
        member = np.nonzero(held)[0][first]
        self.held_out_ = HeldOut(measured[row], predicted.numpy()[member, row].astype(float), rows.donors[row])
        baseline = np.stack([measured[~held[m]].mean(axis=0) for m in member])
        self.summary_ = (
            f"{len(np.unique(rows.donors))} donors, {self.simulate or 0} simulated, {len(self.genes_)} genes, "
            f"{self.n_members} members, best epoch {self.best_epoch_}; inner held-out RMSE "
            f"{metrics.rmse(self.held_out_.measured, self.held_out_.predicted):.4f} "
            f"(mean composition {metrics.rmse(self.held_out_.measured, baseline):.4f})"
        )

    def _network(self, n_members: int, n_genes: int) -> Ensemble:
        return Ensemble(n_members, n_genes, len(self.cell_types_), self.hidden, self.dropout, linear=self.linear_start)

    def _make_module(self, arrays: dict[str, np.ndarray]) -> Ensemble:
        last = max(name for name in arrays if name.startswith("perceptrons") and name.endswith("bias"))
        return self._network(len(arrays[last]), len(arrays["centre"]))

    def _input(self, expression: np.ndarray) -> np.ndarray:
        return log_shares(fill_missing(expression, self.module.reference.numpy().astype(float)))

    @torch.no_grad()
    def _spread(self, expression: np.ndarray) -> np.ndarray:
        fractions = torch.softmax(self.module(torch.as_tensor(self._input(expression), dtype=torch.float32)), dim=-1)
        return angle(fractions.numpy()).std(axis=0)
