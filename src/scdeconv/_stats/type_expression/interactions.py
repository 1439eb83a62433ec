"""Effects of a variable on the expression of each cell type: linear model of bulk with interactions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from scdeconv._stats.expression import to_shares
from scdeconv._stats.rounding import ratio
from scdeconv._stats.shrinkage import moderate_variances

from .latent_factors import count_factors, factor_scores
from .profiles import regress_on_fractions
from .variance_trend import expected_variance, fit_variance_trend
from .weighted_fit import WeightedFit, fit_weighted

MILLION = 1e6
# lower limit of the fitted expression of a sample relative to the mean of the gene, for weights (set by hand)
MIN_RELATIVE_FIT = 0.1
# one-sided level of the test that a type expresses a gene: only such genes are tested for effects (set by hand)
EXPRESSED_LEVEL = 0.05
# SD of the prior of relative effects on other types: as expression is not negative, the difference of two groups relative to
# their mean is from -2 to 2, where a uniform distribution has an SD of 1.15; varied on docs/benchmarks/differential_expression
MAX_RELATIVE_EFFECT_SD = 1.0
# power, and p-value that a gene must reach, for the number of samples (set by hand: a p-value at which a few percent of
# true effects give a false discovery rate of 5 %)
POWER, POWER_LEVEL = 0.8, 1e-3


@dataclass(frozen=True, eq=False)
class Interactions:
    """Effects of the tested variables on the expression of each type, in counts per million (CPM) of the type.

    Attributes
    ----------
    mean
        Expression of each type if the variable has no effect, variables × cell types × genes.
    centre
        Expression of each type at the mean of the tested variables, cell types × genes.
    effect
        Change of expression per unit of the variable, variables × cell types × genes.
    standard_error, p
        Standard error and p-value of the effect; NaN where the type does not express the gene.
    inflation
        Factor of the standard errors by which the statistics of most genes vary more than expected, at least 1,
        variables × cell types.
    df
        Total degrees of freedom of the t-statistics.
    n_factors
        Number of latent factors.
    """

    mean: np.ndarray
    centre: np.ndarray
    effect: np.ndarray
    standard_error: np.ndarray
    p: np.ndarray
    inflation: np.ndarray
    df: float
    n_factors: int

    def per_unit(self, unit: float) -> Interactions:
        """Return the effects of variables that were divided by their unit, in the original unit."""
        return replace(self, effect=self.effect / unit, standard_error=self.standard_error / unit)


def normalise(expression: np.ndarray, fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return CPM, scaled so that most genes have the expression expected from the fractions, and this expectation.

    A few highly expressed genes change the share of all others. The median ratio to the expectation becomes 1 in each
    sample, over the genes of more than median expression. One step: with more, scale and profiles are not identified.

    Parameters
    ----------
    expression
        Linear expression, samples × genes.
    fractions
        Samples × cell types.
    """
    values = MILLION * to_shares(expression)
    high = values.mean(axis=0) >= np.median(values.mean(axis=0))
    ratios = np.median(values[:, high] / _expected(values, fractions)[:, high], axis=1, keepdims=True)
    # the median of a sample that lacks most genes is 0
    ratios[ratios <= 0] = 1
    values = values / ratios
    return values, _expected(values, fractions)


