"""DWLS: dampened weighted least squares; hierarchical solution and unknown content as in Rectangle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scdeconv._data import keys
from scdeconv._data.checks import checked
from scdeconv._stats.expression import to_shares
from scdeconv._stats.least_squares import normal_equations
from scdeconv._stats.markers import GENES_PER_TYPE, best_per_type, marker_ratio
from scdeconv._stats.solvers.dampened_weights import solve_dwls
from scdeconv._stats.solvers.rectangle import (
    MISSING,
    calibrate_residual,
    check_unknown,
    cluster_means,
    cluster_profiles,
    merge_unmarked,
    residual_share,
    share_constraints,
    shrink,
    solve_in_cone,
)
from scdeconv.models._cross_fitted import input_genes
from scdeconv.models._record import Method
from scdeconv.models._signature_model import SignatureModel, describe, present_genes
from scdeconv.models._state import State

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd
    from mudata import MuData

    from scdeconv._data.paired_data import PairedData

# maximum difference between the share of a cluster and its coarse solution; set by hand
MAX_CLUSTER_DIFFERENCE = 0.05


def solve_hierarchical(
    profiles: np.ndarray, bulk: np.ndarray, members: np.ndarray, markers: np.ndarray, cluster_markers: np.ndarray
) -> np.ndarray:
    """Solve for clusters of cell types, then for the types, with each cluster within 0.05 of its share.

    Parameters
    ----------
    profiles
        Shares of a cell's RNA, cell types × genes. The profile of a cluster is the mean profile of its types.
    bulk
        Samples × genes.
    members
        Clusters × cell types, 1 for the members of a cluster.
    markers, cluster_markers
        Marker genes of types and of clusters.

    Returns
    -------
    Weights, samples × cell types, not normalised.
    """
    coarse, fine, sample = cluster_means(profiles, members), profiles[:, markers], bulk[:, markers]
    shares = to_shares(solve_dwls(coarse[:, cluster_markers], bulk[:, cluster_markers]))
    constraints = share_constraints(shares, members, MAX_CLUSTER_DIFFERENCE)

    def solve(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return solve_in_cone(*normal_equations(fine, sample[rows], weights), constraints[rows])

    return solve_dwls(fine, sample, solve)


@dataclass(frozen=True)
class UnknownContent:
    """Calibration curve from the residual to the share of unknown content.

    Parameters
    ----------
    merged
        Groups × cell types; types without own marker genes are merged into one group.
    curve
        Residual at each share of unknown content.
    """

    merged: np.ndarray
    curve: np.ndarray


@dataclass(frozen=True)
class Clusters:
    """Clusters of similar types.

    Parameters
    ----------
    members
        Clusters × cell types, 1 for the members of a cluster.
    markers
        Marker genes of the clusters (bool).
    """

    members: np.ndarray
    markers: np.ndarray


@dataclass(frozen=True, kw_only=True)
class DWLSState(State):
    """Signature, solved by :func:`scdeconv._stats.solvers.dampened_weights.solve_dwls`.

    Parameters
    ----------
    signature
        Cell types × genes.
    markers
        Genes of the least-squares problem (bool). ``unknown`` and ``clusters`` use all genes.
    unknown
        Calibration of the unknown content; None without ``unknown=True``.
    clusters
        Clusters of similar types; None without ``hierarchical=True``.
    """

    signature: np.ndarray
    markers: np.ndarray
    unknown: UnknownContent | None
    clusters: Clusters | None

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return weights, samples × cell types. With ``unknown``, the last column is the unknown content."""
        present = present_genes(expression)
        signature, bulk, markers = self.signature[:, present], expression[:, present], self.markers[present]
        size = np.maximum(signature.sum(axis=1), np.finfo(float).tiny)
        profiles = signature / size[:, None]
        if self.clusters is None:
            weights = solve_dwls(signature[:, markers], bulk[:, markers])
        else:
            groups = self.clusters.members, markers, self.clusters.markers[present]
            weights = solve_hierarchical(profiles, bulk, *groups) / size
        if self.unknown is None:
            return weights
        residual = shrink(*residual_share(profiles, bulk, to_shares(weights * size), self.unknown.merged))
        # samples without marker expression contain unknown types only
        missing = np.where(weights.any(axis=1), np.interp(residual, self.unknown.curve, MISSING), bulk.any(axis=1))
        return np.hstack([to_shares(weights) * (1 - missing[:, None]), missing[:, None]])


