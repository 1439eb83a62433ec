"""MuSiC: least squares weighted by the inverse variance of genes between subjects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data.checks import checked
from scdeconv._stats.compositions import to_fractions
from scdeconv._stats.expression import to_shares
from scdeconv._stats.solvers.subject_weights import (
    SCALE,
    SubjectStatistics,
    WeightedFit,
    choose_markers,
    explained_variance,
    fit_weighted,
    subject_statistics,
    variance_of_fractions,
)
from scdeconv.models._cross_fitted import CrossFittedModel
from scdeconv.models._record import Method
from scdeconv.models._state import State
from scdeconv.models._usable import to_all_rows
from scdeconv.models.reference._arguments.music import check_arguments, given_markers, group_members

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData

    from scdeconv._data.paired_data import PairedData


@dataclass(frozen=True)
class Groups:
    """Groups of similar types: statistics, members (groups × cell types) and markers (groups × genes; both bool)."""

    statistics: SubjectStatistics
    members: np.ndarray
    markers: np.ndarray


@dataclass(frozen=True, kw_only=True)
class MuSiCState(State):
    """Statistics of cell types and groups over subjects, and arguments of :class:`MuSiC`."""

    types: SubjectStatistics
    groups: Groups | None
    weighted_residuals: bool
    consistent_units: bool

    def scaled(self, expression: np.ndarray) -> np.ndarray:
        """Return 100 times the share of each gene; 0 for genes missing in bulk or cells, which are not used."""
        expressed = self.types.mean.any(axis=0)
        return SCALE * to_shares(np.where(expressed & ~np.isnan(expression), expression, 0))

    def first_fit(self, bulk: np.ndarray) -> tuple[np.ndarray, SubjectStatistics, WeightedFit]:
        """Return bulk, statistics and fit of the types, or of the groups on genes outside their markers."""
        statistics = self.types
        if self.groups is not None:
            bulk, statistics = np.where(self.groups.markers.any(axis=0), 0, bulk), self.groups.statistics
        return bulk, statistics, self.iterate(bulk, statistics)

    def iterate(self, bulk: np.ndarray, statistics: SubjectStatistics) -> WeightedFit:
        """Return the weighted fit of scaled bulk."""
        return fit_weighted(bulk, statistics, weighted_residuals=self.weighted_residuals)

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return weights, samples × cell types."""
        bulk = self.scaled(expression)
        _, statistics, fit = self.first_fit(bulk)
        if self.groups is None:
            return fit.weights
        shares = to_shares(fit.weights)
        fractions = shares @ self.groups.members
        for group in np.flatnonzero(self.groups.members.sum(axis=1) > 1):
            types, genes = self.groups.members[group], self.groups.markers[group]
            here, design = bulk[:, genes], statistics.design[:, genes]
            if self.consistent_units:
                target = here - fit.weights @ design + fit.weights[:, [group]] * design[group]
            else:
                target = (SCALE * (design[group] - shares @ design) + here) * shares[:, [group]]
            inside = self.iterate(np.where(here > 0, target, 0), self.types.take(types, genes))
            fractions[:, types] *= to_fractions(inside.weights)
        return fractions

    def quality(self, expression: np.ndarray, fractions: np.ndarray) -> dict[str, np.ndarray]:
        """Return ``r_squared``, ``iterations`` and ``converged`` of the fit of each sample."""
        bulk, statistics, fit = self.first_fit(self.scaled(expression))
        return {
            "r_squared": explained_variance(bulk, statistics.design, fit),
            "iterations": fit.iterations,
            "converged": fit.converged,
        }


