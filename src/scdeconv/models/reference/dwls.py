"""DWLS: least squares on relative errors, as far as that is stable; clusters and unknown content as in Rectangle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from scdeconv._data import keys
from scdeconv._stats.expression import to_shares
from scdeconv._stats.least_squares import normal_equations, solve_least_squares, solve_weighted
from scdeconv._stats.markers import GENES_PER_TYPE, best_per_type, marker_ratio
from scdeconv._stats.rectangle import (
    MISSING,
    UNKNOWN,
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
from scdeconv.models._record import Method
from scdeconv.models._signature_model import SignatureModel

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    import pandas as pd
    from mudata import MuData

# a weight is at most 2^0, 2^1, ... times the smallest; the last one as in Rectangle, beyond all that data support
MOST_CAPS = 40
# random halves of the genes: the first number, then doubled while several caps are left. Over 10 seeds, fractions on
# tests/data/parity_small differed by up to 0.151 (all genes) and 0.037 (signature) with 100 halves, 0.083 and 0.033 with
# 1,000; with up to 6,400 by 0.0065 and 0.0115, in 2.3 and 1.0 times the time of 100
FEWEST_HALVES, MOST_HALVES = 100, 6400
# a cap is dropped if its variance is larger than the smallest by this many standard errors of their paired difference
MAX_Z = 3.0
# caps whose fractions differ by less are not compared further
SAME_FRACTIONS = 0.002
# values of the indicator of halves that are multiplied at once
HALVES_VALUES = 2**21
# share of the new solution in the running mean
STEP = 1 / 5
# change of the solution (sum of absolute differences) that ends the iteration, in percent of its sum
TOLERANCE = 0.01
MAX_ITERATIONS = 1000
# how far the share of a cluster may be from the coarse solution
CLUSTER_SLACK = 0.05


def relative_weights(signature: np.ndarray, solution: np.ndarray) -> np.ndarray:
    """Return ``1 / fitted^2`` over the smallest of each sample (samples × genes), infinite where nothing is fitted."""
    fitted = solution @ signature
    with np.errstate(divide="ignore"):
        return (fitted.max(axis=1, keepdims=True, initial=0) / fitted) ** 2


class Halves:
    """Random halves of the genes in batches; iterations share the halves, which are drawn when first needed.

    Parameters
    ----------
    n_genes
        Number of genes.
    seed
        Of the random generator.
    """

    def __init__(self, n_genes: int, seed: int) -> None:
        self._n_genes, self._rng = n_genes, np.random.default_rng(seed)
        self._batches: list[np.ndarray] = []

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield halves × genes (bool), 100 at first, then as many as all before."""
        position = n_halves = 0
        while n_halves < MOST_HALVES:
            if position == len(self._batches):
                self._batches.append(self._draw(min(n_halves or FEWEST_HALVES, MOST_HALVES - n_halves)))
            yield self._batches[position]
            n_halves += len(self._batches[position])
            position += 1

    def _draw(self, n_halves: int) -> np.ndarray:
        halves = np.zeros((n_halves, self._n_genes), dtype=bool)
        for half in halves:
            half[self._rng.permutation(self._n_genes)[: self._n_genes // 2]] = True
        return halves


def solve_halves(signature: np.ndarray, sample: np.ndarray, weights: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """Solve one sample by weighted least squares (of either sign) on each half of the genes.

    Parameters
    ----------
    signature
        Cell types × genes.
    sample, weights
        Length genes.
    halves
        Halves × genes (bool).

    Returns
    -------
    Solutions divided by their sums, halves × cell types; not finite where a sum is zero.
    """
    n_types, n_genes = signature.shape
    rows, columns = np.triu_indices(n_types)
    products = np.vstack([signature[rows] * signature[columns] * weights, signature * (weights * sample)]).T
    size = max(1, HALVES_VALUES // n_genes)
    sums = np.vstack([halves[i : i + size].astype(float) @ products for i in range(0, len(halves), size)])
    gram = np.empty((len(halves), n_types, n_types))
    gram[:, rows, columns] = gram[:, columns, rows] = sums[:, : len(rows)]
    solutions = solve_least_squares(gram, sums[:, len(rows) :])
    with np.errstate(divide="ignore", invalid="ignore"):
        return solutions / solutions.sum(axis=1, keepdims=True)


def choose_cap(signature: np.ndarray, sample: np.ndarray, weights: np.ndarray, halves: Halves) -> int:
    """Return the power of 2 that caps the weights of one sample, as in :func:`choose_caps`.

    Parameters
    ----------
    signature
        Cell types × genes.
    sample, weights
        Length genes; the smallest weight is 1, weights may be infinite.
    halves
        Of the genes.
    """
    largest = weights[np.isfinite(weights)].max(initial=1)
    n_caps = int(np.clip(np.ceil(np.log2(largest)), 1, MOST_CAPS))
    solutions: dict[int, list[np.ndarray]] = {power: [] for power in range(n_caps)}
    every_gene = np.ones((1, len(sample)), dtype=bool)
    fractions = [solve_halves(signature, sample, np.minimum(weights, 2.0**power), every_gene) for power in solutions]
    best = 0
    for batch in halves:
        if np.ptp([fractions[power] for power in solutions], axis=0).max() < SAME_FRACTIONS:
            break
        deviations = {}
        for power, found in solutions.items():
            found.append(solve_halves(signature, sample, np.minimum(weights, 2.0**power), batch))
            together = np.concatenate(found)
            # mean over cell types; its mean over halves is the variance
            deviations[power] = ((together - together.mean(axis=0)) ** 2).mean(axis=1)
        usable = {power: values for power, values in deviations.items() if np.isfinite(values).all()}
        if not usable:
            break
        best = min(usable, key=lambda power: usable[power].mean())
        differences = {power: values - usable[best] for power, values in usable.items()}
        solutions = {
            power: solutions[power]
            for power, values in differences.items()
            if values.mean() <= MAX_Z * values.std(ddof=1) / np.sqrt(len(values))
        }
    return best


def choose_caps(signature: np.ndarray, bulk: np.ndarray, start: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Choose how far the weights of genes may differ: so far that solutions from halves of the genes vary least.

    Each sample is solved by weighted least squares (of either sign) on random halves of the genes, with weights of up to
    1, 2, 4, ... times the smallest. Solutions are divided by their sums. The cap is taken whose variance between halves is
    smallest, on average over cell types. All caps are compared on 100 halves. Caps that are worse than the best by 3
    standard errors of the paired difference are dropped and the number of halves is doubled, until the fractions of the
    caps that are left differ by less than 0.002 or 6,400 halves are used.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk
        Samples × genes.
    start
        Solutions that give the weights, samples × cell types; none is all zero.
    seed
        Of the halves, which are the same for all samples and caps.

    Returns
    -------
    Largest weight over the smallest, length samples.
    """
    halves, weights = Halves(signature.shape[1], seed), relative_weights(signature, start)
    # threads of BLAS cost more than they save on products this small
    with threadpool_limits(1, "blas"):
        powers = [choose_cap(signature, *pair, halves) for pair in zip(bulk, weights, strict=True)]
    return 2.0 ** np.array(powers, dtype=int)


def solve_dwls(
    signature: np.ndarray,
    bulk: np.ndarray,
    solve: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Solve by dampened weighted least squares (Tsoucas et al. 2019).

    A gene fitted as m has the weight ``1 / m^2``, capped as :func:`choose_caps` finds. Weights and solution are found
    in turn, the solution as a running mean, ``(new + 4 old) / 5``.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk
        Samples × genes.
    solve
        Solves samples (their positions) with weights (samples × genes); ``x >= 0`` is the only constraint by default.

    Returns
    -------
    Weights, samples × cell types, not normalised.
    """
    if solve is None:

        def solve(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
            return solve_weighted(signature, bulk[rows], weights)

    solution = solve(np.arange(len(bulk)), np.ones_like(bulk))
    active = np.flatnonzero((solution @ signature).any(axis=1))
    caps = choose_caps(signature, bulk[active], solution[active])[:, None]
    unit = solution[active].sum(axis=1) / 100
    for _ in range(MAX_ITERATIONS):
        if not len(active):
            break
        old = solution[active]
        new = solve(active, np.minimum(relative_weights(signature, old), caps))
        solution[active] = old + STEP * (new - old)
        moving = STEP * np.abs(new - old).sum(axis=1) > TOLERANCE * unit
        active, caps, unit = active[moving], caps[moving], unit[moving]
    return solution


def solve_hierarchical(
    profiles: np.ndarray, bulk: np.ndarray, members: np.ndarray, markers: np.ndarray, cluster_markers: np.ndarray
) -> np.ndarray:
    """Solve for clusters of cell types first, then for the types, each cluster within 0.05 of its share.

    Parameters
    ----------
    profiles
        Shares of a cell's RNA, cell types × genes. The profile of a cluster is the mean of its types'.
    bulk
        Samples × genes.
    members
        Clusters × cell types, 1 for the members of a cluster.
    markers, cluster_markers
        Genes that tell types and clusters apart.

    Returns
    -------
    Weights, samples × cell types, not normalised.
    """
    coarse, fine, sample = cluster_means(profiles, members), profiles[:, markers], bulk[:, markers]
    shares = to_shares(solve_dwls(coarse[:, cluster_markers], bulk[:, cluster_markers]))
    constraints = share_constraints(shares, members, CLUSTER_SLACK)

    def solve(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return solve_in_cone(*normal_equations(fine, sample[rows], weights), constraints[rows])

    return solve_dwls(fine, sample, solve)


class DWLS(SignatureModel):
    r"""Dampened weighted least squares (Tsoucas et al. 2019), with the two ideas of Rectangle as options.

    Weights of ``1 / fitted^2`` make all genes count by their relative errors, so that rare types and faint markers are
    seen; how far the weights may differ is chosen sample by sample, so that halves of the genes agree. The profiles are
    mean counts per cell, so the fractions are shares of cells. Needs no pairs.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, all where none are selected. Both options read all
        genes beside them.
    unknown
        Estimate what share of each sample is of types that the reference lacks, as a further column ``"Unknown"``. Such
        cells add to the genes that all cells express, not to the markers of the types that are known: the more there
        are, the further markers fall behind the other genes. By how much is learned from the reference, whose types are
        left out one by one. There are no intervals then.
    hierarchical
        Cluster similar types, solve for the clusters on markers of their own first, then for the types, each cluster
        within 0.05 of its share of the RNA. For types so similar that they have few markers each.

    Raises
    ------
    ValueError
        With ``unknown``, where there are fewer than 3 types or one is called "Unknown", or the reference has too few
        genes.

    Notes
    -----
    As in the R code the halves are fitted without constraint and have fixed seeds, and the solution is a running mean,
    ``(new + 4 old) / 5``, over at most 1,000 rounds. Departures: rounds end when the solution changes by 0.01 % of its
    sum, where the original has 0.01 in the unit of the data, so that depth does not matter; the cap of the weights is
    at most :math:`2^{39}`, as in Rectangle; genes are those selected, not MAST's. A sample without any expression gets
    equal fractions; types with identical profiles share their weight.

    The original uses 100 random halves of the genes. The cap then depends on the seed, because the variances of several
    caps are almost equal. On the data in ``tests/parity``, fractions of 10 seeds differ by up to 0.037 (signature of 96
    genes) and 0.151 (all 500 genes). Here the number of halves is doubled, up to 6,400, for the caps that cannot be told
    apart. Fractions of 20 seeds then differ by up to 0.012 and 0.007 on these data. On three public data sets, fractions
    of 10 seeds differ by up to 0.050 in single samples, instead of 0.206, and by at most 0.007 on average over samples.

    With the dampening constants of the original given, fractions agree with it to 2.5e-4, and to 5e-10 with its stopping
    rule.

    Rectangle's unknown content is one minus a sum of weights that may be at most one. Between platforms that sum is far
    from one (0.95 to 1.7 in two public data sets of blood), and the constraint would distort the fractions of the known
    types. Here medians over genes stand for sums, the known types keep their ratios, and what lies within a standard
    error of nothing is nothing (few markers, or platforms that differ much, hide small shares). The estimate is a share
    of RNA; that the fractions are shares of cells assumes that unknown cells hold as much RNA as the others of the
    sample. A shift between platforms that concerns markers alone hides or feigns unknown content, and cells that
    resemble a known type are counted as that type: in blood, T cells that were left out of the reference were found
    (half of the RNA), monocytes (a third of it) were not.

    Rectangle keeps its second step for types with fewer than 20 markers; here it is used for all.

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

    def __init__(self, mdata: MuData | None = None, *, unknown: bool = False, hierarchical: bool = False) -> None:
        super().__init__(mdata)
        self.unknown, self.hierarchical = unknown, hierarchical
        self.parameters_ = {"unknown": unknown, "hierarchical": hierarchical}

    def train(self, *, held_out: bool = True) -> None:
        """Take the profiles of all donors; before, with ``held_out``, predict each fold of them by the rest.

        Donors are not held out with ``unknown``, since their measured fractions have no such column.
        """
        super().train(held_out=held_out and not self.unknown)
        if self.unknown:
            self.cell_types_ = [*self.cell_types_, UNKNOWN]

    def _input_genes(self) -> pd.Index:
        whole = self.unknown or self.hierarchical
        return self._require_data()[keys.BULK].var.index if whole else super()._input_genes()

    def _fit(self, without: Collection[str]) -> None:
        super()._fit(without)
        self.markers_ = self.genes_.isin(super()._input_genes())
        profiles = to_shares(self.signature_)
        if self.unknown:
            check_unknown(profiles, self.cell_types_)
            self.merged_ = merge_unmarked(profiles)
            self.curve_ = calibrate_residual(cluster_means(profiles, self.merged_))
        if self.hierarchical:
            self.members_ = cluster_profiles(profiles[:, self.markers_])
            ratio = marker_ratio(cluster_means(profiles, self.members_))
            self.cluster_markers_ = best_per_type(*ratio, GENES_PER_TYPE * len(self.members_))
            self.summary_ += f", {len(self.members_)} clusters"

    def _fractions(self, expression: np.ndarray) -> np.ndarray:
        present = ~np.isnan(expression).any(axis=0)
        signature, bulk, markers = self.signature_[:, present], expression[:, present], self.markers_[present]
        size = np.maximum(signature.sum(axis=1), np.finfo(float).tiny)
        profiles = signature / size[:, None]
        if self.hierarchical:
            groups = self.members_, markers, self.cluster_markers_[present]
            weights = solve_hierarchical(profiles, bulk, *groups) / size
        else:
            weights = self._solve(signature[:, markers], bulk[:, markers])
        if not self.unknown:
            return weights
        residual = shrink(*residual_share(profiles, bulk, to_shares(weights * size), self.merged_))
        # bulk without any marker is of no known type
        missing = np.where(weights.any(axis=1), np.interp(residual, self.curve_, MISSING), bulk.any(axis=1))[:, None]
        return np.hstack([to_shares(weights) * (1 - missing), missing])

    def _solve(self, signature: np.ndarray, bulk: np.ndarray) -> np.ndarray:
        return solve_dwls(signature, bulk)

    def _arrays(self) -> dict[str, np.ndarray]:
        names = ["markers"]
        names += ["merged", "curve"] if self.unknown else []
        names += ["members", "cluster_markers"] if self.hierarchical else []
        return super()._arrays() | {name: getattr(self, f"{name}_") for name in names}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            setattr(self, f"{name}_", array)
