"""CIBERSORTx: CIBERSORT after a correction for the platforms of bulk and reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import scipy.sparse as sp

from scdeconv._data import keys
from scdeconv._data.annotated import values_of
from scdeconv._data.chunks import product
from scdeconv._stats.batch_correction import MILLION, correct_mixtures, correct_signature, draw_artificial_mixtures
from scdeconv._stats.expression import to_shares
from scdeconv.models._base import normalise
from scdeconv.models._record import Method
from scdeconv.models.reference.cibersort import CIBERSORT, Absolute

if TYPE_CHECKING:
    from collections.abc import Collection

    from mudata import MuData

Correction = Literal["B", "S"]
CELLS_PER_MIXTURE = 1000


class CIBERSORTx(CIBERSORT):
    """CIBERSORT with the batch corrections of Newman et al. 2019 (Nature Biotechnology 37:773), Methods.

    B-mode corrects the mixtures: a first estimate predicts what each would be on the platform of the reference, ComBat
    brings the two together on log2(x + 1), and the corrected mixtures are regressed on the signature again. It corrects
    the samples that are predicted together, at least 3 of them, so an estimate depends on the others, and there are no
    intervals.

    S-mode corrects the signature when it is trained: mixtures of random cells are brought together with the training bulk
    by ComBat, and the profiles are solved from them. Samples to predict are taken as they are.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`; with cells for S-mode. The selected genes are used, all where none are selected.
    batch_correction
        ``"B"``, for a reference of sorted bulk or of full-length single cells; ``"S"``, for droplets; None.
    n_mixtures
        Artificial mixtures of S-mode; as many as there are training samples by default, at least twice the number of cell
        types. ComBat moves the smaller batch more: the more there are, the less the signature changes.
    permutations, absolute, quantile_normalise, n_jobs, seed
        As for :class:`CIBERSORT`. S-mode draws its mixtures with the seed as well.

    Notes
    -----
    The source of CIBERSORTx is closed; this follows the paper and the option lists. Departures: ComBat sees the model's
    genes only, where each mixture is first brought to the total of its estimate (B-mode), and the number of artificial
    mixtures is ours. The high-resolution mode is not offered, the group mode is :func:`scdeconv.tl.group_expression`.

    B-mode moves the mixtures half of the way to what the first estimate predicts. That damps noise and outlying genes; a
    shift that the first estimate has taken for composition stays. S-mode learns the shift instead from the assumption
    that bulk and reference have about the same mean composition, and errs where they do not.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.CIBERSORTx.setup_mudata(mdata)
    >>> model = scdeconv.models.CIBERSORTx(mdata, batch_correction="S")
    >>> model.train()
    >>> model.predict(mdata["bulk"]).shape
    (12, 7)
    """

    record = Method(
        key="cibersortx",
        family="reference",
        needs=("profiles",),
        summary="CIBERSORT with batch correction of bulk or signature",
        reference="Newman et al. 2019",
        fraction_kind="rna",
        stochastic=True,
    )

    def __init__(
        self,
        mdata: MuData | None = None,
        *,
        batch_correction: Correction | None = None,
        n_mixtures: int | None = None,
        permutations: int = 0,
        absolute: Absolute | None = None,
        quantile_normalise: bool = False,
        n_jobs: int = 1,
        seed: int = 0,
    ) -> None:
        if batch_correction not in (None, *get_args(Correction)):
            msg = f"Expected batch_correction to be None or one of {get_args(Correction)}, found {batch_correction!r}."
            raise ValueError(msg)
        if n_mixtures is not None and n_mixtures < 1:
            msg = f"Expected n_mixtures of at least 1, found {n_mixtures}."
            raise ValueError(msg)
        super().__init__(
            mdata,
            permutations=permutations,
            absolute=absolute,
            quantile_normalise=quantile_normalise,
            n_jobs=n_jobs,
            seed=seed,
        )
        self.parameters_ |= {"batch_correction": batch_correction, "n_mixtures": n_mixtures}

    def train(self, *, held_out: bool = True) -> None:
        """Take the profiles of all donors, corrected in S-mode; ``held_out`` as for the other linear methods."""
        mdata = self._require_data()
        if self.parameters_["batch_correction"] == "S" and keys.CELLS not in mdata.mod:
            msg = (
                f"Expected cells in mdata['{keys.CELLS}'] for batch_correction='S', found {sorted(mdata.mod)}. Make the "
                "data with pp.pair(cells, bulk), or use batch_correction='B'."
            )
            raise KeyError(msg)
        super().train(held_out=held_out)

    def _depends_on_other_samples(self) -> bool:
        return super()._depends_on_other_samples() or self.parameters_["batch_correction"] == "B"

    def _fit(self, without: Collection[str]) -> None:
        super()._fit(without)
        # log2(x + 1) means something in counts per million only
        profiles, size = self._reference.profiles(without)
        self.signature_ = MILLION * profiles / np.maximum(size, np.finfo(float).tiny)[:, None]
        if self.parameters_["batch_correction"] == "S":
            self.signature_ = self._corrected_signature(without)

    def _corrected_signature(self, without: Collection[str]) -> np.ndarray:
        mdata, rng = self._require_data(), np.random.default_rng(self.parameters_["seed"])
        bulk = mdata[keys.BULK]
        kept_samples = ~bulk.obs[keys.DONOR].isin(without).to_numpy()
        mixtures = MILLION * to_shares(values_of(bulk, kept_samples))[:, bulk.var_names.get_indexer(self.genes_)]
        cells, n_types = mdata[keys.CELLS], len(self.cell_types_)
        kept = np.flatnonzero(~cells.obs[keys.DONOR].isin(without))
        types = cells.obs[keys.CELL_TYPE].cat.set_categories(self.cell_types_).cat.codes.to_numpy()[kept]
        n_mixtures = self.parameters_["n_mixtures"] or max(len(mixtures), 2 * n_types)
        fractions, weights = draw_artificial_mixtures(types, n_types, n_mixtures, CELLS_PER_MIXTURE, rng)
        # mean counts per million of the cells drawn, out of all cells
        totals = np.maximum(cells.obs["total"].to_numpy(dtype=float), np.finfo(float).tiny)
        per_million = weights.data * MILLION / totals[kept[weights.indices]]
        weights = sp.csr_matrix((per_million, kept[weights.indices], weights.indptr), (n_mixtures, cells.n_obs))
        artificial = product(weights, cells.X)[0][:, cells.var_names.get_indexer(self.genes_)]
        return correct_signature(mixtures, artificial, fractions)

    def _regression(self, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        signature, bulk = super()._regression(expression)
        if self.parameters_["batch_correction"] == "B":
            bulk = correct_mixtures(bulk, normalise(self._solve(signature, bulk)) @ signature)
        return signature, bulk
