"""BayesPrism by its fixed point: bulk counts as a multinomial mixture of the profiles of cell states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import wrightomega

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata, subset, values_of
from scdeconv._data.genes import is_ensembl
from scdeconv._data.matrix import Matrix, to_dense
from scdeconv._data.reference import membership, sum_pairs
from scdeconv._data.validation import examples
from scdeconv._stats.expression import to_shares
from scdeconv.models._base import LinearModel, normalise
from scdeconv.models._record import Method

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from anndata import AnnData
    from mudata import MuData

# share of a gene that no cell of a state expresses
FLOOR = 1e-8
# standard deviation of the log fold change between the reference and the bulk's profile
SIGMA = 2.0
# samples that go through the iterations together: their expression fits into the processor's cache
BLOCK = 64
# largest change of a weight at which further iterations cannot be told from rounding
TOLERANCE = 1e-12
# kinases of ribosomal protein S6 and the like are named after ribosomal proteins and are none
NOISY_GENES = (
    r"^(?:M?RP[LS](?!6K|19BP)(?:P?\d|A)|MT[-.]|MALAT1$|XIST$|TSIX$"
    r"|(?:RPS4Y[12]|DDX3Y|UTY|USP9Y|KDM5D|EIF1AY|ZFY|TMSB4Y|NLGN4Y|TXLNGY|PRKY|SRY|AMELY|PCDH11Y|BCORP1)$|TTTY\d)"
)


def is_noisy(symbols: pd.Index) -> np.ndarray:
    """Mark symbols of ribosomal, mitochondrial and sex-specific (XIST, TSIX, Y chromosome) genes, and MALAT1."""
    if is_ensembl(symbols):
        msg = (
            f"Expected gene symbols with drop_ribosomal=True, found Ensembl identifiers: {examples(symbols)}. "
            "Set var_names to symbols before pp.pair, or remove such genes yourself."
        )
        raise ValueError(msg)
    return np.asarray(symbols.str.match(f"(?i){NOISY_GENES}"), dtype=bool)


def is_outlier(bulk: np.ndarray, share: float, samples: float) -> np.ndarray:
    """Mark genes with more than ``share`` of the reads in more than ``samples`` (a share) of the bulk samples."""
    return (to_shares(bulk) > share).mean(axis=0) > samples


def sum_by_group(matrix: Matrix, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Add up the rows of each group, groups × columns."""
    return to_dense(membership(groups, n_groups) @ matrix)


