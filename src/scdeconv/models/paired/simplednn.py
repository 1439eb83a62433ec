"""SimpleDNN: a network that learns composition from real pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from scipy.special import softmax

from scdeconv import metrics
from scdeconv._data import keys
from scdeconv._data.reference import Reference
from scdeconv._nn import LOSSES, Ensemble, TrainingData, fit
from scdeconv._stats.conformal import HeldOut, angle
from scdeconv._stats.expression import fill_missing, log_shares, to_shares
from scdeconv._stats.familiarity import Familiarity
from scdeconv._stats.logistic_normal import LogisticNormalModel
from scdeconv._stats.ridge import LEAST_SD, RidgeFit, fit_log_ratios
from scdeconv.models._neural import NeuralModel, Source, TrainingRows, donor_folds
from scdeconv.models._record import Method
from scdeconv.pp import BROAD, fit_calibration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

N_FOLDS = 5
# weight of a real pair relative to a simulated one
PAIR_WEIGHT = 10.0


@dataclass
class Draws:
    """Bulk simulated for one member: log expression, fractions, and totals over the genes."""

    x: np.ndarray
    fractions: np.ndarray
    depths: np.ndarray


class SimpleDNN(NeuralModel):
    """A network trained on real pairs of bulk and single cells, and on bulk simulated from what the pairs teach.

    It starts from the solution that needs no training: the most probable composition under the calibration of the pairs
    (:func:`scdeconv.pp.calibrate`). Each member of an ensemble is a multi-layer perceptron (Linear, ReLU, dropout) beside
    a linear path, both zero at first, that correct the solution's logits; they learn from the pairs and from bulk
    simulated from the calibration, and only what held-out donors confirm is kept. With ``simulate=None`` the pairs alone
    are used, and the solution is their ridge regression. With ``simulate=None, start_from_solution=False,
    n_members=1`` it is the network of the paper.

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
    start_from_solution
        Whether the network corrects the solution, or learns from nothing.
    loss
        ``"mse"`` of the fractions, as in the paper; ``"cross_entropy"``; ``"l1"``.
    train_on
        ``"pairs"`` (by default) or ``"simulated"`` bulk.

    Notes
    -----
    The paper takes log1p of raw counts; here samples are brought to one depth first, since users' samples differ.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.SimpleDNN.setup_mudata(mdata)
    >>> model = scdeconv.models.SimpleDNN(mdata, n_members=2, simulate=50)
    >>> model.train(max_epochs=2)
    >>> quality = model.quality(mdata["bulk"])
    >>> list(quality)
    ['noise', 'composition', 'outside']
    """

    record = Method(
        key="simplednn",
        family="paired",
        needs=("pairs",),
        summary="network on pairs and simulated bulk that corrects the calibrated solution",
        reference="SimpleDNN paper (2025)",
        stochastic=True,
        genes_per_type=150,
    )
    module: Ensemble

    def __init__(
        self,
        data: AnnData | MuData | None = None,
        *,
        hidden: Sequence[int] = (64, 32),
        dropout: float | Sequence[float] = 0.1,
        n_members: int = 5,
        simulate: int | None = 500,
        start_from_solution: bool = True,
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
        self.start_from_solution, self.loss = start_from_solution, loss
        parameters = {
            "hidden": self.hidden,
            "dropout": self.dropout,
            "n_members": n_members,
            "simulate": simulate,
            "start_from_solution": start_from_solution,
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
            starts, draws = self._start(rows, held, rng)
            module, data, validation = self._assemble(rows, held, starts, draws)
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
            self._report(module, rows, held, starts)
            if refit and not interrupted:
                everyone = np.zeros((self.n_members, len(rows.donors)), dtype=bool)
                full_starts, draws = self._start(rows, everyone, rng)
                full, data, _ = self._assemble(rows, everyone, full_starts, draws)
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
                module, starts = (module, starts) if interrupted else (full, full_starts[:1])
        self.module, self.starts_ = module.eval(), starts
        self.seed_, self.interrupted_, self.is_trained_ = seed, interrupted, True

    def _assemble(
        self, rows: TrainingRows, held: np.ndarray, starts: list[Any], draws: list[Draws]
    ) -> tuple[Ensemble, TrainingData, TrainingData]:
        """Return networks before training, what each learns from, and its held-out rows."""
        module = self._network(len(held), rows.expression.shape[1])
        shares = to_shares(rows.expression)
        log = log_shares(rows.expression)
        standard = {"reference": shares.mean(axis=0), "centre": log.mean(axis=0), "scale": log.std(axis=0) + LEAST_SD}
        for name, value in standard.items():
            getattr(module, name).copy_(torch.as_tensor(value))
        x, targets, weights = (_tensor(values) for values in (log, rows.fractions, rows.weights))
        left_out = torch.as_tensor(held)
        offsets = groups = None
        if starts:
            depths = rows.expression.sum(axis=1)
            solved = {id(start): start.solve(log, depths) for start in starts}
            offsets = _tensor(np.stack([solved[id(start)] for start in starts]))
            groups = torch.as_tensor(np.unique(rows.donors, return_inverse=True)[1])
        validation = TrainingData(x, targets, left_out * weights, offsets, groups)
        if not draws:
            return module, TrainingData(x, targets, ~left_out * weights, offsets), validation
        n_members, n_choices = len(held), targets.shape[1]
        simulated, fractions = (_tensor(np.stack([getattr(one, name) for one in draws])) for name in ("x", "fractions"))
        if offsets is not None:
            solved = {id(one): start.solve(one.x, one.depths) for start, one in zip(starts, draws, strict=True)}
            offsets = torch.cat([offsets, _tensor(np.stack([solved[id(one)] for one in draws]))], dim=1)
        both = TrainingData(
            torch.cat([x.expand(n_members, -1, -1), simulated], dim=1),
            torch.cat(
                [targets.expand(n_members, -1, -1, -1), fractions[:, :, None].expand(-1, -1, n_choices, -1)], dim=1
            ),
            torch.cat([PAIR_WEIGHT * ~left_out * weights, torch.ones(simulated.shape[:2])], dim=1),
            offsets,
        )
        return module, both, validation

    def _start(self, rows: TrainingRows, held: np.ndarray, rng: np.random.Generator) -> tuple[list[Any], list[Draws]]:
        """Return each member's solution, and bulk simulated for it, without the donors that it holds out.

        Members that hold out the same donors share both.
        """
        log, measured = log_shares(rows.expression), rows.fractions.mean(axis=1)
        found: dict[bytes, tuple[Any, Draws | None]] = {}
        mdata: Any = self.mdata
        reference = None if self.simulate is None else Reference(mdata, self.genes_)
        for left_out in held:
            if left_out.tobytes() in found:
                continue
            if reference is None:
                scale = log.std(axis=0) + LEAST_SD
                ridge = fit_log_ratios(log[~left_out] / scale, measured[~left_out], rows.donors[~left_out])
                ridge.coefficients /= scale[:, None]
                found[left_out.tobytes()] = ridge, None
                continue
            calibration = fit_calibration(
                mdata,
                reference,
                self.genes_,
                without=np.unique(rows.donors[left_out]),
                batch_key=mdata.uns.get(keys.UNS, {}).get("calibrate", {}).get("batch_key"),
            )
            fractions = calibration.draw_compositions(self.simulate or 0, BROAD, rng)
            bulk = calibration.draw_bulk(fractions, rng)
            draws = Draws(log_shares(bulk), fractions, bulk.sum(axis=1))
            found[left_out.tobytes()] = calibration.model(), draws
        pairs = [found[left_out.tobytes()] for left_out in held]
        starts = [start for start, _ in pairs] if self.start_from_solution else []
        return starts, [draws for _, draws in pairs if draws is not None]

    @torch.no_grad()
    def _report(self, module: Ensemble, rows: TrainingRows, held: np.ndarray, starts: list[Any]) -> None:
        """Keep how held-out donors were predicted and how familiar they are; note how well, beside their mean."""
        log, measured = log_shares(rows.expression), rows.fractions.mean(axis=1)
        # few donors share folds between members; the first that left a sample out speaks for it
        row, first = np.unique(np.nonzero(held)[1], return_index=True)
        member = np.nonzero(held)[0][first]
        depths = rows.expression.sum(axis=1)
        solved = [start.solve(log, depths) for start in starts]
        predicted = self._members(module, solved, log)[member, row]
        self.held_out_ = HeldOut(measured[row], predicted, rows.donors[row])
        if starts and self.simulate is not None:
            levels = [start.noise_level(log, depths, ratios) for start, ratios in zip(starts, solved, strict=True)]
            noise = np.stack(levels)[member, row]
            self.familiarity_ = Familiarity.from_held_out(noise, measured[row], rows.donors[row])
        baseline = np.stack([measured[~held[m]].mean(axis=0) for m in member])
        self.summary_ = (
            f"{len(np.unique(rows.donors))} donors, {self.simulate or 0} simulated, {len(self.genes_)} genes, "
            f"{self.n_members} members, best epoch {self.best_epoch_}; inner held-out RMSE "
            f"{metrics.rmse(measured[row], predicted):.4f} (mean composition {metrics.rmse(measured[row], baseline):.4f})"
        )

    @torch.no_grad()
    def _members(self, module: Ensemble, solved: list[np.ndarray], log: np.ndarray) -> np.ndarray:
        """Return the fractions that each member predicts, members × samples × cell types, given the starts' solutions."""
        logits = module(_tensor(log)).numpy().astype(float)
        if solved:
            logits = logits + np.stack(solved)
        return softmax(logits, axis=-1)

    def _network(self, n_members: int, n_genes: int) -> Ensemble:
        return Ensemble(
            n_members, n_genes, len(self.cell_types_), self.hidden, self.dropout, linear=self.start_from_solution
        )

    def _read(self, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return log expression, missing genes filled in, and the totals."""
        shares = fill_missing(expression, self.module.reference.numpy().astype(float))
        return log_shares(shares), np.nansum(expression, axis=1)

    def _fractions(self, expression: np.ndarray) -> np.ndarray:
        log, depths = self._read(expression)
        solved = [start.solve(log, depths) for start in self.starts_]
        return self._members(self.module, solved, log).mean(axis=0)

    def _judge(self, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray | float, np.ndarray | None]:
        log, depths = self._read(expression)
        solved = [start.solve(log, depths) for start in self.starts_]
        members = self._members(self.module, solved, log)
        noise = None
        if all(isinstance(start, LogisticNormalModel) for start in self.starts_) and self.starts_:
            levels = [
                start.noise_level(log, depths, ratios) for start, ratios in zip(self.starts_, solved, strict=True)
            ]
            noise = np.mean(levels, axis=0)
        return members.mean(axis=0), angle(members).std(axis=0), noise

    def _arrays(self) -> dict[str, np.ndarray]:
        solutions = {
            f"start.{number}.{name}": np.asarray(array)
            for number, start in enumerate(self.starts_)
            for name, array in vars(start).items()
        }
        return super()._arrays() | solutions

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        names = [name.split(".", 2) for name in arrays if name.startswith("start.")]
        solutions: list[dict[str, np.ndarray]] = [{} for _ in {number for _, number, _ in names}]
        for prefix, number, name in names:
            solutions[int(number)][name] = arrays.pop(f"{prefix}.{number}.{name}")
        kind: Any = LogisticNormalModel if any("profiles" in solution for solution in solutions) else RidgeFit
        self.starts_ = [kind(**solution) for solution in solutions]
        super()._restore(arrays)

    def _make_module(self, arrays: dict[str, np.ndarray]) -> Ensemble:
        last = max(name for name in arrays if name.startswith("perceptrons") and name.endswith("bias"))
        return self._network(len(arrays[last]), len(arrays["centre"]))


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float32)
