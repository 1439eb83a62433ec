"""MuSiC: least squares weighted by how little a gene varies between subjects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.reference import count_cells
from scdeconv._stats.expression import to_shares
from scdeconv._stats.least_squares import RIDGE, solve_weighted, weighted_gram
from scdeconv.models._base import LinearModel, _take, normalise
from scdeconv.models._record import Method
from scdeconv.models.reference._music_reference import (
    SubjectStatistics,
    check_sizes,
    check_subjects,
    choose_markers,
    given_markers,
    group_members,
    subject_statistics,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData

# the original's nu, eps, iter.max, and the sum of a bulk sample
REGULARISATION = 1e-4
TOLERANCE = 0.01
MAX_ITERATIONS = 1000
SCALE = 100.0


@dataclass(frozen=True)
class WeightedFit:
    """Solutions of :func:`fit_weighted`.

    Parameters
    ----------
    weights
        Amounts of the cell types, samples × cell types, not normalised.
    gene_weights
        Weights of the genes in the last round, samples × genes; 0: not used.
    iterations
        Rounds until the fractions changed by less than 0.01 in sum, length samples; 1000 where they never did.
    converged
        Length samples.
    """

    weights: np.ndarray
    gene_weights: np.ndarray
    iterations: np.ndarray
    converged: np.ndarray


def fit_weighted(bulk: np.ndarray, statistics: SubjectStatistics, *, weighted_residuals: bool = True) -> WeightedFit:
    """Iterate between gene weights and least squares, all samples at once (Wang et al. 2019, Methods).

    ``w_g = 1 / (1e-4 + r_g^2 + sum_k (x_k S_k)^2 sigma2_kg)``, from plain least squares onwards. A sample that has
    converged takes no part in further rounds.

    Parameters
    ----------
    bulk
        Samples × genes, 100 times the share of each gene; a gene of a sample is used where it is positive.
    statistics
        Of the cell types and the same genes.
    weighted_residuals
        Take ``r`` of the last weighted problem, as the original does, instead of ``b - D x``.
    """
    design, n_samples = statistics.design, len(bulk)
    weights = solve_weighted(design, bulk, (bulk > 0).astype(float))
    gene_weights = np.zeros_like(bulk)
    iterations, converged = np.full(n_samples, MAX_ITERATIONS), np.zeros(n_samples, dtype=bool)
    active, sample = np.arange(n_samples), bulk
    residual, variance = bulk - weights @ design, statistics.variance_of_bulk(weights)
    fractions = np.full_like(weights, np.inf)
    for iteration in range(MAX_ITERATIONS + 1):
        current = (sample > 0) / (REGULARISATION + residual**2 + variance)
        solution = solve_weighted(design, sample, current)
        weights[active], gene_weights[active] = solution, current
        done = np.abs(to_shares(solution) - fractions).sum(axis=1) < TOLERANCE
        iterations[active[done]], converged[active[done]] = iteration, True
        active, sample, current, solution = (part[~done] for part in (active, sample, current, solution))
        if not len(active):
            break
        fractions = to_shares(solution)
        residual = sample - solution @ design
        if weighted_residuals:
            residual *= np.sqrt(current)
        # with covariances the original stays with those of plain least squares
        variance = statistics.variance_of_bulk(solution) if statistics.variance.ndim == 2 else variance[~done]
    return WeightedFit(weights, gene_weights, iterations, converged)


def explained_variance(bulk: np.ndarray, design: np.ndarray, fit: WeightedFit) -> np.ndarray:
    """Return ``1 - var(b - D x) / var(b)`` over the genes used of each sample; 0 where these do not vary."""
    used = fit.gene_weights > 0
    total, rest = (_variance(values, used) for values in (bulk, bulk - fit.weights @ design))
    return np.divide(total - rest, total, out=np.zeros_like(total), where=total > 0)


def _variance(values: np.ndarray, used: np.ndarray) -> np.ndarray:
    count = np.maximum(used.sum(axis=1, keepdims=True), 1)
    mean = (values * used).sum(axis=1, keepdims=True) / count
    return ((values - mean) ** 2 * used).sum(axis=1) / count[:, 0]


def variance_of_fractions(bulk: np.ndarray, design: np.ndarray, fit: WeightedFit) -> np.ndarray:
    """Return ``diag((D' W D)^-1) mean_g(w_g r_g^2) / (sum_k x_k)^2``, samples × cell types.

    The mean is over the genes used, ``r = b - D x``. Infinite for samples without any weight and for types that none of
    the genes used knows.
    """
    gram = weighted_gram(design, fit.gene_weights)
    scale = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    known = scale > 0
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=known)
    correlation = gram * inverse[:, :, None] * inverse[:, None, :] + RIDGE * np.eye(len(design))
    spread = np.diagonal(np.linalg.inv(correlation), axis1=1, axis2=2) * inverse**2
    residual = bulk - fit.weights @ design
    n_used = np.maximum((fit.gene_weights > 0).sum(axis=1), 1)
    noise = (fit.gene_weights * residual**2).sum(axis=1) / n_used
    total = fit.weights.sum(axis=1, keepdims=True)
    return np.divide(spread * noise[:, None], total**2, out=np.full_like(spread, np.inf), where=known & (total > 0))


class MuSiC(LinearModel):
    r"""Weighted non-negative least squares of Wang et al. 2019: genes that vary between subjects count less.

    Of each subject's cells of type k, :math:`\theta_{kg}` is the share of gene g; its mean over subjects times the mean
    cell size :math:`S_k` is the design D, its variance over subjects is :math:`\sigma^2_{kg}`. Bulk b, 100 times the share
    of each gene, is fitted by :math:`D x` with weights

    .. math:: w_g = 1 / (10^{-4} + r_g^2 + \sum_k (x_k S_k)^2 \sigma^2_{kg}),

    from plain least squares onwards until the fractions change by less than 0.01 in sum. Genes that are 0 in a sample are
    not used for it. A weight is a number of cells, so the fractions are shares of cells. Needs cells of at least 2 subjects
    (donors) of every type, and no pairs.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`, with cells. All genes are used, unless some were selected.
    weighted_residuals
        A quirk of the original: :math:`r_g` is the residual of the weighted problem of the round before,
        :math:`\sqrt{w_g} (b - D x)_g`, so it has no unit. False takes :math:`(b - D x)_g`.
    covariance
        Covariances of the types instead of variances alone (the original's ``ct.cov``). As in the original, the covariance
        term stays that of plain least squares in all rounds.
    cell_sizes
        RNA per cell of each type, in any unit, instead of the mean total per cell in the data.
    groups
        Names of groups and the similar types in them. The groups are estimated first, from the genes that are no markers
        within a group; then the types of each group, from its markers. A type in no group stands alone.
    group_markers
        For each group of several types, the genes that tell these apart. By default those with the largest difference
        between a type and the group's others, in units of the deviation between subjects: 50 for each type, or fewer, so
        that half of all genes are left for the groups.

    consistent_units
        What the types of group j are fitted to, on its markers. False, as in the original: :math:`p_j (D_j + b - D p)`
        with b in shares and :math:`D p` in counts per cell, so that the bulk hardly enters. True: what the other groups
        leave of the bulk, :math:`b - \sum_{i \ne j} x_i D_i`. Values of 0 and less are left out in both.

    Notes
    -----
    While donors are held out, a type of which fewer than 2 subjects are left is given nothing, as in the original.

    The quality of a sample is ``r_squared`` (share of the variance over genes that the fit explains; may be negative),
    ``iterations`` and ``converged`` (whether the fractions settled within 1,000 rounds); with groups, of their fit on the
    genes that are no markers. It is 0, 1 and True for a sample without any expression of the model's genes, whose fractions
    are uniform.

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
    ['r_squared', 'iterations', 'converged']
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
    modalities = (keys.BULK, keys.PROFILES, keys.SUMS)

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
            msg = "Expected groups beside group_markers, found None. Pass groups=, names and the types in them."
            raise ValueError(msg)
        self.parameters_ = {
            "weighted_residuals": weighted_residuals,
            "covariance": covariance,
            "cell_sizes": None if cell_sizes is None else {name: float(size) for name, size in cell_sizes.items()},
            "groups": None if groups is None else {name: list(types) for name, types in groups.items()},
            "group_markers": None if group_markers is None else {name: list(g) for name, g in group_markers.items()},
            "consistent_units": consistent_units,
        }
        self.groups_: SubjectStatistics | None = None

    def train(self, *, held_out: bool = True) -> None:
        """Learn from all donors; before, with ``held_out``, predict each fold of them by the rest, for intervals.

        Raises
        ------
        ValueError
            Where a type has cells of fewer than 2 donors, or sizes, groups or markers do not fit the data.
        """
        self._check()
        super().train(held_out=held_out)

    def _check(self) -> None:
        mdata = self._require_data()
        self.setup_mudata(mdata)
        cell_types = list(mdata[keys.PROFILES].obs[keys.CELL_TYPE])
        sums = mdata[keys.SUMS]
        there = count_cells(sums, sorted(sums.obs[keys.DONOR].astype(str).unique()), cell_types) > 0
        sizes, groups, markers = (self.parameters_[name] for name in ("cell_sizes", "groups", "group_markers"))
        check_subjects(there, covariance=self.parameters_["covariance"])
        if sizes is not None:
            check_sizes(sizes, cell_types)
        if groups is not None:
            members = group_members(groups, cell_types)
            if markers is not None:
                given_markers(markers, groups, self._input_genes(), len(members))

    def _fit(self, without: Collection[str]) -> None:
        parameters = self.parameters_
        sums, totals, n_cells = self._reference.by_donor(without)
        sizes = parameters["cell_sizes"]
        # total of the cells that a type's size stands for
        content = totals if sizes is None else n_cells * np.array([sizes[name] for name in self.cell_types_])

        def statistics(members: np.ndarray) -> SubjectStatistics:
            size = (content @ members.T) / np.maximum(n_cells @ members.T, 1)
            return subject_statistics(members @ sums, totals @ members.T, size, covariance=parameters["covariance"])

        self.types_ = statistics(np.eye(len(self.cell_types_)))
        self.summary_ = f"{len(sums)} subjects, {len(self.cell_types_)} cell types, {len(self.genes_)} genes"
        groups, markers = parameters["groups"], parameters["group_markers"]
        if groups is None:
            return
        self.members_ = group_members(groups, self.cell_types_)
        self.groups_ = statistics(self.members_.astype(float))
        if markers is None:
            variance = self.types_.variance
            variance = variance if variance.ndim == 2 else np.diagonal(variance).T
            self.markers_ = choose_markers(self.types_.mean, variance, self.members_)
        else:
            self.markers_ = given_markers(markers, groups, self.genes_, len(self.members_))
        self.summary_ += f", {len(self.members_)} groups"

    def _bulk(self, expression: np.ndarray) -> np.ndarray:
        """Return 100 times the share of each gene that bulk and cells have, 0 for the others, which are not used."""
        expressed = self.types_.mean.any(axis=0)
        return SCALE * to_shares(np.where(expressed & ~np.isnan(expression), expression, 0))

    def _first_fit(self, bulk: np.ndarray) -> tuple[np.ndarray, SubjectStatistics, WeightedFit]:
        """Fit the types, or the groups on genes that are no markers; return the bulk and statistics used, too."""
        statistics = self.types_
        if self.groups_ is not None:
            bulk, statistics = np.where(self.markers_.any(axis=0), 0, bulk), self.groups_
        return bulk, statistics, self._iterate(bulk, statistics)

    def _iterate(self, bulk: np.ndarray, statistics: SubjectStatistics) -> WeightedFit:
        return fit_weighted(bulk, statistics, weighted_residuals=self.parameters_["weighted_residuals"])

    def _fractions(self, expression: np.ndarray) -> np.ndarray:
        bulk = self._bulk(expression)
        _, statistics, fit = self._first_fit(bulk)
        if self.groups_ is None:
            return fit.weights
        shares = to_shares(fit.weights)
        fractions = shares @ self.members_
        for group in np.flatnonzero(self.members_.sum(axis=1) > 1):
            types, genes = self.members_[group], self.markers_[group]
            here, design = bulk[:, genes], statistics.design[:, genes]
            if self.parameters_["consistent_units"]:
                target = here - fit.weights @ design + fit.weights[:, [group]] * design[group]
            else:
                target = (SCALE * (design[group] - shares @ design) + here) * shares[:, [group]]
            inside = self._iterate(np.where(here > 0, target, 0), self.types_.take(types, genes))
            fractions[:, types] *= normalise(inside.weights)
        return fractions

    def _quality(self, expression: np.ndarray, fractions: pd.DataFrame, noise: np.ndarray | None) -> pd.DataFrame:
        bulk, statistics, fit = self._first_fit(self._bulk(expression))
        columns = {
            "r_squared": explained_variance(bulk, statistics.design, fit),
            "iterations": fit.iterations,
            "converged": fit.converged,
        }
        return pd.DataFrame(columns, index=fractions.index)

    def standard_error(self, adata: AnnData, *, layer: str | None = None) -> pd.DataFrame:
        r"""Return the standard errors of the fractions of bulk samples.

        .. math:: \sqrt{[(D^\top W D)^{-1}]_{kk} \; \mathrm{mean}_g(w_g r_g^2)} \; / \; \sum_j x_j,

        as the original's ``Var.prop``: W are the weights of the last round, r = b - D x, and the mean is over the genes
        used. It is the noise of genes given the design and the weights, so it is small where there are many genes, and
        says nothing about a reference that does not fit; :meth:`predict_interval` does.

        Parameters
        ----------
        adata, layer
            As for :meth:`predict`.

        Returns
        -------
        Samples × cell types; infinite where nothing is known, such as for samples without expression.

        Raises
        ------
        ValueError
            For a model with groups, for which there is no such formula.
        """
        if self.groups_ is not None:
            msg = "Expected a model without groups, found groups. Use predict_interval, or a model without groups."
            raise ValueError(msg)
        bulk, statistics, fit = self._first_fit(self._bulk(self._aligned(adata, layer)))
        variance = variance_of_fractions(bulk, statistics.design, fit)
        return pd.DataFrame(np.sqrt(variance), index=adata.obs_names, columns=self.cell_types_)

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {f"types.{name}": array for name, array in vars(self.types_).items()}
        if self.groups_ is not None:
            arrays |= {f"groups.{name}": array for name, array in vars(self.groups_).items()}
            arrays |= {"members": self.members_, "markers": self.markers_}
        return arrays

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.types_ = SubjectStatistics(**_take(arrays, "types."))
        if arrays:
            self.groups_ = SubjectStatistics(**_take(arrays, "groups."))
            self.members_, self.markers_ = arrays["members"], arrays["markers"]
