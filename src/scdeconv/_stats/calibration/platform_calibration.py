"""The model of bulk that pairs teach, and bulk drawn from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from scdeconv._stats.draws import draw_fractions
from scdeconv._stats.expression import LEVEL, log_shares
from scdeconv._stats.logistic_normal import LogisticNormalModel

# standard deviation of log expression by which a profile is wrong at least, however well the pairs agree with it
PROFILE_ERROR = 0.3
# standard deviation of the log share that all the genes together have in a sample's RNA
OFFSET = 0.5
# share of simulated samples whose composition is not like the training donors'
BROAD = 0.1
# variance of drawn compositions relative to the training donors': new donors may be further out
INFLATION = 1.5


@dataclass(frozen=True, eq=False)
class PlatformCalibration:
    """How bulk differs from single cells, as arrays.

    On the scale ``x = log(1 + 10 G share)``, G the number of genes, a bulk sample with cell fractions f is modelled as::

        x = log_shares(f @ profiles) + platform_shift[+batch_shift] + loadings.T @ N(0, 1) + residual_sd * N(0, 1)

    Attributes
    ----------
    platform_shift, shift_sd
        Log expression of bulk less that of single cells, shrunk to 0, and its standard deviation, length genes.
    residual_sd
        Standard deviation of each gene between donors that no factor explains, length genes.
    repeatability
        Share of a gene's departure from its profile that all donors have in common, 0 to 1, length genes.
    cell_size, cell_size_umi
        RNA of a cell, learned from the pairs, and as counted in single cells, length cell types.
    mean_log_ratio
        Mean centred log-ratio of the compositions, length cell types.
    profiles
        Expression of a cell with the learned cell sizes, cell types × genes.
    centre
        Mean log expression of bulk, length genes.
    loadings
        Correlated noise between donors, factors × genes.
    covariance
        Covariance of the compositions' centred log-ratios, cell types × cell types.
    depths
        Totals of bulk samples over these genes; empty where bulk is not counts.
    batches
        Labels of the batches, sorted; empty without batches.
    batch_shift
        Log expression of each batch less that of all, batches × genes.
    n_donors
        Number of paired donors; 0 where only the reference is known.
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
        """Return the log expression of single cells of these fractions, samples × genes, without any shift."""
        return log_shares(fractions @ self.profiles)

    def noise_variance(self) -> np.ndarray:
        """Return the independent variance of each gene: residual, uncertain shift, profile error; length genes."""
        return self.residual_sd**2 + self.shift_sd**2 + PROFILE_ERROR**2

    def factors(self) -> np.ndarray:
        """Return all that moves genes together, factors × genes: donors, batches, the depth of all genes."""
        n_batches = max(1, len(self.batch_shift))
        offset = np.full((1, len(self.platform_shift)), OFFSET)
        return np.vstack([self.loadings, self.batch_shift / np.sqrt(n_batches), offset])

    def draw_compositions(self, n_samples: int, broad: float, rng: np.random.Generator) -> np.ndarray:
        """Draw compositions from the donors' logistic-normal, and a share ``broad`` of them by Scaden's rule.

        Parameters
        ----------
        n_samples
            Number of compositions.
        broad
            Share of Scaden's compositions, 0 to 1; they come last, and half of them lack cell types.
        rng
            Source of randomness.

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
            Source of randomness.

        Returns
        -------
        Samples × genes: counts at depths of real samples, or shares where bulk is not counts.
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
        """Return the model by which compositions are estimated from log expression."""
        return LogisticNormalModel(
            mean=self.mean_log_ratio,
            covariance=INFLATION * self.covariance,
            profiles=self.profiles,
            shift=self.platform_shift,
            variance=self.noise_variance(),
            factors=self.factors(),
            counted=np.array(len(self.depths) > 0),
        )
