"""CIBERSORT: support-vector regression of bulk on the cell types' profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.svm import NuSVR

from scdeconv._data.matrix import get_matrix, to_dense
from scdeconv._data.progress import progress
from scdeconv._stats.rounding import deviations_from_mean
from scdeconv.models._base import normalise
from scdeconv.models._record import Method
from scdeconv.models._signature_model import SignatureModel

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

Absolute = Literal["sig.score", "no.sumto1"]
# shares of the genes that may lie outside of the tube, at most, and that are support vectors, at least
NUS = (0.25, 0.5, 0.75)


def standardise(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Subtract the mean and divide by the standard deviation (n - 1); what is constant becomes zero."""
    deviations = deviations_from_mean(values, axis)
    scale = np.where(deviations.any(axis=axis, keepdims=True), values.std(axis=axis, ddof=1, keepdims=True), 1)
    return deviations / scale


def goodness_of_fit(signature: np.ndarray, bulk: np.ndarray, fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compare bulk with the sum of the profiles in these fractions.

    Parameters
    ----------
    signature
        Cell types × genes, standardised.
    bulk
        Samples × genes, standardised.
    fractions
        Samples × cell types, rows sum to 1.

    Returns
    -------
    Pearson correlation (0 where one side is constant) and root mean squared error of each sample. As in the original, the
    regression's intercept has no part in them.
    """
    fitted = fractions @ signature
    products = standardise(fitted, axis=1) * standardise(bulk, axis=1)
    return products.sum(axis=1) / (bulk.shape[1] - 1), np.sqrt(((fitted - bulk) ** 2).mean(axis=1))


def solve_nu_svr(signature: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Regress one sample on the profiles by linear nu-support-vector regression.

    For each nu of 0.25, 0.5 and 0.75, ``|w|^2 / 2 + C (nu G e + sum of what deviations exceed e)`` is minimised over the
    weights w, an intercept and the half-width e of the tube, with C = 1 (Schölkopf et al. 2000, in libsvm's scale of C).
    Negative weights become zero. The nu is kept whose fractions fit with the lowest root mean squared error.

    Parameters
    ----------
    signature
        Cell types × G genes, standardised.
    sample
        Length genes, standardised.

    Returns
    -------
    Weights, length cell types, not normalised.
    """
    best, lowest = np.zeros(len(signature)), np.inf
    for nu in NUS:
        machine = NuSVR(kernel="linear", C=1.0, nu=nu, tol=1e-3).fit(signature.T, sample)
        weights = np.maximum(machine.coef_, 0)
        _, rmse = goodness_of_fit(signature, sample[None], normalise(weights))
        if weights.any() and rmse[0] < lowest:
            best, lowest = weights[0], rmse[0]
    return best


def solve_cibersort(signature: np.ndarray, bulk: np.ndarray, *, n_jobs: int = 1) -> np.ndarray:
    """Solve every sample by :func:`solve_nu_svr`.

    Parameters
    ----------
    signature
        Cell types × genes, linear. One mean and one standard deviation standardise the whole of it.
    bulk
        Samples × genes, linear. Each sample is standardised by its own mean and standard deviation.
    n_jobs
        Samples at a time, in threads (libsvm runs without the interpreter's lock); -1 for one per core.

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


def draw_null_mixtures(bulk: np.ndarray, n_mixtures: int, rng: np.random.Generator) -> np.ndarray:
    """Draw mixtures without any structure: for each, as many of the pooled values of all samples as there are genes."""
    return np.stack([rng.choice(bulk.ravel(), bulk.shape[1], replace=False) for _ in range(n_mixtures)])


def p_values(correlation: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return one minus the rank, over their number, of the null correlation that is nearest to each correlation."""
    nearest = np.abs(np.sort(null) - correlation[:, None]).argmin(axis=1)
    return 1 - (nearest + 1) / len(null)


def quantile_normalise(values: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Put values of samples onto the mean distribution of the samples; tied values share the mean of their ranks.

    Parameters
    ----------
    values
        Samples × some genes, values that are in ``samples``; NaN stays NaN.
    samples
        The same samples × all genes.

    Returns
    -------
    Normalised values, samples × some genes.
    """
    ordered = np.sort(samples, axis=1)
    target, positions = ordered.mean(axis=0), np.arange(samples.shape[1])
    ranks = [
        (np.searchsorted(mine, row, "left") + np.searchsorted(mine, row, "right") - 1) / 2
        for mine, row in zip(ordered, values, strict=True)
    ]
    return np.where(np.isnan(values), np.nan, np.interp(ranks, positions, target))


class CIBERSORT(SignatureModel):
    """Linear nu-support-vector regression on the profiles (Newman et al. 2015, Nature Methods 12:453).

    The profiles are shares of a cell's RNA, so the fractions are shares of RNA. The signature is given by the reference
    and the selected genes. Signature and samples are standardised, each sample is regressed with nu of 0.25, 0.5 and 0.75
    on the profiles, negative weights become zero, the rest is divided by its sum, and the nu of the lowest error is kept.
    Needs no pairs.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, all where none are selected.
    permutations
        Random mixtures that give :meth:`quality` its p-values; the original advises at least 100. Each costs as much as a
        sample.
    absolute
        Kind of the scores that :meth:`absolute_scores` returns: ``"sig.score"`` or ``"no.sumto1"``.
    quantile_normalise
        Bring the samples that are predicted together to one distribution first. The original does so by default, and
        advises against it for RNA-seq. Such models have no intervals, since a prediction depends on the other samples.
    n_jobs
        Samples at a time; -1 for one per core. The result is the same.
    seed
        Seed of the random mixtures. The fractions do not depend on it.

    Notes
    -----
    The quality of a sample is ``p_value`` (how often mixtures of random values of these samples fit better; NaN without
    permutations, where the original writes 9999), ``correlation`` and ``rmse`` of the standardised sample with the fitted one.

    Departures from the R script (version 1.04): mixtures whose largest value is below 50 are not taken to be log2 and
    raised to a power of two; the library refuses log-transformed input with a message instead. The genes are in the order
    of the data, not of the alphabet, which matters only within the solver's tolerance of 1e-3.

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
    ['p_value', 'correlation', 'rmse']
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
        if permutations < 0 or n_jobs == 0:
            msg = f"Expected permutations of at least 0 and n_jobs other than 0, found {permutations} and {n_jobs}."
            raise ValueError(msg)
        if absolute not in (None, *get_args(Absolute)):
            msg = f"Expected absolute to be None or one of {get_args(Absolute)}, found {absolute!r}."
            raise ValueError(msg)
        super().__init__(mdata)
        self.parameters_ = {
            "permutations": permutations,
            "absolute": absolute,
            "quantile_normalise": quantile_normalise,
            "n_jobs": n_jobs,
            "seed": seed,
        }

    def train(self, *, held_out: bool = True) -> None:
        """Take the profiles of all donors; before, with ``held_out``, predict each fold of them by the rest."""
        super().train(held_out=held_out and not self._depends_on_other_samples())

    def _depends_on_other_samples(self) -> bool:
        return self.parameters_["quantile_normalise"]

    def _fractions(self, expression: np.ndarray) -> np.ndarray:
        return self._solve(*self._regression(expression))

    def _regression(self, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the signature and the bulk to regress on it, of the genes that are there."""
        # a gene is missing in all samples or in none
        present = ~np.isnan(expression).any(axis=0)
        return self.signature_[:, present], expression[:, present]

    def _solve(self, signature: np.ndarray, bulk: np.ndarray) -> np.ndarray:
        return solve_cibersort(signature, bulk, n_jobs=self.parameters_["n_jobs"])

    def _aligned(self, adata: AnnData, layer: str | None) -> np.ndarray:
        values = super()._aligned(adata, layer)
        if not self.parameters_["quantile_normalise"]:
            return values
        return quantile_normalise(values, to_dense(get_matrix(adata, layer, "adata")))

    def _quality(self, expression: np.ndarray, fractions: pd.DataFrame, noise: np.ndarray | None) -> pd.DataFrame:
        signature, bulk = self._regression(expression)
        profiles = standardise(signature)
        correlation, rmse = goodness_of_fit(profiles, standardise(bulk, axis=1), fractions.to_numpy())
        p_value = np.full(len(bulk), np.nan)
        if self.parameters_["permutations"]:
            rng = np.random.default_rng(self.parameters_["seed"])
            mixtures = draw_null_mixtures(bulk, self.parameters_["permutations"], rng)
            weights = normalise(self._solve(signature, mixtures))
            p_value = p_values(correlation, goodness_of_fit(profiles, standardise(mixtures, axis=1), weights)[0])
        return pd.DataFrame({"p_value": p_value, "correlation": correlation, "rmse": rmse}, index=fractions.index)

    def absolute_scores(self, adata: AnnData, *, layer: str | None = None) -> pd.DataFrame:
        """Score how much of each cell type there is, comparable between samples as well as between types.

        Parameters
        ----------
        adata, layer
            As for :meth:`predict`. For ``"sig.score"`` it holds all genes, not only those of the model.

        Returns
        -------
        Scores, samples × cell types. ``"sig.score"``: the fractions times the sample's median over the model's genes,
        over the median of all genes and samples (at least 1). ``"no.sumto1"``: the weights before they are divided by
        their sum.

        Raises
        ------
        ValueError
            Where the model was made without ``absolute``; else as :meth:`predict`.
        RuntimeError
            Before training.
        """
        kind = self.parameters_["absolute"]
        if kind is None:
            msg = f"Expected a model with absolute={' or '.join(map(repr, get_args(Absolute)))}, found None. Make one."
            raise ValueError(msg)
        expression = self._aligned(adata, layer)
        scores = self._fractions(expression)
        if kind == "sig.score":
            everything = to_dense(get_matrix(adata, layer, "adata"))
            if self.parameters_["quantile_normalise"]:
                everything = quantile_normalise(everything, everything)
            level = np.nanmedian(expression, axis=1, keepdims=True) / max(np.median(everything), 1)
            scores = normalise(scores) * level
        return pd.DataFrame(scores, index=adata.obs_names, columns=self.cell_types_)