def _expected(values: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Return the expression expected from the fractions without effects, with a lower limit for weights."""
    expected = fractions @ regress_on_fractions(fractions, values)
    return np.maximum(expected, MIN_RELATIVE_FIT * values.mean(axis=0))


def interaction_columns(fractions: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Return fractions and fractions times each centred tested variable, samples × (1 + variables) cell types."""
    centred = tested - tested.mean(axis=0)
    return np.hstack([fractions, *(fractions * variable[:, None] for variable in centred.T)])


def fit_interactions(
    expression: np.ndarray,
    fractions: np.ndarray,
    tested: np.ndarray,
    covariates: np.ndarray,
    n_factors: int | None = None,
) -> Interactions:
    r"""Estimate the effects of variables on the expression of each cell type.

    The share of gene g in sample i is modelled as

    .. math:: y_{ig} = \sum_k f_{ik} (m_{kg} + e_{kg} x_i) + \mu_{ig} (c_g z_i + l_g u_i) + \varepsilon_{ig},

    with fractions f, means m and effects e of the cell types, the tested variable x, covariates z, latent factors u and
    the expected expression μ.

    Parameters
    ----------
    expression
        Linear expression, samples × genes. Every gene has expression in a sample.
    fractions
        Samples × cell types, rows sum to 1, linearly independent also within the tested variables.
    tested
        Tested variables, samples × variables. One unit is the range over which an effect is at most twice the mean.
    covariates
        Samples × covariates.
    n_factors
        Number of latent factors; None: estimated.
    """
    values, fitted = normalise(expression, fractions)
    full, relative = interaction_columns(fractions, tested), covariates - covariates.mean(axis=0)
    # first with weights for noise in proportion to expression, then with the fitted trend
    trend = fit_variance_trend(
        values.mean(axis=0),
        values.mean(axis=0) ** 2 * fit_weighted(values, full, relative, fitted, fitted).variance,
    )
    sd = np.sqrt(np.maximum(expected_variance(trend, fitted), np.finfo(float).tiny))
    fit = fit_weighted(values, full, relative, fitted, sd)
    spread = np.sqrt(fit.variance)
    spread[spread == 0] = 1
    if n_factors is None:
        n_factors = count_factors(fit.residuals / spread, fit.df)
    scores = np.empty((len(values), 0))
    if n_factors:
        without = fit_weighted(values, fractions, relative, fitted, sd)
        scores = factor_scores(fit.residuals / spread, without.residuals / spread, n_factors)
    pairs = _pairs_to_test(fractions.shape[1], tested.shape[1])
    fit = fit_weighted(values, full, np.hstack([relative, scores]), fitted, sd, pairs)
    return _test(fit, fractions.shape[1], tested.shape[1], n_factors)


def _pairs_to_test(n_types: int, n_variables: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns of the variances of means, the covariances with the effect, and those between all effects."""
    effects = np.arange(n_types, n_types * (1 + n_variables))
    means = np.tile(np.arange(n_types), n_variables)
    first, second = np.meshgrid(effects, effects, indexing="ij")
    return np.concatenate([means, means, first.ravel()]), np.concatenate([means, effects, second.ravel()])


def shrink_other_effects(
    effect: np.ndarray, covariance: np.ndarray, prior_variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return estimate and variance of each effect, with a prior of mean 0 on all other effects of the gene.

    Without it, impossible effects on rare types take part in the estimates: their errors are large and correlated with those
    of all other effects. The tested effect itself is not shrunk.

    Parameters
    ----------
    effect
        Least-squares estimates, genes × effects.
    covariance
        Their covariance, genes × effects × effects.
    prior_variance
        Variance of the prior, genes × effects.

    Notes
    -----
    The posterior with a prior on all effects follows from one linear system. The prior of effect j is then removed again: its
    marginal posterior has mean b and variance v, and is divided by the prior density with variance d:
    ``estimate = b / (1 - v / d)`` and ``variance = v / (1 - v / d)``.
    """
    total = covariance + prior_variance[:, :, None] * np.eye(effect.shape[1])
    # covariance @ inverse(total), both symmetric
    weights = np.linalg.solve(total, covariance).transpose(0, 2, 1)
    posterior = effect - np.einsum("gij,gj->gi", weights, effect)
    variance = np.einsum("gii->gi", covariance) - np.einsum("gij,gji->gi", weights, covariance)
    kept = 1 - variance / prior_variance
    return posterior / kept, variance / kept


def _test(fit: WeightedFit, n_types: int, n_variables: int, n_factors: int) -> Interactions:
    """Return the moderated tests of the effects, with standard errors scaled by the inflation."""
    variance, df = moderate_variances(fit.variance, fit.df)
    shape = (n_variables, n_types, len(variance))
    n_effects = n_variables * n_types
    centre = fit.coefficients[:n_types]
    effect = fit.coefficients[n_types : n_types + n_effects]
    of_centre, shared = fit.covariances[: 2 * n_effects].reshape(2, n_effects, -1) * variance
    of_effects = fit.covariances[2 * n_effects :].reshape(n_effects, n_effects, -1).transpose(2, 0, 1)
    of_effects = of_effects * variance[:, None, None]
    of_effect = np.einsum("gii->ig", of_effects)
    # the best estimate of the mean without effect is uncorrelated with the effect: the choice of genes is independent
    mean = np.tile(centre, (n_variables, 1)) - shared / of_effect * effect
    of_mean = of_centre - shared**2 / of_effect
    expressed = (student.sf(ratio(mean, np.sqrt(of_mean)), df) < EXPRESSED_LEVEL).reshape(shape)
    prior = np.maximum(MAX_RELATIVE_EFFECT_SD**2 * (np.maximum(mean, 0) ** 2 + of_mean), np.finfo(float).tiny)
    estimate, of_estimate = shrink_other_effects(effect.T, of_effects, prior.T)
    mean, effect, of_effect = mean.reshape(shape), estimate.T.reshape(shape), of_estimate.T.reshape(shape)
    error = np.where(expressed, np.sqrt(of_effect), np.nan)
    statistic = np.abs(ratio(effect, error))
    normal = norm.isf(np.maximum(student.sf(statistic, df), np.finfo(float).tiny))
    inflation = np.ones(shape[:2])
    for place in np.ndindex(*shape[:2]):
        known = np.isfinite(normal[place])
        if known.any():
            inflation[place] = max(1.0, float(np.median(normal[place][known]) / norm.isf(0.25)))
    error = error * inflation[:, :, None]
    p = 2 * student.sf(np.abs(ratio(effect, error)), df)
    return Interactions(mean, centre, effect, error, p, inflation, float(df), n_factors)


def variance_inflation(fractions: np.ndarray, tested: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    """Return the variance inflation factor of each effect, variables × cell types; infinite if it is not estimable.

    The factor is ``1 / (1 - R²)`` of the regression of the effect's column on all other columns.
    """
    columns = np.hstack([interaction_columns(fractions, tested), covariates])
    n_types, n_variables = fractions.shape[1], tested.shape[1]
    factors = np.empty(n_types * n_variables)
    for number in range(len(factors)):
        column = n_types + number
        mine, others = columns[:, column], np.delete(columns, column, axis=1)
        left = mine - others @ np.linalg.lstsq(others, mine, rcond=None)[0]
        share = (left**2).sum() / max(((mine - mine.mean()) ** 2).sum(), np.finfo(float).tiny)
        factors[number] = 1 / share if share > np.finfo(float).eps * len(columns) else np.inf
    return factors.reshape(n_variables, n_types)


def samples_needed(found: Interactions, n_samples: int, fold_change: float) -> np.ndarray:
    """Return the number of samples at which half of the tested genes show a fold change, variables × cell types.

    Standard errors fall with the square root of the number of samples of the same design. An effect of c - 1 times the
    lower expression, i.e. ``2 (c - 1) / (c + 1)`` times the mean, is found with a power of 80 % at p < 0.001.

    Parameters
    ----------
    found
        From :func:`fit_interactions`.
    n_samples
        Number of samples of the design.
    fold_change
        Fold change c per unit of the variable, above 1.
    """
    relative = 2 * (fold_change - 1) / (fold_change + 1)
    quantiles = student.isf(POWER_LEVEL / 2, found.df) + norm.ppf(POWER)
    needed = n_samples * (quantiles / relative * ratio(found.standard_error, found.mean)) ** 2
    result = np.full(needed.shape[:2], np.nan)
    for place in np.ndindex(*result.shape):
        known = needed[place][np.isfinite(needed[place])]
        if len(known):
            result[place] = np.ceil(np.median(known))
    return result