class MuSiC(CrossFittedModel):
    r"""Weighted non-negative least squares (Wang et al. 2019) with lower weights for genes that vary between subjects.

    :math:`\theta_{kg}` is the share of gene g in the cells of type k of one subject. The design D is its mean over
    subjects times the mean cell size :math:`S_k`; :math:`\sigma^2_{kg}` is its variance over subjects. Bulk b (100
    times the share of each gene) is fitted by :math:`D x` with weights

    .. math:: w_g = 1 / (10^{-4} + r_g^2 + \sum_k (x_k S_k)^2 \sigma^2_{kg}),

    The iteration starts at ordinary least squares and stops when the fractions change by less than 0.01 in sum. Genes
    with value 0 are not used for that sample. The fractions are cell fractions. Needs cells of at least 2 subjects
    (donors) for every type, and no pairs.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`, with cells. The selected genes are used, or all genes if none were selected.
    weighted_residuals
        True, as in the original: :math:`r_g` is the weighted residual of the previous iteration,
        :math:`\sqrt{w_g} (b - D x)_g`, which has no unit. False: :math:`(b - D x)_g`.
    covariance
        Use covariances between the types instead of variances only (``ct.cov`` of the original). As in the original,
        the covariance term of ordinary least squares is used in all iterations.
    cell_sizes
        RNA per cell of each type, in any unit. None: mean total counts per cell in the data.
    groups
        Group names and the similar types in each group. The groups are estimated first, on the genes outside
        ``group_markers``. Then the types of each group are estimated on its markers. A type in no group is its own
        group.
    group_markers
        Marker genes of the types within each group. None: the genes with the largest difference between a type and the
        other types of its group, divided by the standard deviation between subjects; 50 for each type, or fewer, so
        that half of all genes remain for the groups.
    consistent_units
        Target of the fit of the types of group j on its markers. False, as in the original: :math:`p_j (D_j + b - D p)`
        with b in shares and :math:`D p` in counts per cell, so that the bulk has little effect. True: the bulk minus
        the other groups, :math:`b - \sum_{i \ne j} x_i D_i`. Values of 0 and less are not used in both.

    Notes
    -----
    In cross-fitting, a type with fewer than 2 remaining subjects gets fraction 0, as in the original.

    The quality measures of a sample are ``r_squared`` (explained share of the variance over genes; may be negative),
    ``iterations`` and ``converged`` (within 1,000 iterations). With groups they describe the fit of the groups. Samples
    without expression of the model's genes have uniform fractions and the measures 0, 1 and True.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.MuSiC.setup_mudata(mdata)
    >>> model = scdeconv.models.MuSiC(mdata)
    >>> model.train()
    >>> list(model.quality(mdata["bulk"]))
    ['r_squared', 'iterations', 'converged', 'few_reads']
    >>> model.standard_error(mdata["bulk"]).shape
    (12, 7)
    """

    record = Method(
        key="music",
        family="reference",
        needs=("cells",),
        summary="NNLS weighted by the variance of genes between subjects",
        reference="Wang et al. 2019",
        selects_genes=True,
    )
    state_type = MuSiCState

    @checked()
    def __init__(
        self,
        mdata: MuData | None = None,
        *,
        weighted_residuals: bool = True,
        covariance: bool = False,
        cell_sizes: Mapping[str, float] | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        group_markers: Mapping[str, Sequence[str]] | None = None,
        consistent_units: bool = False,
    ) -> None:
        super().__init__(mdata)
        if group_markers is not None and groups is None:
            msg = (
                "Expected groups together with group_markers, found groups=None. Pass a dict of groups and their types."
            )
            raise ValueError(msg)
        self.parameters_ = {
            "weighted_residuals": weighted_residuals,
            "covariance": covariance,
            "cell_sizes": None if cell_sizes is None else {name: float(size) for name, size in cell_sizes.items()},
            "groups": None if groups is None else {name: list(types) for name, types in groups.items()},
            "group_markers": None if group_markers is None else {name: list(g) for name, g in group_markers.items()},
            "consistent_units": consistent_units,
        }

    @checked()
    def train(self, *, held_out: bool = True) -> None:
        """Fit the method to all donors.

        Parameters
        ----------
        held_out
            As for :meth:`scdeconv.models.CrossFittedModel.train`.

        Raises
        ------
        ValueError
            If a type has cells of fewer than 2 donors, or if ``cell_sizes``, ``groups`` or ``group_markers`` do not
            match the data.
        """
        mdata = self._require_data()
        self.setup_mudata(mdata)
        check_arguments(self.parameters_, mdata, self._input_genes())
        super().train(held_out=held_out)

    def fit(self, data: PairedData, without: Collection[str] = ()) -> MuSiCState:
        """Compute mean and variance over subjects of the profiles of types and groups.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        The learned state, a ``MuSiCState``.
        """
        parameters = self.parameters_
        sums, totals, n_cells = data.reference.by_donor(without)
        sizes = parameters["cell_sizes"]
        content = totals if sizes is None else n_cells * np.array([sizes[name] for name in data.cell_types])

        def statistics(members: np.ndarray) -> SubjectStatistics:
            size = (content @ members.T) / np.maximum(n_cells @ members.T, 1)
            return subject_statistics(members @ sums, totals @ members.T, size, covariance=parameters["covariance"])

        types, groups = statistics(np.eye(len(data.cell_types))), None
        summary = f"{len(sums)} subjects, {len(data.cell_types)} cell types, {len(data.genes)} genes"
        if parameters["groups"] is not None:
            members = group_members(parameters["groups"], data.cell_types)
            groups = Groups(statistics(members.astype(float)), members, self._markers(types, members, data))
            summary += f", {len(members)} groups"
        return MuSiCState(
            types=types,
            groups=groups,
            weighted_residuals=parameters["weighted_residuals"],
            consistent_units=parameters["consistent_units"],
            summary=summary,
        )

    def _markers(self, types: SubjectStatistics, members: np.ndarray, data: PairedData) -> np.ndarray:
        """Return the marker genes of the types within each group, groups × genes (bool)."""
        if self.parameters_["group_markers"] is not None:
            groups = self.parameters_["groups"]
            return given_markers(self.parameters_["group_markers"], groups, data.genes, len(members))
        variance = types.variance
        variance = variance if variance.ndim == 2 else np.diagonal(variance).T
        return choose_markers(types.mean, variance, members)

    @checked()
    def standard_error(self, adata: AnnData, *, layer: str | None = None) -> pd.DataFrame:
        r"""Return the standard errors of the fractions of bulk samples.

        .. math:: \sqrt{[(D^\top W D)^{-1}]_{kk} \; \mathrm{mean}_g(w_g r_g^2)} \; / \; \sum_j x_j,

        as ``Var.prop`` of the original. W are the weights of the last iteration, r = b - D x, and the mean is over the
        used genes. It is conditional on the design and the weights. It decreases with the number of genes and does not
        include errors of the reference, in contrast to :meth:`predict_interval`.

        Parameters
        ----------
        adata, layer
            As for :meth:`predict`.

        Returns
        -------
        Samples × cell types; infinite if not identifiable, NaN for samples without reads.

        Raises
        ------
        ValueError
            For a model with groups, because the formula does not apply to it.
        """
        self._require_trained()
        state = self.state_
        if state.groups is not None:
            msg = "Expected a model with groups=None, found groups. Use predict_interval, or train with groups=None."
            raise ValueError(msg)
        expression, usable = self._aligned(adata, layer)
        bulk, statistics, fit = state.first_fit(state.scaled(expression))
        variance = variance_of_fractions(bulk, statistics.design, fit)
        return pd.DataFrame(to_all_rows(np.sqrt(variance), usable), index=adata.obs_names, columns=self.cell_types_)
