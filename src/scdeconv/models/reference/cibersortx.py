"""CIBERSORTx: CIBERSORT with correction of the platform effect between bulk and reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp

from scdeconv._data import keys
from scdeconv._data.annotated import values_of
from scdeconv._data.checks import checked
from scdeconv._data.chunks import product
from scdeconv._stats.batch_correction import MILLION, correct_mixtures, correct_signature, draw_artificial_mixtures
from scdeconv._stats.compositions import to_fractions
from scdeconv._stats.expression import to_shares
from scdeconv.models._record import Method
from scdeconv.models.reference.cibersort import CIBERSORT, Absolute, CIBERSORTState

if TYPE_CHECKING:
    from collections.abc import Collection

    from mudata import MuData

    from scdeconv._data.paired_data import PairedData

Correction = Literal["B", "S"]
# cells in an artificial mixture of S-mode; set by hand
CELLS_PER_MIXTURE = 1000


@dataclass(frozen=True, kw_only=True)
class CIBERSORTxState(CIBERSORTState):
    """Signature in counts per million.

    Parameters
    ----------
    correct_mixtures
        Whether the mixtures are batch-corrected before they are solved (B-mode).
    """

    correct_mixtures: bool

    def regression(self, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the signature and the corrected bulk over the genes that the samples have."""
        signature, bulk = super().regression(expression)
        if self.correct_mixtures:
            bulk = correct_mixtures(bulk, to_fractions(self.solve(signature, bulk)) @ signature)
        return signature, bulk


class CIBERSORTx(CIBERSORT):
    """CIBERSORT with the batch corrections of Newman et al. 2019 (Nature Biotechnology 37:773), Methods.

    B-mode corrects the mixtures. A first estimate predicts the expression of each mixture on the platform of the
    reference. ComBat removes the batch effect between the mixtures and these predictions on log2(x + 1). The corrected
    mixtures are regressed on the signature again. B-mode corrects the samples that are predicted together, at least 3.
    Predictions therefore depend on the other samples, and there are no prediction intervals.

    S-mode corrects the signature in training. ComBat removes the batch effect between the training bulk and artificial
    mixtures of random cells. The profiles are estimated from the corrected mixtures. New samples are not corrected.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`; with cells for S-mode. The selected genes are used, or all genes if none were
        selected.
    batch_correction
        ``"B"``: for a reference of sorted bulk or full-length single cells. ``"S"``: for droplet-based cells. None: no
        correction.
    n_mixtures
        Number of artificial mixtures of S-mode; None: the number of training samples, and at least twice the number of
        cell types. ComBat corrects the smaller batch more, so the signature changes less with more mixtures.
    permutations, absolute, quantile_normalise, n_jobs, seed
        As for :class:`CIBERSORT`. The artificial mixtures of S-mode also depend on the seed.

    Notes
    -----
    The source code of CIBERSORTx is not public. The implementation follows the paper and the option lists. Differences:
    ComBat is applied to the model's genes only. In B-mode, each mixture is first scaled to the total of its estimate.
    The default of ``n_mixtures`` is set by hand. The high-resolution mode is not implemented. For the group mode, see
    :func:`scdeconv.tl.group_expression`.

    B-mode moves the mixtures half-way to the prediction of the first estimate. This reduces noise and outliers. It does
    not remove a platform effect that the first estimate explains by composition. S-mode assumes that bulk and reference
    have the same mean composition. It is biased if they differ.

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
    state_type: ClassVar[Any] = CIBERSORTxState

    @checked()
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
        super().__init__(
            mdata,
            permutations=permutations,
            absolute=absolute,
            quantile_normalise=quantile_normalise,
            n_jobs=n_jobs,
            seed=seed,
        )
        self.parameters_ |= {"batch_correction": batch_correction, "n_mixtures": n_mixtures}

    @checked()
    def train(self, *, held_out: bool = True) -> None:
        """Compute the signature from all donors. S-mode corrects it.

        Parameters
        ----------
        held_out
            As for :meth:`CIBERSORT.train`.

        Raises
        ------
        KeyError
            If ``mdata`` has no cells for S-mode.
        """
        mdata = self._require_data()
        if self.parameters_["batch_correction"] == "S" and keys.CELLS not in mdata.mod:
            msg = (
                f"Expected cells in mdata['{keys.CELLS}'] for batch_correction='S', found {sorted(mdata.mod)}. "
                "Create mdata with pp.pair(cells, bulk), or use batch_correction='B'."
            )
            raise KeyError(msg)
        super().train(held_out=held_out)

    def _depends_on_other_samples(self) -> bool:
        return super()._depends_on_other_samples() or self.parameters_["batch_correction"] == "B"

    def _settings(self) -> dict[str, object]:
        return {**super()._settings(), "correct_mixtures": self.parameters_["batch_correction"] == "B"}

    def signature(self, data: PairedData, without: Collection[str] = ()) -> np.ndarray:
        """Return the profiles, corrected in S-mode.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        Counts per million, cell types × genes.
        """
        if self.parameters_["batch_correction"] == "S":
            return self._corrected_signature(data, without)
        # log2(x + 1) of ComBat needs counts per million
        profiles, size = data.reference.profiles(without)
        return MILLION * profiles / np.maximum(size, np.finfo(float).tiny)[:, None]

    def _corrected_signature(self, data: PairedData, without: Collection[str]) -> np.ndarray:
        rng = np.random.default_rng(self.parameters_["seed"])
        bulk, cells, n_types = data.mdata[keys.BULK], data.mdata[keys.CELLS], len(data.cell_types)
        mixtures = MILLION * to_shares(values_of(bulk, data.kept(without)))[:, bulk.var_names.get_indexer(data.genes)]
        kept = np.flatnonzero(~cells.obs[keys.DONOR].isin(without))
        types = cells.obs[keys.CELL_TYPE].cat.set_categories(data.cell_types).cat.codes.to_numpy()[kept]
        n_mixtures = self.parameters_["n_mixtures"] or max(len(mixtures), 2 * n_types)
        fractions, weights = draw_artificial_mixtures(types, n_types, n_mixtures, CELLS_PER_MIXTURE, rng)
        # counts per million relative to all genes, before the selection of genes
        totals = np.maximum(cells.obs["total"].to_numpy(dtype=float), np.finfo(float).tiny)
        per_million = weights.data * MILLION / totals[kept[weights.indices]]
        weights = sp.csr_matrix((per_million, kept[weights.indices], weights.indptr), (n_mixtures, cells.n_obs))
        artificial = product(weights, cells.X)[0][:, cells.var_names.get_indexer(data.genes)]
        return correct_signature(mixtures, artificial, fractions)
