"""Generative model of bulk fitted to pairs, and simulation of bulk from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from scdeconv._stats.calibration.logistic_normal import LogisticNormalModel
from scdeconv._stats.draws import draw_fractions
from scdeconv._stats.expression import LEVEL, log_shares

# minimum SD of the profile error in log expression (set by hand; varied in benchmarks/map_constants.py)
PROFILE_ERROR = 0.3
# SD of a factor common to all genes in log expression (set by hand; varied in benchmarks/map_constants.py)
OFFSET = 0.5
# share of simulated samples with compositions drawn by the Scaden rule (set by hand)
BROAD = 0.1
# prior variance relative to the training donors: allows compositions outside of their range (set by hand)
INFLATION = 1.5


@dataclass(frozen=True, eq=False)
class PlatformCalibration:
    """Fitted differences between bulk and single cells, as arrays.

    On the scale ``x = log(1 + 10 G share)``, with G genes, a bulk sample with cell fractions f is modelled as::

        x = log_shares(f @ profiles) + platform_shift[+batch_shift] + loadings.T @ N(0, 1) + residual_sd * N(0, 1)

    Attributes
    ----------
    platform_shift, shift_sd
        Log expression of bulk minus that of single cells, shrunk to 0, and its standard deviation, length genes.
    residual_sd
        Standard deviation between donors that is independent of the factors, length genes.
    repeatability
        Share of the residual variance that is common to all donors, 0 to 1, length genes.
    cell_size, cell_size_umi
        RNA per cell estimated from the pairs, and mean UMI counts per cell, length cell types.
    mean_log_ratio
        Mean centred log-ratio of the compositions, length cell types.
    profiles
        Mean expression per cell with the estimated cell sizes, cell types × genes.
    centre
        Mean log expression of bulk, length genes.
    loadings
        Correlated noise between donors, factors × genes.
    covariance
        Covariance of the compositions' centred log-ratios, cell types × cell types.
    depths
        Library sizes of bulk samples over these genes; empty if bulk is not counts.
    batches
        Sorted batch labels; empty without batches.
    batch_shift
        Log expression of each batch minus the mean over batches, batches × genes.
    n_donors
        Number of paired donors; 0 without pairs.
    """

    platform_shift: np.ndarray
    shift_sd: np.ndarray
    residual_sd: np.ndarray
    repeatability: np.ndarray
    cell_size: np.ndarray
    cell_size_umi: np.ndarray
    mean_log_ratio: np.ndarray
    profiles: np.ndarray
    centre: np.ndarray
    loadings: np.ndarray
    covariance: np.ndarray
    depths: np.ndarray
    batches: np.ndarray
    batch_shift: np.ndarray
    n_donors: int

    def expected(self, fractions: np.ndarray) -> np.ndarray:
        """Return the expected log expression of summed single cells, samples × genes, without platform shift."""
        return log_shares(fractions @ self.profiles)

    def noise_variance(self) -> np.ndarray:
        """Return the independent variance: residual, shift uncertainty and profile error, length genes."""
        return self.residual_sd**2 + self.shift_sd**2 + PROFILE_ERROR**2

    def factors(self) -> np.ndarray:
        """Return the factors of correlated noise, factors × genes: donors, batches and a factor common to all genes."""
        n_batches = max(1, len(self.batch_shift))
        offset = np.full((1, len(self.platform_shift)), OFFSET)
        return np.vstack([self.loadings, self.batch_shift / np.sqrt(n_batches), offset])

    def draw_compositions(self, n_samples: int, broad: float, rng: np.random.Generator) -> np.ndarray:
        """Draw compositions from the donors' logistic-normal distribution and a share ``broad`` by the Scaden rule.

        Parameters
        ----------
        n_samples
            Number of compositions.
        broad
            Share of Scaden compositions, 0 to 1. They come last, and half of them lack cell types.
        rng
            Random number generator.

        Returns
        -------
        Fractions, samples × cell types, rows sum to 1.
        """
        n_broad = int(broad * n_samples)
        mean = self.mean_log_ratio
        ratios = rng.multivariate_normal(mean, INFLATION * self.covariance, n_samples - n_broad, method="eigh")
        everywhere = draw_fractions(n_broad - n_broad // 2, n_broad // 2, np.ones(len(mean), dtype=bool), rng)
        return np.concatenate([softmax(ratios, axis=1), everywhere])

    def draw_bulk(self, fractions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw bulk samples of given composition.

        Parameters
        ----------
        fractions
            Samples × cell types.
        rng
            Random number generator.

        Returns
        -------
        Samples × genes: counts with library sizes of real samples, or shares if bulk is not counts.
        """
        shape = len(fractions), len(self.platform_shift)
        log = self.expected(fractions) + self.platform_shift
        if len(self.batch_shift):
            log += self.batch_shift[rng.integers(len(self.batch_shift), size=len(fractions))]
        log += rng.normal(size=(len(fractions), len(self.loadings))) @ self.loadings
        log += rng.normal(size=shape) * np.sqrt(self.noise_variance()) + OFFSET * rng.normal(size=(shape[0], 1))
        shares = np.maximum(np.expm1(log), 0) / (LEVEL * shape[1])
        if not len(self.depths):
            return shares
        return rng.poisson(shares * rng.choice(self.depths, size=(shape[0], 1))).astype(float)

    def model(self) -> LogisticNormalModel:
        """Return the model for MAP estimation of compositions from log expression."""
        return LogisticNormalModel(
            mean=self.mean_log_ratio,
            covariance=INFLATION * self.covariance,
            profiles=self.profiles,
            shift=self.platform_shift,
            variance=self.noise_variance(),
            factors=self.factors(),
            counted=np.array(len(self.depths) > 0),
        )
