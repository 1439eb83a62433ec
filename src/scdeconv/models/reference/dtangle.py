"""dtangle: proportions of RNA from the mean log expression of marker genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scdeconv._data import keys
from scdeconv._data.units import ARRAY
from scdeconv._stats.solvers.log_markers import (
    choose_markers,
    log2_cpm,
    mean_by_type,
    score_markers,
    solve_marker_logs,
)
from scdeconv.models._cross_fitted import CrossFittedModel
from scdeconv.models._record import Method
from scdeconv.models._signature_model import present_genes
from scdeconv.models._state import State

if TYPE_CHECKING:
    from collections.abc import Collection

    from scdeconv._data.paired_data import PairedData

# slope of measured log expression over log concentration, estimated by Hunt et al. 2019 from spike-in data
GAMMA_SEQUENCING, GAMMA_ARRAY = 0.9433902, 0.6999978


def reference_samples(data: PairedData, without: Collection[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Return the summed counts of each type in each donor, or the profiles without cells, and the code of their type."""
    if keys.SUMS not in data.mdata.mod:
        profiles = data.profiles(without)
        return profiles, np.arange(len(profiles))
    sums, _, n_cells = data.reference.by_donor(without)
    return sums[n_cells > 0], np.nonzero(n_cells)[1]


@dataclass(frozen=True, kw_only=True)
class MarkerState(State):
    """Mean log profiles and candidate marker genes.

    Parameters
    ----------
    profiles
        Mean log2(CPM + 1) over the reference samples of each type, cell types × genes.
    cell_type
        Code of the type with the highest expression of each gene; -1 without a unique one.
    score
        Expression of this type relative to the sum of the others, length genes.
    """

    profiles: np.ndarray
    cell_type: np.ndarray
    score: np.ndarray

    def on_markers(self, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return log2(CPM + 1) of the samples, profiles and markers (cell types × genes), over the markers only.

        The markers are chosen among the genes that the samples have.
        """
        present = present_genes(expression)
        markers = choose_markers(self.cell_type[present], self.score[present], len(self.profiles))
        used = markers.any(axis=0)
        return log2_cpm(expression[:, present])[:, used], self.profiles[:, present][:, used], markers[:, used]


@dataclass(frozen=True, kw_only=True)
class DtangleState(MarkerState):
    """Mean log profiles, candidate marker genes and slope ``gamma``."""

    gamma: float

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return proportions of RNA, samples × cell types."""
        return solve_marker_logs(*self.on_markers(expression), self.gamma)


def marker_fields(data: PairedData, without: Collection[str] = ()) -> dict[str, object]:
    """Return the fields of :class:`MarkerState` and the summary."""
    samples, types = reference_samples(data, without)
    logs, n_types = log2_cpm(samples), len(data.cell_types)
    cell_type, score = score_markers(logs, types, n_types)
    n_markers = choose_markers(cell_type, score, n_types).sum()
    return {
        "profiles": mean_by_type(logs, types, n_types),
        "cell_type": cell_type,
        "score": score,
        "summary": f"{len(logs)} reference samples of {n_types} types, {n_markers} markers of {len(data.genes)} genes",
    }


class Dtangle(CrossFittedModel):
    r"""Proportions of RNA from marker genes on the log scale (Hunt et al. 2019).

    The log2(CPM + 1) of a type is averaged over its reference samples, which are the summed cells of the type in each
    donor. A gene is a candidate of the type with the highest mean CPM. The markers :math:`M_k` of type k are the tenth of
    its candidates with the highest ratio to the sum of the other types. With bulk :math:`y` and profile :math:`z_k` on
    the log scale, the proportions are

    .. math:: p_k \propto 2^{\sum_{g \in M_k} (y_g - z_{kg}) / (\gamma |M_k|)}.

    The slope :math:`\gamma` is 0.943 for sequencing and 0.700 for microarrays. Needs no pairs.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, or all genes if none were selected.

    Notes
    -----
    The proportions are shares of RNA, because CPM remove the RNA content of the types. Without cells, each profile is one
    reference sample. A type without cells or without candidates gets proportion 0. Markers are chosen among the genes
    that the bulk has.

    On the data in ``tests/parity``, markers equal those of dtangle 2.0.9, and proportions agree within 1.2e-8, the
    rounding of the published slope.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.Dtangle.setup_mudata(mdata)
    >>> model = scdeconv.models.Dtangle(mdata)
    >>> model.train()
    >>> model.predict(mdata["bulk"]).shape
    (12, 7)
    """

    record = Method(
        key="dtangle",
        family="reference",
        needs=("profiles",),
        summary="mean log expression of marker genes",
        reference="Hunt et al. 2019",
        fraction_kind="rna",
        selects_genes=True,
    )
    state_type = DtangleState

    def fit(self, data: PairedData, without: Collection[str] = ()) -> DtangleState:
        """Compute mean log profiles and candidate marker genes.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        The learned state, a ``DtangleState``.
        """
        gamma = GAMMA_ARRAY if data.bulk_unit == ARRAY else GAMMA_SEQUENCING
        return DtangleState(**marker_fields(data, without), gamma=gamma)  # type: ignore[arg-type]
