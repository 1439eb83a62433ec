"""WeightedEnsemble: CalibratedMAP, Ridge and SimpleDNN, with weights from out-of-fold predictions; the default."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import t

from scdeconv._data import keys
from scdeconv._data.checks import checked
from scdeconv._data.modalities import with_copies
from scdeconv._process import one_blas_thread
from scdeconv._stats.compositions import to_fractions
from scdeconv._stats.conformal import HeldOut
from scdeconv.models._base import DeconvolutionModel
from scdeconv.models._cross_fitted import require_data
from scdeconv.models._record import Method
from scdeconv.models._state import Estimate, State
from scdeconv.models.paired._network_states import SimpleDNNState
from scdeconv.models.paired.calibrated_map import CalibratedMAP, CalibratedMAPState
from scdeconv.models.paired.ridge import Ridge, RidgeState
from scdeconv.pp import paired_donors, select_genes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

    from scdeconv._stats.known_parts import KnownParts

# p value of the ridge regression below which no network is trained beside a reference
SIGNIFICANT = 0.05


def p_values(measured: np.ndarray, predicted: np.ndarray, donors: np.ndarray) -> np.ndarray:
    """Return for each member the p value of the hypothesis that it is as accurate as the best member.

    It is that of a one-sided paired t test of the mean squared errors of the donors. The best member has 0.5.

    Parameters
    ----------
    measured
        Measured fractions, samples × cell types.
    predicted
        Out-of-fold predictions, members × samples × cell types.
    donors
        Donor of each sample.

    Returns
    -------
    Length members.
    """
    squares = ((predicted - measured) ** 2).mean(axis=2)
    names = np.unique(donors)
    errors = np.stack([squares[:, donors == name].mean(axis=1) for name in names], axis=1)
    gaps = errors - errors[errors.mean(axis=1).argmin()]
    # tiny: members with equal errors are equally good
    standard = np.maximum(gaps.std(axis=1, ddof=1) / np.sqrt(len(names)), np.finfo(float).tiny)
    found: np.ndarray = t.sf(gaps.mean(axis=1) / standard, len(names) - 1)
    return found


def weigh(measured: np.ndarray, predicted: np.ndarray, donors: np.ndarray) -> np.ndarray:
    """Return weights proportional to the :func:`p_values`: nearly equal, or nearly all for a member that is clearly best."""
    found = p_values(measured, predicted, donors)
    return found / found.sum()


def weighted_out_of_fold(measured: np.ndarray, predicted: np.ndarray, donors: np.ndarray) -> np.ndarray:
    """Return weighted means, samples × cell types; the weights of each donor are from the other donors."""
    found = np.empty_like(measured)
    for donor in np.unique(donors):
        mine = donors == donor
        weights = weigh(measured[~mine], predicted[:, ~mine], donors[~mine])
        found[mine] = np.tensordot(weights, predicted[:, mine], axes=1)
    return found


@dataclass(frozen=True, kw_only=True)
class WeightedEnsembleState(State):
    """States of the members and their weights.

    Parameters
    ----------
    members
        States of the members.
    genes
        Positions of the genes of each member among the genes of the model.
    weights
        Weights of the members in this order; sum 1.
    """

    members: tuple[CalibratedMAPState | RidgeState | SimpleDNNState, ...]
    genes: tuple[np.ndarray, ...]
    weights: np.ndarray

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return the weighted mean over members, samples × cell types."""
        return self.estimate(expression).fractions

    def estimate(self, expression: np.ndarray) -> Estimate:
        """Return the weighted mean over members, and the noise if CalibratedMAP is a member."""
        return self._mean([member.estimate(own) for member, own in self._inputs(expression)])

    def estimate_given(self, expression: np.ndarray, known: KnownParts, estimate: Estimate) -> Estimate:
        """Return the weighted mean of the members' estimates given the known parts."""
        inputs = self._inputs(expression)
        return self._mean([member.estimate_given(own, known, member.estimate(own)) for member, own in inputs])

    def _inputs(self, expression: np.ndarray) -> list[tuple[State, np.ndarray]]:
        """Return each member with the expression of its genes."""
        return [(member, expression[:, genes]) for member, genes in zip(self.members, self.genes, strict=True)]

    def _mean(self, found: Sequence[Estimate]) -> Estimate:
        mean = np.tensordot(self.weights, np.stack([each.fractions for each in found]), axes=1)
        return Estimate(to_fractions(mean), noise=found[0].noise)