def floor_profiles(profiles: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Divide profiles by their totals and give every gene at least the share ``FLOOR``.

    As in the original, only profiles with a gene at zero are lifted. A profile without any read stays zero. The profiles
    are types × genes, the totals their sums over all genes, also over those that are not among these.
    """
    shares = profiles / np.maximum(totals, np.finfo(float).tiny)[:, None]
    lifted = shares * (1 - FLOOR * shares.shape[1]) + FLOOR
    has_zero, empty = (shares == 0).any(axis=1, keepdims=True), ~shares.any(axis=1, keepdims=True)
    return np.where(has_zero & ~empty, lifted, shares)


def lift(profiles: np.ndarray, smallest: float | None = None) -> np.ndarray:
    """Let profiles sum to 1, then add the smallest positive share (theirs, or the one given) to every gene."""
    shares = to_shares(profiles)
    smallest = shares[shares > 0].min(initial=1.0) if smallest is None else smallest
    return np.where(shares.any(axis=1, keepdims=True), shares + smallest, 0.0)


def mix(weights: np.ndarray, profiles: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
    """Return the mixtures of profiles (types × genes) by weights (samples × types), samples × genes.

    Where one more type has a profile of its ``own`` in each sample (samples × genes), it is the weights' last column.
    """
    mixture = weights[:, : len(profiles)] @ profiles
    return mixture if own is None else mixture + weights[:, -1:] * own


def fixed_point(bulk: np.ndarray, profiles: np.ndarray, n_iterations: int, own: np.ndarray | None = None) -> np.ndarray:
    r"""Estimate the shares of reads by types, for all samples at once.

    Iterates :math:`\theta_k \leftarrow \sum_g X_g \phi_{kg} \theta_k / \sum_j \phi_{jg} \theta_j`, scaled to sum to 1,
    from equal shares. It climbs the multinomial likelihood (it is expectation maximisation); its fixed point stands for
    the posterior mean of BayesPrism's Gibbs sampler (Hu & Chikina 2024, doi:10.1093/bioinformatics/btae440).

    Parameters
    ----------
    bulk
        Samples × genes, counts.
    profiles, own
        As for :func:`mix`, positive; a type whose profile is zero gets nothing.
    n_iterations
        Number of iterations; samples that do not move any more are done earlier.

    Returns
    -------
    Weights, samples × types; rows sum to 1. A sample without reads has equal weights.
    """
    n_types = len(profiles) + (own is not None)
    weights = np.full((len(bulk), n_types), 1 / n_types)
    for start in range(0, len(bulk), BLOCK):
        rows = slice(start, start + BLOCK)
        of_block = None if own is None else own[rows]
        for _ in range(n_iterations):
            ratio = mix(weights[rows], profiles, of_block)
            np.divide(bulk[rows], ratio, out=ratio)
            factor = ratio @ profiles.T
            if of_block is not None:
                factor = np.column_stack([factor, np.einsum("ng,ng->n", ratio, of_block)])
            updated = normalise(weights[rows] * factor)
            change = np.abs(updated - weights[rows]).max()
            weights[rows] = updated
            if change < TOLERANCE:
                break
    return weights


def update_profiles(profiles: np.ndarray, reads: np.ndarray, sigma: float = SIGMA) -> np.ndarray:
    r"""Return the most probable profiles of the types in bulk, given the reads that come from each.

    Maximises :math:`\sum_g Z_g \log \psi_g - \sum_g \gamma_g^2 / 2 \sigma^2` with
    :math:`\psi_g \propto \phi_g e^{\gamma_g}` for each type (Chu et al. 2022, doi:10.1038/s43018-022-00356-3). The
    gradient is zero where :math:`\psi_g` is proportional to Wright's omega of
    :math:`\log(c \phi_g) + \sigma^2 Z_g`, with the one number c for which these sum to :math:`\sigma^2 \sum_g Z_g`;
    Newton's method finds it for all types at once.

    Parameters
    ----------
    profiles
        Types × genes, positive.
    reads
        Types × genes, counts. A type without reads keeps its profile.
    sigma
        Standard deviation of the log fold changes.

    Returns
    -------
    Profiles, types × genes; rows sum to 1.
    """
    updated = to_shares(profiles)
    found = reads.sum(axis=1) > 0
    counts = sigma**2 * reads[found]
    total = counts.sum(axis=1, keepdims=True)
    base = np.log(updated[found]) + counts
    # this is the solution where bulk and reference agree; convex in the level: converges from any start
    level = np.log(total)
    for _ in range(50):
        omega = wrightomega(base + level)
        step = (omega.sum(axis=1, keepdims=True) - total) / (omega / (1 + omega)).sum(axis=1, keepdims=True)
        level = level - step
        if (np.abs(step) < 1e-9).all():
            break
    updated[found] = to_shares(wrightomega(base + level))
    return updated


def check_states(mdata: MuData, key: str) -> None:
    """Refuse cell states that are missing or that lie in more than one cell type."""
    obs = mdata[keys.CELLS].obs if keys.CELLS in mdata.mod else pd.DataFrame()
    if key not in obs or obs[key].isna().any():
        found = f"{obs[key].isna().sum()} cells without" if key in obs else f"columns {list(obs)}"
        msg = f"Expected the state of every cell in mdata['sc'].obs[{key!r}], found {found}. Add it to the cells."
        raise ValueError(msg)
    n_types = obs.groupby(obs[key].astype(str))[keys.CELL_TYPE].nunique()
    shared = n_types.index[n_types > 1]
    if len(shared):
        msg = (
            f"Expected each cell state within one cell type, found {len(shared)} in several: {examples(shared)}. "
            "Name them by their type, such as 'T cycling' and 'B cycling'."
        )
        raise ValueError(msg)


class BayesPrism(LinearModel):
    """BayesPrism of Chu et al. 2022 by the fixed point of InstaPrism (Hu & Chikina 2024): seconds instead of hours.

    A bulk sample's reads are drawn from cell states by their shares of its RNA, and from genes by their shares of the
    state's RNA. The fractions are therefore shares of RNA (:func:`scdeconv.tl.convert_fractions` turns them into shares
    of cells), and the reads of each type come with them (:meth:`predict_expression`). Needs no pairs and, unless cell
    states are named, no cells. The bulk should be counts; depth matters to the update of the reference alone.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. Selected genes are used as they are; where none were selected, all genes are but
        those of the two filters below. Genes that the reference does not express are never used.
    n_iterations
        Iterations of the fixed point; by default the larger of 100 and twice the number of states, as in InstaPrism.
    update_reference
        Fit the profiles of the types to the bulk of the training data once, then estimate the fractions again, as
        BayesPrism does. InstaPrism's first estimate, which does not, is the default.
    malignant
        With ``update_reference``: a cell type whose profile is different in every sample.
    cell_state_key
        Column of ``mdata["sc"].obs`` with states within cell types; each has a profile of its own, and the states of a
        type are added up at the end.
    outlier_share, outlier_samples
        A gene with more than the first share of the reads in more than the second share of the training bulk is not
        used. ``outlier_share=1`` keeps all.
    drop_ribosomal
        Do not use genes with the symbols of ribosomal and mitochondrial genes, of MALAT1, and of XIST, TSIX and the Y
        chromosome. Advised by BayesPrism, where it is a step of its own that also drops all of the X chromosome.

    Raises
    ------
    ValueError
        Where arguments contradict each other or the data, or no gene is left.

    Notes
    -----
    A sample without reads of the model's genes gets equal fractions. Types with identical profiles share their weight.

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
        if n_iterations is not None and n_iterations < 1:
            msg = f"Expected n_iterations of at least 1, found {n_iterations}."
            raise ValueError(msg)
        if malignant is not None and not update_reference:
            msg = f"Expected update_reference=True with malignant={malignant!r}, found False. Only the update knows it."
            raise ValueError(msg)
        known = [malignant] if mdata is None else list(mdata[keys.PROFILES].obs[keys.CELL_TYPE])
        if malignant is not None and malignant not in known:
            msg = f"Expected malignant out of {known}, found {malignant!r}."
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
                f"Expected genes to use, found none of {len(genes)} that the reference expresses and no filter drops. "
                f"Raise outlier_share={chosen['outlier_share']:g}, or call pp.select_genes(mdata) first."
            )
            raise ValueError(msg)
        return genes[used]

    def _fit(self, without: Collection[str]) -> None:
        profiles, totals = self._reference.profiles(without)
        states, state_totals, self.types_ = profiles, totals, np.arange(len(profiles))
        if self.parameters_["cell_state_key"] is not None:
            states, state_totals, self.types_ = self._state_profiles(without)
        self.profiles_ = floor_profiles(states, state_totals)
        self.updated_ = None
        if self.parameters_["update_reference"]:
            samples = self._require_data()[keys.BULK]
            kept = ~samples.obs[keys.DONOR].isin(without).to_numpy()
            bulk, start = values_of(samples, kept, self.genes_), lift(self.profiles_)
            weights = fixed_point(bulk, start, self._n_iterations)
            reads = start * (weights.T @ (bulk / mix(weights, start)))
            reads = sum_by_group(reads, self.types_, len(profiles))
            self.updated_ = update_profiles(floor_profiles(profiles, totals), reads)
        of_states = f" ({len(self.profiles_)} cell states)" if len(self.profiles_) > len(profiles) else ""
        self.summary_ = f"{len(profiles)} profiles{of_states}, {len(self.genes_)} genes"

    def train(self, *, held_out: bool = True) -> None:
        """Learn from all donors; before, with ``held_out``, predict each fold of them by the rest, for intervals."""
        mdata, key = self._require_data(), self.parameters_["cell_state_key"]
        if key is not None:
            cells = mdata[keys.CELLS]
            state, names = pd.factorize(cells.obs[key].astype(str), sort=True)
            donor, donors = pd.factorize(cells.obs[keys.DONOR].astype(str))
            sums, (donor, group), member, _ = sum_pairs(cells.X, donor, state)
            obs = pd.DataFrame(
                {keys.DONOR: donors[donor], "state": group, "total": np.bincount(member, cells.obs["total"])}
            )
            self._states = make_adata(sums, obs=obs.set_index(obs.index.astype(str)), var=cells.var[[]].copy())
            self._types_of_states = np.empty(len(names), dtype=int)
            kind = pd.Index(mdata[keys.PROFILES].obs[keys.CELL_TYPE]).get_indexer(cells.obs[keys.CELL_TYPE].astype(str))
            self._types_of_states[state] = kind
        super().train(held_out=held_out)
        if key is not None:
            del self._states, self._types_of_states

    def _state_profiles(self, without: Collection[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return counts (states × genes) and total of each cell state, and the number of its type."""
        states = subset(self._states, ~self._states.obs[keys.DONOR].isin(without).to_numpy(), self.genes_)
        state, n_states = states.obs["state"].to_numpy(), len(self._types_of_states)
        totals = np.bincount(state, states.obs["total"], minlength=n_states)
        return sum_by_group(states.X, state, n_states), totals, self._types_of_states

    @property
    def _n_iterations(self) -> int:
        return self.parameters_["n_iterations"] or max(100, 2 * len(self.profiles_))

    def _decompose(
        self, bulk: np.ndarray, present: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
        """Return weights, profiles and own of bulk, samples × present genes, and the type of each column of weights."""
        start, malignant = lift(self.profiles_[:, present]), self.parameters_["malignant"]
        if self.updated_ is None:
            return fixed_point(bulk, start, self._n_iterations), start, None, self.types_
        updated, types = self.updated_[:, present], np.arange(len(self.cell_types_))
        if malignant is None:
            profiles = lift(updated)
            return fixed_point(bulk, profiles, self._n_iterations), profiles, None, types
        column = self.cell_types_.index(malignant)
        weights = fixed_point(bulk, start, self._n_iterations)
        reads = bulk / mix(weights, start) * mix(weights * (self.types_ == column), start)
        # a sample without reads has no profile of its own
        reads = np.where(reads.any(axis=1, keepdims=True), reads, updated[column])
        others = to_shares(np.delete(updated, column, axis=0))
        smallest = others[others > 0].min(initial=1.0)
        own, profiles = lift(floor_profiles(reads, reads.sum(axis=1)), smallest), lift(others, smallest)
        weights = fixed_point(bulk, profiles, self._n_iterations, own)
        return weights, profiles, own, np.append(np.delete(types, column), column)

    def _fractions(self, expression: np.ndarray) -> np.ndarray:
        present = ~np.isnan(expression).any(axis=0)
        bulk = expression[:, present]
        weights, _, _, types = self._decompose(bulk, present)
        fractions = sum_by_group(weights.T, types, len(self.cell_types_)).T
        return np.where(bulk.any(axis=1, keepdims=True), fractions, 0.0)

    def predict_expression(
        self, adata: AnnData, *, cell_types: Sequence[str] | None = None, layer: str | None = None
    ) -> Iterator[tuple[str, pd.DataFrame]]:
        r"""Estimate which reads of bulk samples come from which cell type.

        The expected reads are :math:`Z_{gk} = X_g \phi_{kg} \theta_k / \sum_j \phi_{jg} \theta_j`, in the fit that the
        fractions are from; over all types they sum to the bulk. A gene that is up in bulk is up by one factor in all
        types, so look at genes that the reference gives to one type; a ``malignant`` type is an exception.

        Parameters
        ----------
        adata, layer
            As for :meth:`predict`.
        cell_types
            Types to return; all by default.

        Returns
        -------
        Iterator over pairs of a cell type and a DataFrame samples × model genes, in the unit of ``adata``; NaN for
        genes that ``adata`` does not have. One type is in memory at a time; ``dict(...)`` collects them.

        Raises
        ------
        RuntimeError
            Before training.
        ValueError
            Where a cell type is unknown, and as in :meth:`predict`.
        """
        self._require_trained()
        wanted = self.cell_types_ if cell_types is None else list(cell_types)
        unknown = [name for name in wanted if name not in self.cell_types_]
        if unknown:
            msg = f"Expected cell types out of {self.cell_types_}, found {examples(unknown)}."
            raise ValueError(msg)
        return self._parts(self._aligned(adata, layer), wanted, adata.obs_names)

    def _parts(self, expression: np.ndarray, wanted: list[str], names: pd.Index) -> Iterator[tuple[str, pd.DataFrame]]:
        present = ~np.isnan(expression).any(axis=0)
        weights, profiles, own, types = self._decompose(expression[:, present], present)
        ratio = expression[:, present] / mix(weights, profiles, own)
        for name in wanted:
            reads = np.full_like(expression, np.nan)
            reads[:, present] = ratio * mix(weights * (types == self.cell_types_.index(name)), profiles, own)
            yield name, pd.DataFrame(reads, names, self.genes_)

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"profiles": self.profiles_, "types": self.types_}
        return arrays if self.updated_ is None else {**arrays, "updated": self.updated_}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.profiles_, self.types_, self.updated_ = arrays["profiles"], arrays["types"], arrays.get("updated")
