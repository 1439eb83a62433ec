"""Several methods averaged, with weights that held-out donors choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import nnls

from scdeconv._stats.conformal import HeldOut
from scdeconv.models._base import NO_DATA, DeconvolutionModel, input_genes, normalise
from scdeconv.models._record import Method
from scdeconv.models.paired.bisque import Bisque
from scdeconv.models.paired.calibrated_nnls import CalibratedNNLS
from scdeconv.models.paired.ridge import Ridge
from scdeconv.models.paired.simplednn import SimpleDNN
from scdeconv.pp import FEWEST_PAIRS, paired_donors

if TYPE_CHECKING:
    from mudata import MuData

MEMBERS: dict[str, type[Any]] = {cls.method: cls for cls in (SimpleDNN, CalibratedNNLS, Ridge, Bisque)}
# weight of the row that asks for a sum of one, against the length of the longest column
SUM_WEIGHT = 1e3


def stack(measured: np.ndarray, predicted: np.ndarray, n_donors: int) -> np.ndarray:
    """Return weights, at least 0 and with sum 1, of the members whose average errs least.

    Departing from equal weights costs as much as the members err on one donor, so that few donors do not choose by
    chance.

    Parameters
    ----------
    measured
        Samples × cell types.
    predicted
        Members × samples × cell types, held out.
    n_donors
        Donors behind the samples.
    """
    columns = predicted.reshape(len(predicted), -1).T
    prior = np.sqrt(((columns - measured.reshape(-1, 1)) ** 2).sum(axis=0).mean() / n_donors)
    heavy = SUM_WEIGHT * np.linalg.norm(columns, axis=0).max()
    system = np.vstack([columns, prior * np.eye(columns.shape[1]), np.full(columns.shape[1], heavy)])
    target = np.concatenate([measured.ravel(), np.full(columns.shape[1], prior / columns.shape[1]), [heavy]])
    weights = nnls(system, target)[0]
    return weights / weights.sum()


class WeightedEnsemble(DeconvolutionModel):
    """The weighted mean of SimpleDNN, CalibratedNNLS, Ridge and Bisque.

    Each member predicts donors that it was not trained on; the weights are those that fit these predictions best.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`, with at least 4 paired donors. The members share the selected genes.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.WeightedEnsemble.setup_mudata(mdata)
    >>> model = scdeconv.models.WeightedEnsemble(mdata)
    >>> model.train()
    >>> list(model.members_), round(float(model.weights_.sum()), 6)
    (['simplednn', 'calibrated_nnls', 'ridge', 'bisque'], 1.0)
    """

    record = Method(
        key="ensemble",
        family="paired",
        needs=("pairs", "profiles"),
        summary="weighted mean of simplednn, calibrated_nnls, ridge and bisque",
        reference="this library",
        stochastic=True,
        genes_per_type=150,
    )

    def __init__(self, mdata: MuData | None = None) -> None:
        self.mdata = mdata
        self.parameters_ = {}

    @classmethod
    def setup_mudata(cls, mdata: MuData) -> None:
        """Register the data for every member."""
        for member in MEMBERS.values():
            member.setup_mudata(mdata)

    def train(self, *, seed: int = 0) -> None:
        """Train the members, then weigh them by how they predicted held-out donors."""
        if self.mdata is None:
            raise RuntimeError(NO_DATA)
        n_donors = len(paired_donors(self.mdata))
        if n_donors <= FEWEST_PAIRS:
            msg = (
                f"Expected at least {FEWEST_PAIRS + 1} paired donors to weigh the members by, found {n_donors}. Use "
                "method='simplednn'."
            )
            raise ValueError(msg)
        self.genes_ = input_genes(self.mdata)
        self.members_ = {name: cls(self.mdata) for name, cls in MEMBERS.items()}
        for member in self.members_.values():
            member.train(**({"seed": seed} if isinstance(member, SimpleDNN) else {}))
        network = self.members_[SimpleDNN.method]
        network.deregister_manager(network.adata)
        self.cell_types_ = network.cell_types_
        held_out = [member.held_out_ for member in self.members_.values()]
        measured, donors = held_out[0].measured, held_out[0].donors
        predicted = np.stack([table.predicted for table in held_out])
        self.weights_ = stack(measured, predicted, len(np.unique(donors)))
        self.held_out_ = HeldOut(measured, np.tensordot(self.weights_, predicted, axes=1), donors)
        self.familiarity_ = network.familiarity_
        self.interrupted_ = network.interrupted_
        shown = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(MEMBERS, self.weights_, strict=True))
        self.summary_ = f"{len(np.unique(donors))} donors, {len(self.genes_)} genes; weights {shown}"
        self.seed_, self.is_trained_ = seed, True

    def _fractions(self, expression: np.ndarray) -> np.ndarray:
        return self._judge(expression)[0]

    def _judge(self, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray | float, np.ndarray | None]:
        judged = {name: member._judge(expression) for name, member in self.members_.items()}
        members = np.stack([normalise(fractions) for fractions, *_ in judged.values()])
        return normalise(np.tensordot(self.weights_, members, axes=1)), 0.0, judged[SimpleDNN.method][2]

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {
            f"{name}/{key}": array for name, member in self.members_.items() for key, array in member._arrays().items()
        }
        return arrays | {"weights": self.weights_}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.weights_ = arrays["weights"]
        self.members_ = {name: cls(None) for name, cls in MEMBERS.items()}
        for name, member in self.members_.items():
            member.genes_, member.cell_types_ = self.genes_, self.cell_types_
            prefix = f"{name}/"
            member._restore({key[len(prefix) :]: array for key, array in arrays.items() if key.startswith(prefix)})