class WeightedEnsemble(DeconvolutionModel):
    """The weighted mean of CalibratedMAP, Ridge and SimpleDNN. The default with at least four paired donors.

    Each member predicts held-out donors. The weight of a member is proportional to the p value of a paired t test over
    donors, of the hypothesis that it is as accurate as the best member. Members that cannot be told apart get equal
    weights, and a member that is clearly best gets nearly all. Out-of-fold predictions of a donor have the weights from
    the other donors.

    Without a reference, the members are Ridge and SimpleDNN. Beside a reference, the network is left out to save time if
    the ridge regression, which learns from the same pairs alone, is significantly less accurate than CalibratedMAP
    (p < 0.05).

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`, with at least 4 paired donors. If no genes are selected, each member selects its
        default number of genes.

    Raises
    ------
    ValueError
        If ``train`` finds fewer than 4 paired donors.

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
    >>> round(float(model.state_.weights.sum()), 6)
    1.0
    """

    record = Method(
        key="ensemble",
        family="paired",
        needs=("pairs",),
        summary="weighted mean of calibrated_map, ridge and simplednn",
        reference="this library",
        stochastic=True,
        selects_genes=True,
        fewest_pairs=4,
    )
    state_type = WeightedEnsembleState

    @checked()
    def __init__(self, mdata: MuData | None = None) -> None:
        self.mdata = mdata
        self.parameters_ = {}

    @classmethod
    def tuning_space(cls) -> dict[str, Any]:
        """Return an empty search space: only the number of genes is tuned.

        Returns
        -------
        Empty dictionary.
        """
        return {}

    @classmethod
    @checked()
    def setup_mudata(cls, mdata: MuData) -> None:
        """Check that the data have what the members need. Nothing is written.

        Parameters
        ----------
        mdata
            From :func:`scdeconv.pp.pair`.

        Raises
        ------
        KeyError
            If there is no bulk.
        ValueError
            If the data were changed after pairing, if a bulk sample has no donor, or if donors or cell types have two
            spellings.
        """
        for member in (CalibratedMAP, Ridge) if keys.PROFILES in mdata.mod else (Ridge,):
            member.setup_mudata(mdata)

    @checked()
    def train(self, *, seed: int = 0) -> None:
        """Train the members and estimate their weights.

        Parameters
        ----------
        seed
            Random seed of the network.
        """
        mdata = require_data(self.mdata)
        n_donors = len(paired_donors(mdata))
        if n_donors < self.record.fewest_pairs:
            msg = (
                f"Expected at least {self.record.fewest_pairs} paired donors to estimate the weights of the members, found "
                f"{n_donors}. Use method='calibrated_map'."
            )
            raise ValueError(msg)
        methods = (CalibratedMAP, Ridge) if keys.PROFILES in mdata.mod else (Ridge,)
        pure = [method(_with_genes(mdata, method)) for method in methods]
        # once for all fits, because each search for the libraries of BLAS takes time
        with one_blas_thread():
            for member in pure:
                member.train()
        members: list[DeconvolutionModel] = [*pure]
        if len(members) == 1 or p_values(*_out_of_fold(members))[-1] >= SIGNIFICANT:
            members.append(_train_network(mdata, seed))
        self._combine(members, seed)

    def _combine(self, members: Sequence[DeconvolutionModel], seed: int) -> None:
        """Weigh trained members and store them, with the out-of-fold predictions of the weighted mean."""
        measured, predicted, donors = _out_of_fold(members)
        weights = weigh(measured, predicted, donors)
        held_out = HeldOut(measured, weighted_out_of_fold(measured, predicted, donors), donors)
        shown = ", ".join(f"{member.method} {weight:.2f}" for member, weight in zip(members, weights, strict=True))
        # the first member has the most genes: fewer genes are the first ones of the same order
        record = members[0].training_
        names = pd.Index(record.genes)
        genes = tuple(names.get_indexer(member.training_.genes) for member in members)
        summary = f"{len(np.unique(donors))} donors, {len(record.genes)} genes; weights {shown}; {held_out.describe()}"
        states = tuple(member.state_ for member in members)
        state = WeightedEnsembleState(members=states, genes=genes, weights=weights, summary=summary)
        interrupted = any(member.interrupted_ for member in members)
        self._store(state, replace(record, summary=summary, seed=seed, held_out=held_out, interrupted=interrupted))


def _with_genes(mdata: MuData, method: type[DeconvolutionModel]) -> MuData:
    """Return the data with the genes that are selected, by default those of the method; the data are not changed."""
    if keys.SELECTED in mdata[keys.BULK].var:
        return mdata
    work = with_copies(mdata, (keys.BULK,))
    select_genes(work, method.record.n_genes(work))
    return work


def _train_network(mdata: MuData, seed: int) -> DeconvolutionModel:
    """Return a trained SimpleDNN; its registration is written to a copy of the bulk."""
    # lazy import: it takes seconds
    from scdeconv.models.paired.simplednn import SimpleDNN

    work = with_copies(_with_genes(mdata, SimpleDNN), (keys.BULK,))
    SimpleDNN.setup_mudata(work)
    network = SimpleDNN(work)
    network.train(seed=seed)
    network.deregister_manager(network.adata)
    return network


def _out_of_fold(members: Sequence[DeconvolutionModel]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return measured fractions, predictions (members × samples × cell types) and donors of the held-out samples."""
    tables = [member.held_out_ for member in members]
    first = tables[0]
    if first is None or any(each is None or not np.array_equal(each.donors, first.donors) for each in tables):
        msg = "Expected the same held-out samples of all members of the ensemble, found different ones. Report this."
        raise RuntimeError(msg)
    return first.measured, np.stack([each.predicted for each in tables if each is not None]), first.donors
