"""BayesPrism by fixed-point iteration: bulk counts are a multinomial mixture of cell-state profiles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scdeconv._data import keys
from scdeconv._data.annotated import values_of
from scdeconv._data.checks import checked
from scdeconv._data.matrix import Matrix, to_dense
from scdeconv._data.reference import membership
from scdeconv._stats.expression import to_shares
from scdeconv._stats.solvers.read_mixtures import fixed_point, floor_profiles, is_outlier, lift, mix, update_profiles
from scdeconv.models._cross_fitted import CrossFittedModel
from scdeconv.models._record import Method
from scdeconv.models._signature_model import present_genes
from scdeconv.models._state import State
from scdeconv.models.reference._arguments.bayesprism import check_states, is_noisy

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import pandas as pd
    from mudata import MuData

    from scdeconv._data.paired_data import PairedData


def sum_by_group(matrix: Matrix, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Return the sum of the rows of each group, groups × columns."""
    return to_dense(membership(groups, n_groups) @ matrix)


@dataclass(frozen=True, kw_only=True)
class BayesPrismState(State):
    """Profiles of cell states, and profiles of cell types updated by the bulk.

    Parameters
    ----------
    profiles
        Shares of RNA, states × genes.
    types
        Index of the cell type of each state.
    n_types
        Number of cell types.
    updated
        Profiles of the cell types after the update by the bulk, types × genes; None without update.
    malignant
        Index of the cell type with a sample-specific profile; None if there is none.
    n_iterations
        Number of fixed-point iterations.
    """

    profiles: np.ndarray
    types: np.ndarray
    n_types: int
    updated: np.ndarray | None
    malignant: int | None
    n_iterations: int

    def decompose(
        self, bulk: np.ndarray, present: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
        """Return weights, profiles, sample-specific profiles, and the cell type of each column of the weights."""
        start, column = lift(self.profiles[:, present]), self.malignant
        if self.updated is None:
            return fixed_point(bulk, start, self.n_iterations), start, None, self.types
        updated, types = self.updated[:, present], np.arange(len(self.updated))
        if column is None:
            profiles = lift(updated)
            return fixed_point(bulk, profiles, self.n_iterations), profiles, None, types
        weights = fixed_point(bulk, start, self.n_iterations)
        reads = bulk / mix(weights, start) * mix(weights * (self.types == column), start)
        # samples without reads use the common profile
        reads = np.where(reads.any(axis=1, keepdims=True), reads, updated[column])
        others = to_shares(np.delete(updated, column, axis=0))
        smallest = others[others > 0].min(initial=1.0)
        own, profiles = lift(floor_profiles(reads, reads.sum(axis=1)), smallest), lift(others, smallest)
        weights = fixed_point(bulk, profiles, self.n_iterations, own)
        return weights, profiles, own, np.append(np.delete(types, column), column)

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return RNA fractions, samples × cell types; zeros for samples without reads."""
        present = present_genes(expression)
        bulk = expression[:, present]
        weights, _, _, types = self.decompose(bulk, present)
        fractions = sum_by_group(weights.T, types, self.n_types).T
        return np.where(bulk.any(axis=1, keepdims=True), fractions, 0.0)

    def contributions(self, expression: np.ndarray, cell_types: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield the expected reads of each cell type, samples × genes."""
        present = present_genes(expression)
        weights, profiles, own, types = self.decompose(expression[:, present], present)
        ratio = expression[:, present] / mix(weights, profiles, own)
        for cell_type in cell_types:
            reads = np.full_like(expression, np.nan)
            reads[:, present] = ratio * mix(weights * (types == cell_type), profiles, own)
            yield reads


class BayesPrism(CrossFittedModel):
    r"""BayesPrism (Chu et al. 2022) by the fixed-point iteration of InstaPrism (Hu & Chikina 2024).

    The reads of a bulk sample are a multinomial mixture. The mixture weights are the RNA fractions of the cell states.
    The probability of a gene within a state is its share of the state's RNA. The fractions are therefore RNA fractions;
    :func:`scdeconv.tl.convert_fractions` converts them to cell fractions. :meth:`predict_expression` returns the
    expected reads of each type. Needs no pairs. Needs cells only with ``cell_state_key``. The bulk should be counts.
    The library size of the bulk affects only ``update_reference``.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used. If none were selected, all genes that pass
        ``outlier_share`` and ``drop_ribosomal`` are used. Genes without expression in the reference are not used.
    n_iterations
        Number of fixed-point iterations; None: the larger of 100 and twice the number of states, as in InstaPrism.
    update_reference
        Update the profiles of the types by the training bulk once, then estimate the fractions again, as in BayesPrism.
        The default False is the first estimate, as in InstaPrism.
    malignant
        Cell type with a sample-specific profile. Needs ``update_reference=True``.
    cell_state_key
        Column of ``mdata["sc"].obs`` with states within cell types. Each state has its own profile. The fraction of a
        type is the sum over its states.
    outlier_share, outlier_samples
        A gene is not used if its share of the reads is above ``outlier_share`` in more than the share
        ``outlier_samples`` of the training bulk. ``outlier_share=1`` keeps all genes.
    drop_ribosomal
        Do not use ribosomal and mitochondrial genes, MALAT1, XIST, TSIX and genes of the Y chromosome, by symbol.
        BayesPrism recommends this in a separate step, which also drops the X chromosome.

    Raises
    ------
    ValueError
        If arguments contradict each other or the data, or if no gene passes the filters.

    Notes
    -----
    The expected reads of a type are :math:`Z_{gk} = X_g \phi_{kg} \theta_k / \sum_j \phi_{jg} \theta_j`, with the
    profiles and weights of the final fit. Their sum over types is the bulk. A higher expression of a gene in bulk scales all
    types by the same factor, so interpret marker genes of one type only. A ``malignant`` type is an exception.

    A sample without reads of the model's genes gets equal fractions. Types with identical profiles get equal fractions.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.BayesPrism.setup_mudata(mdata)
    >>> model = scdeconv.models.BayesPrism(mdata, outlier_share=1)
    >>> model.train()
    >>> reads = dict(model.predict_expression(mdata["bulk"]))
    >>> len(reads), reads["Macrophage"].shape
    (7, (12, 300))
    """

    record = Method(
        key="bayesprism",
        family="reference",
        needs=("profiles",),
        summary="fixed point of BayesPrism's first Gibbs sampler",
        reference="Chu et al. 2022; fixed point: Hu & Chikina 2024",
        fraction_kind="rna",
        selects_genes=True,
    )
    state_type = BayesPrismState

    @checked()
    def __init__(
        self,
        mdata: MuData | None = None,
        *,
        n_iterations: int | None = None,
        update_reference: bool = False,
        malignant: str | None = None,
        cell_state_key: str | None = None,
        outlier_share: float = 0.01,
        outlier_samples: float = 0.1,
        drop_ribosomal: bool = False,
    ) -> None:
        super().__init__(mdata)
        self.parameters_: dict[str, Any] = {
            "n_iterations": n_iterations,
            "update_reference": update_reference,
            "malignant": malignant,
            "cell_state_key": cell_state_key,
            "outlier_share": outlier_share,
            "outlier_samples": outlier_samples,
            "drop_ribosomal": drop_ribosomal,
        }
        if malignant is not None and not update_reference:
            msg = (
                f"Expected update_reference=True with malignant={malignant!r}, found False. Set update_reference=True."
            )
            raise ValueError(msg)
        known = [malignant] if mdata is None else list(mdata[keys.PROFILES].obs[keys.CELL_TYPE])
        if malignant is not None and malignant not in known:
            msg = f"Expected malignant to be one of {known}, found {malignant!r}. Use the name of a cell type."
            raise ValueError(msg)
        if mdata is not None and cell_state_key is not None:
            check_states(mdata, cell_state_key)

    def _input_genes(self) -> pd.Index:
        mdata, chosen = self._require_data(), self.parameters_
        genes = super()._input_genes()
        used = np.asarray(values_of(mdata[keys.PROFILES], genes=genes).any(axis=0))
        if keys.SELECTED not in mdata[keys.BULK].var:
            used &= ~is_outlier(values_of(mdata[keys.BULK]), chosen["outlier_share"], chosen["outlier_samples"])
            if chosen["drop_ribosomal"]:
                used &= ~is_noisy(genes)
        if not used.any():
            msg = (
                f"Expected genes that the reference expresses and that pass the filters, found none of {len(genes)}. "
                f"Raise outlier_share={chosen['outlier_share']:g}, or call pp.select_genes(mdata) first."
            )
            raise ValueError(msg)
        return genes[used]

    def fit(self, data: PairedData, without: Collection[str] = ()) -> BayesPrismState:
        """Compute the profiles of the types or states. With ``update_reference``, update them by the bulk.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        The learned state, a ``BayesPrismState``.
        """
        profiles, totals = data.reference.profiles(without)
        states, state_totals, types = profiles, totals, np.arange(len(profiles))
        if self.parameters_["cell_state_key"] is not None:
            states, state_totals, types = data.cell_states(self.parameters_["cell_state_key"], without)
        malignant = self.parameters_["malignant"]
        state = BayesPrismState(
            profiles=floor_profiles(states, state_totals),
            types=types,
            n_types=len(profiles),
            updated=None,
            malignant=None if malignant is None else data.cell_types.index(malignant),
            n_iterations=self.parameters_["n_iterations"] or max(100, 2 * len(states)),
        )
        of_states = f" ({len(states)} cell states)" if len(states) > len(profiles) else ""
        summary = f"{len(profiles)} profiles{of_states}, {len(data.genes)} genes"
        if not self.parameters_["update_reference"]:
            return replace(state, summary=summary)
        bulk, start = data.bulk(without), lift(state.profiles)
        weights = fixed_point(bulk, start, state.n_iterations)
        reads = sum_by_group(start * (weights.T @ (bulk / mix(weights, start))), types, len(profiles))
        return replace(state, updated=update_profiles(floor_profiles(profiles, totals), reads), summary=summary)
