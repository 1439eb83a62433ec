"""Linear models with cluster-robust standard errors and small-sample tests (CR2, Satterthwaite, Hotelling's T²)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from .variance_components import estimate_components, limit_weights, stack_clusters, whiten

# eigenvalues of I - H below this belong to directions that the design fits exactly (set by hand)
EIGENVALUE_TOLERANCE = 1e-10
# residuals below this are rounding errors: responses are logarithms or percentages (set by hand)
RESIDUAL_TOLERANCE = 1e-10
LEVEL = 0.95


@dataclass(frozen=True)
class Tests:
    """Tests of some coefficients of a linear model; arrays have one value for each coefficient.

    Parameters
    ----------
    effect
        Coefficients.
    covariance
        Covariance of the coefficients (square). As ``df`` and the p-values, NaN if the model fits all samples exactly.
    df
        Degrees of freedom.
    p_value
        Two-sided t-tests of single coefficients.
    joint_p_value
        F-test that all these coefficients are 0. NaN if there are too few samples for it.
    variance
        Variance of a sample around the model, without its known error.
    """

    effect: np.ndarray
    covariance: np.ndarray
    df: np.ndarray
    p_value: np.ndarray
    joint_p_value: float
    variance: float

    @property
    def se(self) -> np.ndarray:
        """Return the standard errors of the coefficients."""
        return np.sqrt(np.diag(self.covariance))

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper bounds of the 95 % intervals of the coefficients."""
        half_width = stats.t.ppf((1 + LEVEL) / 2, self.df) * self.se
        return self.effect - half_width, self.effect + half_width

    def per_unit(self, unit: float) -> Tests:
        """Return the tests of coefficients of columns that were divided by their unit, in the original unit."""
        return replace(self, effect=self.effect / unit, covariance=self.covariance / unit**2)


@dataclass(frozen=True)
class LinearModel:
    """Design matrix, tested columns and clusters of the samples.

    Parameters
    ----------
    matrix
        Samples × columns, of full rank.
    tested
        Numbers of the tested columns.
    clusters
        Code of the cluster of each sample, such as its donor.
    has_intercepts
        Whether clusters have a random intercept.
    """

    matrix: np.ndarray
    tested: np.ndarray
    clusters: np.ndarray
    has_intercepts: bool

    def test(self, response: np.ndarray, errors: np.ndarray) -> Tests:
        r"""Test coefficients for one response.

        The model is y = X b + u + e with random intercepts u of the clusters and independent residuals e, whose variance
        is the sum of a common variance and the known variance of the sample. Variances are estimated by REML.

        Parameters
        ----------
        response
            Value of each sample.
        errors
            Known variance of the error of each sample.

        Notes
        -----
        The covariance of the generalised least-squares coefficients is the bias-reduced cluster-robust estimate CR2 (Bell
        and McCaffrey 2002): with whitened X and residuals e, leverage H and :math:`M = (X'X)^{-1}`,

        .. math::

            V = M \sum_c X_c' A_c e_c e_c' A_c X_c M, \quad A_c = (I - H_{cc})^{-1/2}.

        It is valid if the assumed covariance is wrong, for instance if variances differ between groups. Degrees of
        freedom are Satterthwaite's under the assumed covariance, and the joint test is Hotelling's T² with the degrees of
        freedom of Pustejovsky and Tipton (2018). Special cases are Student's test for two groups of equal size, Welch's
        standard error for groups of different size, and the paired t-test.
        """
        from statsmodels.regression.linear_model import OLS

        exact = np.linalg.lstsq(self.matrix, response, rcond=None)[0]
        if np.abs(response - self.matrix @ exact).max() < RESIDUAL_TOLERANCE:
            unknown = np.full(len(self.tested), np.nan)
            return Tests(exact[self.tested], np.diag(unknown), unknown, unknown, np.nan, 0.0)
        stacks = stack_clusters(self.clusters)
        within, between = 1.0, 0.0
        if errors.any() or self.has_intercepts:
            within, between = estimate_components(
                response, self.matrix, stacks, errors, has_intercepts=self.has_intercepts
            )
        variance = limit_weights(within + errors)
        whitened, _ = whiten(np.column_stack([response, self.matrix]), stacks, variance, between)
        fit = OLS(whitened[:, 0], whitened[:, 1:]).fit()
        if not errors.any() and not self.has_intercepts:
            within = float(fit.scale)
        bread = fit.normalized_cov_params
        effect = fit.params[self.tested]
        parts = [_adjusted(whitened[:, 1:][rows], fit.resid[rows], bread, self.tested) for rows in stacks]
        scores, norms, crossed = (np.concatenate([part[i] for part in parts]) for i in range(3))
        covariance = scores.T @ scores
        units = np.diag(1 / np.sqrt(np.diag(bread)[self.tested]))
        df = np.array([_degrees(norms, crossed, bread, unit[None]) for unit in units])
        with np.errstate(divide="ignore", invalid="ignore"):
            p_value = 2 * stats.t.sf(np.abs(effect) / np.sqrt(np.diag(covariance)), df)
        joint = self._joint_p_value(effect, covariance, norms, crossed, bread) if len(effect) > 1 else p_value[0]
        return Tests(effect, covariance, df, p_value, float(joint), within + between)

    def _joint_p_value(
        self, effect: np.ndarray, covariance: np.ndarray, norms: np.ndarray, crossed: np.ndarray, bread: np.ndarray
    ) -> float:
        """Return the p-value of Hotelling's T² of the tested coefficients."""
        q = len(effect)
        values, vectors = np.linalg.eigh(bread[np.ix_(self.tested, self.tested)])
        df = _degrees(norms, crossed, bread, (vectors / np.sqrt(values)) @ vectors.T)
        if np.linalg.matrix_rank(covariance, hermitian=True) < q or not df > q - 1:
            return np.nan
        wald = effect @ np.linalg.solve(covariance, effect)
        return float(stats.f.sf((df - q + 1) / (df * q) * wald, q, df - q + 1))