class DWLS(SignatureModel):
    r"""Dampened weighted least squares (Tsoucas et al. 2019), with two options from Rectangle.

    Weights of ``1 / fitted^2`` give relative errors, which improves the estimates of rare types and weakly expressed
    marker genes. An upper limit (dampening constant) of the weights is chosen for each sample such that the solutions
    of random halves of the genes agree. The profiles are mean counts per cell, so the fractions are cell fractions.
    Needs no pairs.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, or all genes if none were selected. ``unknown`` and
        ``hierarchical`` also use all genes.
    unknown
        Estimate the share of cell types that are missing in the reference, as a further column ``"Unknown"``. Unknown
        cells express common genes, but not the marker genes of the known types. The ratio of marker genes to other
        genes therefore decreases with the unknown content. The relation is calibrated by leaving out one type of the
        reference at a time. There are no prediction intervals with this option.
    hierarchical
        Cluster similar types and solve for the clusters on their own marker genes first, then for the types, with each
        cluster within 0.05 of its share of the RNA. For similar types with few marker genes.

    Raises
    ------
    ValueError
        With ``unknown``: if there are fewer than 3 types, if a type is named "Unknown", or if the reference has too few
        genes.

    Notes
    -----
    As in the R code, the halves are fitted without constraint and have fixed seeds. The solution is the running mean
    ``(new + 4 old) / 5`` over at most 1,000 iterations. Differences: the iteration stops when the solution changes by
    less than 0.01 % of its sum (original: 0.01 in the unit of the data, which depends on the library size). The
    dampening constant is at most :math:`2^{39}`, as in Rectangle. The selected genes are used instead of the genes of
    MAST. A sample without expression gets equal fractions. Types with identical profiles get equal fractions.

    The original uses 100 random halves of the genes. Its dampening constant depends on the seed, because the variances
    of several constants are almost equal. Here the number of halves is doubled, up to 6,400, for constants with
    indistinguishable variances. On the data in ``tests/parity``, fractions of different seeds then differ by up to 0.012
    (signature of 96 genes) and 0.007 (all 500 genes). With the dampening constants of the original, fractions agree to
    2.5e-4, and to 5e-10 with its stopping rule.

    The unknown content of Rectangle is one minus the sum of the weights, which is constrained to at most one. Between
    platforms the sum differs from one even if no type is missing, and the constraint biases the fractions of the known
    types. Here medians over genes replace the sum, the known types keep their ratios, and an
    estimate within one standard error of zero is set to zero. Small shares are therefore not found with few marker
    genes or a large platform effect. The estimate is an RNA fraction. Its conversion to a cell fraction assumes that
    unknown cells have the mean RNA content of the sample. A platform effect on marker genes only biases the unknown
    content. Cells that resemble a known type are assigned to that type, and are not found.

    Rectangle uses its second step only for types with fewer than 20 marker genes. Here it is used for all types.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.DWLS.setup_mudata(mdata)
    >>> model = scdeconv.models.DWLS(mdata, unknown=True)
    >>> model.train()
    >>> model.predict(mdata["bulk"]).columns[-1]
    'Unknown'
    """

    record = Method(
        key="dwls",
        family="reference",
        needs=("profiles",),
        summary="dampened weighted least squares",
        reference="Tsoucas et al. 2019; options after Rectangle",
    )
    state_type = DWLSState

    @checked()
    def __init__(self, mdata: MuData | None = None, *, unknown: bool = False, hierarchical: bool = False) -> None:
        super().__init__(mdata)
        self.parameters_ = {"unknown": unknown, "hierarchical": hierarchical}

    @checked()
    def train(self, *, held_out: bool = True) -> None:
        """Compute the signature from all donors.

        Parameters
        ----------
        held_out
            As for :meth:`scdeconv.models.CrossFittedModel.train`. No donors are held out with ``unknown``, because the
            measured fractions have no column for it.
        """
        super().train(held_out=held_out and not self.parameters_["unknown"])

    def _input_genes(self) -> pd.Index:
        whole = self.parameters_["unknown"] or self.parameters_["hierarchical"]
        return self._require_data()[keys.BULK].var.index if whole else super()._input_genes()

    def _output_types(self, data: PairedData) -> list[str]:
        return [*data.cell_types, keys.UNKNOWN] if self.parameters_["unknown"] else data.cell_types

    def fit(self, data: PairedData, without: Collection[str] = ()) -> DWLSState:
        """Compute the signature and, depending on the options, clusters and the calibration of unknown content.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        The learned state, a ``DWLSState``.
        """
        signature, summary = self.signature(data, without), describe(data)
        markers = data.genes.isin(input_genes(data.mdata))
        profiles = to_shares(signature)
        unknown = clusters = None
        if self.parameters_["unknown"]:
            if keys.UNKNOWN in data.cell_types:
                msg = (
                    f"Expected no cell type named {keys.UNKNOWN!r} with unknown=True, found one. Rename it or drop its "
                    "cells."
                )
                raise ValueError(msg)
            check_unknown(profiles)
            merged = merge_unmarked(profiles)
            unknown = UnknownContent(merged=merged, curve=calibrate_residual(cluster_means(profiles, merged)))
        if self.parameters_["hierarchical"]:
            members = cluster_profiles(profiles[:, markers])
            ratio = marker_ratio(cluster_means(profiles, members))
            clusters = Clusters(members=members, markers=best_per_type(*ratio, GENES_PER_TYPE * len(members)))
            summary += f", {len(members)} clusters"
        return DWLSState(signature=signature, markers=markers, unknown=unknown, clusters=clusters, summary=summary)
