"""MAP estimation of compositions from bulk under a logistic-normal model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from joblib import Parallel, delayed
from scipy.special import softmax

from scdeconv._process import one_blas_thread
from scdeconv._stats.expression import LEVEL, log_shares
from scdeconv._stats.known_parts import KnownParts

if TYPE_CHECKING:
    from collections.abc import Callable

# samples per chunk, maximum number of Gauss-Newton steps, and limits of a step in log-ratio units (set by hand)
SAMPLES_PER_CHUNK = 128
MAX_STEPS = 30
MAX_STEP_LENGTH = 2.0
STEP_TOLERANCE = 5e-3
# standard deviation of known parts in the likelihood; set by hand, small against any standard error
KNOWN_SD = 1e-4


@dataclass
class LogisticNormalModel:
    """Log-ratios ``z ~ N(mean, covariance)`` and log expression ``log_shares(softmax(z) @ profiles) + shift + noise``.

    The noise covariance is ``factors.T @ factors + diag(variance)``. For counts (``counted``), the Poisson variance at
    the sample's library size is added.
    """

    mean: np.ndarray
    covariance: np.ndarray
    profiles: np.ndarray
    shift: np.ndarray
    variance: np.ndarray
    factors: np.ndarray
    counted: np.ndarray

    def expected(self, ratios: np.ndarray) -> np.ndarray:
        """Return the expected log expression given log-ratios, samples × genes."""
        return log_shares(softmax(ratios, axis=-1) @ self.profiles) + self.shift

    def solve(self, log: np.ndarray, depths: np.ndarray, known: KnownParts | None = None) -> np.ndarray:
        """Return the MAP log-ratios of each sample by Gauss-Newton steps.

        Parameters
        ----------
        log
            Log expression, samples × genes.
        depths
            Library size of each sample over these genes.
        known
            Exactly known parts of the samples.

        Returns
        -------
        Log-ratios, samples × cell types. Their softmax gives the fractions.
        """
        known = KnownParts.none(len(log), len(self.mean)) if known is None else known
        return _in_chunks(GaussNewton(self, known.of).solve, log, depths, known.values)

    def noise_level(self, log: np.ndarray, depths: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        """Return the root mean square of each sample's standardised residuals, length samples.

        Values of real samples are usually below 1, because the model adds noise to that of the pairs. ``ratios`` is the
        result of :meth:`solve`.
        """
        return _in_chunks(GaussNewton(self).noise_level, log, depths, ratios)


def _in_chunks(function: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
    """Apply a function to chunks of rows in parallel threads and concatenate the results."""
    chunks = [slice(start, start + SAMPLES_PER_CHUNK) for start in range(0, len(arrays[0]), SAMPLES_PER_CHUNK)]
    # element-wise work dominates: use threads over chunks
    with one_blas_thread():
        parallel = Parallel(n_jobs=-1 if len(chunks) > 1 else 1, require="sharedmem")
        return np.concatenate(parallel(delayed(function)(*(array[rows] for array in arrays)) for rows in chunks))


class GaussNewton:
    """Gauss-Newton solver for the MAP log-ratios of many samples.

    Let f be the fractions, s the gene shares of the mixture, P the profiles, p their sums and a a factor per gene. The
    derivative of log expression with respect to log-ratio k is ``f_k a (P_k - p_k s)``. A step needs sums over genes of
    products of derivatives, factors and residuals. These are gene-weighted sums of products of profiles and factors.
    The products are the same for all samples and are computed once. The sums are then matrix products.

    Known parts of the composition are further observations with a small standard deviation. The derivative of part p, the sum of its fractions, with
    respect to log-ratio k is ``f_k ((k in p) - part)``.
    """

    def __init__(self, model: LogisticNormalModel, parts: np.ndarray | None = None) -> None:
        self.model = model
        self.parts = np.empty((len(model.mean), 0)) if parts is None else parts
        self.profiles, self.factors = model.profiles.T, model.factors.T
        self.sums = model.profiles.sum(axis=1)
        self.level = LEVEL * len(model.shift)
        self.scale = np.exp(model.shift)
        self.of_types = np.triu_indices(len(model.profiles))
        self.of_factors = np.triu_indices(len(model.factors))
        self.type_products = self.profiles[:, self.of_types[0]] * self.profiles[:, self.of_types[1]]
        self.factor_products = self.factors[:, self.of_factors[0]] * self.factors[:, self.of_factors[1]]
        self.mixed_products = np.einsum("gk,gf->gkf", self.profiles, self.factors).reshape(
            len(self.profiles), self.sums.size * len(model.factors)
        )
        # log-ratios sum to zero, so the covariance is singular: add precision in this direction
        self.precision = np.linalg.pinv(model.covariance) + 1 / len(model.mean)

    def solve(self, log: np.ndarray, depths: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return the MAP log-ratios, samples × cell types, with the prior mean as start.

        ``values`` are those of the known parts, samples × parts; NaN where unknown.
        """
        ratios = np.tile(self.model.mean, (len(log), 1))
        before, lengths = np.zeros_like(ratios), np.ones(len(log))
        rows = np.arange(len(log))
        for _ in range(MAX_STEPS):
            full = self.step(log[rows], depths[rows], ratios[rows], values[rows])
            step = np.clip(full, -MAX_STEP_LENGTH, MAX_STEP_LENGTH)
            # full steps oscillate for rare types: halve on reversal, else double
            turns = (step * before[rows]).sum(axis=1) < 0
            lengths[rows] = np.where(turns, lengths[rows] / 2, np.minimum(2 * lengths[rows], 1))
            step *= lengths[rows, None]
            ratios[rows] += step
            before[rows] = step
            rows = rows[np.abs(step).max(axis=1) > STEP_TOLERANCE]
            if not len(rows):
                break
        return ratios

    def step(
        self, log: np.ndarray, depths: np.ndarray, ratios: np.ndarray, values: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the full Gauss-Newton step of each sample, samples × cell types; ``values`` as for :meth:`solve`."""
        values = np.full((len(log), self.parts.shape[1]), np.nan) if values is None else values
        fractions, totals, shares, noise, weights = self._noise(log, depths, ratios)
        slope = self.level / totals / (1 + self.level * shares)

        factor_sums = _symmetric(weights @ self.factor_products, self.of_factors)
        noise *= weights
        noise_sums = noise @ self.factors
        weights *= slope
        with_factors = (weights @ self.mixed_products).reshape(len(log), len(self.sums), self.factors.shape[1])
        with_factors -= self.sums[:, None] * ((weights * shares) @ self.factors)[:, None, :]
        noise *= slope
        with_noise = noise @ self.profiles - self.sums * np.einsum("sg,sg->s", noise, shares)[:, None]
        weights *= slope
        with_types = _symmetric(weights @ self.type_products, self.of_types)
        weights *= shares
        with_shares = (weights @ self.profiles)[:, :, None] * self.sums
        with_types -= with_shares + with_shares.transpose(0, 2, 1)
        with_types += np.einsum("sg,sg->s", weights, shares)[:, None, None] * np.outer(self.sums, self.sums)

        # Woodbury identity: subtract the part explained by the factors
        each = fractions[:, :, None]
        with_factors *= each
        others = np.concatenate([with_factors.transpose(0, 2, 1), noise_sums[:, :, None]], axis=2)
        explained = with_factors @ np.linalg.solve(np.eye(factor_sums.shape[1]) + factor_sums, others)
        curvature = with_types * each * fractions[:, None, :] - explained[:, :, :-1]
        gradient = with_noise[:, :, None] * each - explained[:, :, -1:]
        sums = fractions @ self.parts
        of_parts = each * (self.parts - sums[:, None, :])
        weighted = of_parts * (~np.isnan(values) / KNOWN_SD**2)[:, None, :]
        curvature += weighted @ of_parts.transpose(0, 2, 1)
        gradient += weighted @ (np.nan_to_num(values) - sums)[:, :, None]
        away = (ratios - self.model.mean)[:, :, None]
        return (np.linalg.solve(self.precision + curvature, gradient + curvature @ away) - away)[:, :, 0]

    def noise_level(self, log: np.ndarray, depths: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        """Return the result of :meth:`LogisticNormalModel.noise_level` for one chunk of samples."""
        *_, noise, weights = self._noise(log, depths, ratios)
        inner = np.eye(len(self.model.factors)) + _symmetric(weights @ self.factor_products, self.of_factors)
        projected = (weights * noise) @ self.factors
        explained = np.linalg.solve(inner, projected[:, :, None])[:, :, 0]
        squares = (weights * noise**2).sum(axis=1) - (projected * explained).sum(axis=1)
        return np.sqrt(squares / log.shape[1])

    def _noise(self, log: np.ndarray, depths: np.ndarray, ratios: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return fractions, totals and gene shares of the mixtures, residuals and inverse residual variances."""
        fractions = softmax(ratios, axis=1)
        shares = fractions @ self.profiles.T
        totals = np.maximum(shares.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        shares /= totals
        linear = 1 + self.level * shares
        noise = log - np.log(linear) - self.model.shift
        return fractions, totals, shares, noise, 1 / (self.model.variance + self._counting(linear, depths))

    def _counting(self, linear: np.ndarray, depths: np.ndarray) -> np.ndarray:
        """Return :func:`counting_variance` of ``log(linear) + shift`` without computing an exponential."""
        if not self.model.counted:
            return 0 * linear
        inverse = 1 / np.maximum(linear * self.scale, 1)
        return (inverse - inverse**2) * (self.level / np.maximum(depths, 1))[:, None]


def _symmetric(upper: np.ndarray, places: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return symmetric matrices from upper triangles (samples × entries)."""
    size = places[0][-1] + 1 if len(places[0]) else 0
    full = np.empty((len(upper), size, size))
    full[:, places[0], places[1]] = full[:, places[1], places[0]] = upper
    return full


def counting_variance(log: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return the Poisson variance of log expression at a library size (delta method)."""
    level = LEVEL * log.shape[-1]
    return level * np.expm1(np.maximum(log, 0)) / np.maximum(depth, 1) * np.exp(-2 * np.maximum(log, 0))