def _adjusted(
    matrix: np.ndarray, residuals: np.ndarray, bread: np.ndarray, tested: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what CR2 needs of clusters of equal size (clusters × rows × columns).

    Returns
    -------
    The contribution of each cluster to the tested coefficients, and, of the weights a of its residuals in them, a'a and X'a.
    """
    leverage = matrix @ bread @ matrix.swapaxes(1, 2)
    values, vectors = np.linalg.eigh(np.eye(matrix.shape[1]) - leverage)
    kept = values > EIGENVALUE_TOLERANCE
    roots = np.where(kept, values.clip(EIGENVALUE_TOLERANCE) ** -0.5, 0)
    weights = (vectors * roots[:, None]) @ (vectors.swapaxes(1, 2) @ (matrix @ bread[:, tested]))
    scores = np.einsum("crq,cr->cq", weights, residuals)
    return scores, weights.swapaxes(1, 2) @ weights, matrix.swapaxes(1, 2) @ weights


def _degrees(norms: np.ndarray, crossed: np.ndarray, bread: np.ndarray, contrasts: np.ndarray) -> float:
    """Return the degrees of freedom of the robust covariance of contrasts (contrasts × coefficients) of variance 1.

    They match the total variance of its entries under the assumed covariance to that of a Wishart distribution. NaN if the
    clusters leave no variance, for example a single cluster.
    """
    norms, crossed = contrasts @ norms @ contrasts.T, crossed @ contrasts.T
    q = len(contrasts)
    pairs = list(itertools.product(range(q), repeat=2))
    # covariance of the contributions of two clusters to two contrasts
    covariances = {(s, t): np.diag(norms[:, s, t]) - crossed[:, :, s] @ bread @ crossed[:, :, t].T for s, t in pairs}
    mean = sum(np.trace(covariances[s, s]) for s in range(q)) / q
    variance = sum(
        (covariances[s, s] * covariances[t, t] + covariances[s, t] * covariances[t, s]).sum() for s, t in pairs
    )
    return float(q * (q + 1) * mean**2 / variance) if mean > EIGENVALUE_TOLERANCE else np.nan
