"""CIBERSORT: support-vector regression of bulk on cell-type profiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from scdeconv._data.checks import checked
from scdeconv._data.matrix import get_matrix, to_dense
from scdeconv._data.progress import progress
from scdeconv._data.units import ARRAY, to_linear
from scdeconv._stats.compositions import to_fractions
from scdeconv._stats.expression import quantile_normalise
from scdeconv._stats.solvers.support_vectors import (
    draw_null_mixtures,
    goodness_of_fit,
    p_values,
    solve_nu_svr,
    standardise,
)
from scdeconv.models._record import Method
from scdeconv.models._signature_model import SignatureModel, SignatureState, present_genes
from scdeconv.models._usable import to_all_rows

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

Absolute = Literal["sig.score", "no.sumto1"]


def solve_cibersort(signature: np.ndarray, bulk: np.ndarray, *, n_jobs: int = 1) -> np.ndarray:
    """Solve each sample with :func:`solve_nu_svr`.

    Parameters
    ----------
    signature
        Cell types × genes, linear. It is standardised by its overall mean and standard deviation.
    bulk
        Samples × genes, linear. Each sample is standardised by its own mean and standard deviation.
    n_jobs
        Number of threads (libsvm releases the GIL); -1: one per core.

    Returns
    -------
    Weights, samples × cell types, not normalised.
    """
    profiles, samples = standardise(signature), standardise(bulk, axis=1)
    weights = np.zeros((len(bulk), len(signature)))
    tasks = (delayed(solve_nu_svr)(profiles, sample) for sample in samples)
    with progress(len(bulk), "support-vector regression") as bar:
        for row, solution in enumerate(Parallel(n_jobs, prefer="threads", return_as="generator")(tasks)):
            weights[row] = solution
            bar.update()
    return weights


@dataclass(frozen=True, kw_only=True)
class CIBERSORTState(SignatureState):
    """Signature, solved by support-vector regression.

    Parameters
    ----------
    permutations
        Number of random mixtures for the p-values.
    n_jobs
        Number of threads.
    seed
        Seed of the random mixtures.
    """

    permutations: int
    n_jobs: int
    seed: int

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return weights, samples × cell types."""
        return self.solve(*self.regression(expression))

    def regression(self, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the signature and the bulk over the genes that the samples have."""
        present = present_genes(expression)
        return self.signature[:, present], expression[:, present]

    def solve(self, signature: np.ndarray, bulk: np.ndarray) -> np.ndarray:
        """Return weights, samples × cell types."""
        return solve_cibersort(signature, bulk, n_jobs=self.n_jobs)

    def quality(self, expression: np.ndarray, fractions: np.ndarray) -> dict[str, np.ndarray]:
        """Return ``p_value`` (NaN without permutations), ``correlation`` and ``rmse`` of the fit of each sample."""
        signature, bulk = self.regression(expression)
        profiles = standardise(signature)
        correlation, rmse = goodness_of_fit(profiles, standardise(bulk, axis=1), fractions)
        p_value = np.full(len(bulk), np.nan)
        if self.permutations:
            mixtures = draw_null_mixtures(bulk, self.permutations, np.random.default_rng(self.seed))
            weights = to_fractions(self.solve(signature, mixtures))
            p_value = p_values(correlation, goodness_of_fit(profiles, standardise(mixtures, axis=1), weights)[0])
        return {"p_value": p_value, "correlation": correlation, "rmse": rmse}


class CIBERSORT(SignatureModel):
    """Linear nu-support-vector regression on the profiles (Newman et al. 2015, Nature Methods 12:453).

    The profiles are shares of a cell's RNA, so the fractions are RNA fractions. The signature is the reference over the
    selected genes. Signature and samples are standardised. Each sample is regressed on the profiles with nu of 0.25,
    0.5 and 0.75. Negative weights are set to zero and the weights are divided by their sum. The nu with the lowest
    error is used. Needs no pairs.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, or all genes if none were selected.
    permutations
        Number of random mixtures for the p-values of :meth:`quality`; the original recommends at least 100. The run
        time of a permutation is that of a sample.
    absolute
        Type of the scores of :meth:`absolute_scores`: ``"sig.score"`` or ``"no.sumto1"``.
    quantile_normalise
        Quantile-normalise the samples that are predicted together. The original does this by default and advises
        against it for RNA-seq. Predictions then depend on the other samples, so there are no prediction intervals.
    n_jobs
        Number of threads; -1: one per core. The result does not depend on it.
    seed
        Seed of the random mixtures. The fractions do not depend on it.

    Notes
    -----
    The quality measures of a sample are ``p_value`` (share of random mixtures with a better fit; NaN without
    permutations, where the original returns 9999), ``correlation`` and ``rmse`` between the standardised sample and the
    fit. Differences from the R script (version 1.04): the R script exponentiates mixtures with a maximum below 50,
    because it assumes log2 values. The library refuses log-transformed input instead. The genes keep the order of the
    data instead of alphabetical order. This changes results only within the solver's tolerance of 1e-3.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.CIBERSORT.setup_mudata(mdata)
    >>> model = scdeconv.models.CIBERSORT(mdata, permutations=10, absolute="sig.score")
    >>> model.train()
    >>> list(model.quality(mdata["bulk"]))
    ['p_value', 'correlation', 'rmse', 'few_reads']
    >>> model.absolute_scores(mdata["bulk"]).shape
    (12, 7)
    """

    record = Method(
        key="cibersort",
        family="reference",
        needs=("profiles",),
        summary="nu support vector regression on a signature",
        reference="Newman et al. 2015",
        fraction_kind="rna",
        stochastic=True,
    )
    state_type: ClassVar[Any] = CIBERSORTState

    @checked()
    def __init__(
        self,
        mdata: MuData | None = None,
        *,
        permutations: int = 0,
        absolute: Absolute | None = None,
        quantile_normalise: bool = False,
        n_jobs: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(mdata)
        self.parameters_ = {
            "permutations": permutations,
            "absolute": absolute,
            "quantile_normalise": quantile_normalise,
            "n_jobs": n_jobs,
            "seed": seed,
        }

    @checked()
    def train(self, *, held_out: bool = True) -> None:
        """Compute the signature from all donors.

        Parameters
        ----------
        held_out
            As for :meth:`scdeconv.models.CrossFittedModel.train`. No donors are held out if predictions depend on the
            other samples.
        """
        super().train(held_out=held_out and not self._depends_on_other_samples())

    def _depends_on_other_samples(self) -> bool:
        return bool(self.parameters_["quantile_normalise"])

    def _settings(self) -> dict[str, object]:
        return {name: self.parameters_[name] for name in ("permutations", "n_jobs", "seed")}

    def _aligned(self, adata: AnnData, layer: str | None) -> tuple[np.ndarray, np.ndarray]:
        values, usable = super()._aligned(adata, layer)
        if not self.parameters_["quantile_normalise"] or not usable.any():
            return values, usable
        return quantile_normalise(values, self._all_genes(adata, layer)[usable]), usable

    def _all_genes(self, adata: AnnData, layer: str | None) -> np.ndarray:
        matrix = get_matrix(adata, layer, "adata")
        return to_dense(to_linear(matrix) if self.training_.bulk_unit == ARRAY else matrix)

    @checked()
    def absolute_scores(self, adata: AnnData, *, layer: str | None = None) -> pd.DataFrame:
        """Return scores of the absolute amount of each cell type, comparable between samples and between cell types.

        Parameters
        ----------
        adata, layer
            As for :meth:`predict`. ``"sig.score"`` needs all genes, not only the genes of the model.

        Returns
        -------
        Scores, samples × cell types. ``"sig.score"``: fractions times the ratio of the sample's median over the model's
        genes to the median over all genes and samples (at least 1). ``"no.sumto1"``: weights without division by their
        sum.

        Raises
        ------
        ValueError
            If the model was created with ``absolute=None``, and as for :meth:`predict`.
        RuntimeError
            If the model is not trained.
        """
        kind = self.parameters_["absolute"]
        if kind is None:
            msg = (
                "Expected absolute='sig.score' or 'no.sumto1', found None. Create the model with absolute='sig.score'."
            )
            raise ValueError(msg)
        expression, usable = self._aligned(adata, layer)
        if not usable.any():
            return pd.DataFrame(np.nan, index=adata.obs_names, columns=self.cell_types_)
        scores = self.state_.predict(expression)
        if kind == "sig.score":
            everything = self._all_genes(adata, layer)[usable]
            if self.parameters_["quantile_normalise"]:
                everything = quantile_normalise(everything, everything)
            level = np.nanmedian(expression, axis=1, keepdims=True) / max(np.median(everything), 1)
            scores = to_fractions(scores) * level
        return pd.DataFrame(to_all_rows(scores, usable), index=adata.obs_names, columns=self.cell_types_)
