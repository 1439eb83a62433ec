"""What the pairs teach about bulk against single cells, and bulk drawn from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.special import softmax

from scdeconv import _keys as keys
from scdeconv._expression import LEVEL, log_shares

from ._draws import draw_fractions

if TYPE_CHECKING:
    import pandas as pd
    from mudata import MuData

# standard deviation of log expression by which a profile is wrong at least, however well the pairs agree with it
PROFILE_ERROR = 0.3
# standard deviation of the log share that all the genes together have in a sample's RNA
OFFSET = 0.5
# share of simulated samples whose composition is not like the training donors'
BROAD = 0.1
# compositions are drawn with more variance than the training donors have, since new donors may be further out
INFLATION = 1.5

# samples solved at once, and the Gauss-Newton steps: how many, how far, and when to stop
ROWS_AT_ONCE = 50
MAX_STEPS = 30
LONGEST_STEP = 2.0
TOLERANCE = 5e-3


@dataclass
class Calibration:
    """How bulk differs from single cells, learned by :func:`scdeconv.pp.calibrate`.

    On the scale ``x = log(1 + 10 G share)``, G the number of genes, a bulk sample with cell fractions f is modelled as::

        x = log_shares(f @ profiles) + platform_shift[+batch_shift] + loadings.T @ N(0, 1) + residual_sd * N(0, 1)

    Attributes
    ----------
    genes
        Table by gene: ``platform_shift`` (bulk less single cells), ``shift_sd`` (its uncertainty), ``residual_sd``
        (independent part of what differs between donors), ``repeatability`` (share of a gene's departure from its
        profile that is the same in all donors, 0 to 1).
    cell_types
        Table by cell type: ``cell_size`` (RNA per cell, learned from the pairs), ``cell_size_umi`` (as counted in the
        cells), ``mean_log_ratio`` (mean centred log-ratio of the compositions).
    profiles
        Expression of a cell, cell types × genes, with the learned cell sizes.
    centre
        Mean log expression of bulk, per gene.
    loadings
        Correlated part of what differs between donors, factors × genes.
    covariance
        Of the compositions' centred log-ratios, cell types × cell types.
    depths
        Totals of bulk samples over these genes; empty where bulk is not counts.
    batch_shift
        Table genes × batches; no columns where no batch was given.
    n_donors
        Paired donors behind it; 0 where there is only the reference.
    """

    genes: pd.DataFrame
    cell_types: pd.DataFrame
    profiles: np.ndarray
    centre: np.ndarray
    loadings: np.ndarray
    covariance: np.ndarray
    depths: np.ndarray
    batch_shift: pd.DataFrame
    n_donors: int

    def __repr__(self) -> str:
        return (
            f"Calibration: {self.n_donors} donors, {len(self.genes)} genes, {len(self.cell_types)} cell types; median "
            f"repeatability {self.genes['repeatability'].median():.2f}"
        )

    @classmethod
    def of(cls, mdata: MuData) -> Self:
        """Return the calibration that :func:`scdeconv.pp.calibrate` stored in ``mdata``; ``KeyError`` where none is."""
        stored = mdata.uns.get(keys.UNS, {}).get(keys.CALIBRATION)
        if stored is None:
            msg = f"Expected a calibration in mdata.uns[{keys.UNS!r}], found none. Call pp.calibrate(mdata) first."
            raise KeyError(msg)
        return cls(**{field.name: stored[field.name] for field in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as ``mdata.uns`` can hold and write them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def expected(self, fractions: np.ndarray) -> np.ndarray:
        """Return the log expression of single cells of these fractions added up, samples × genes."""
        return log_shares(fractions @ self.profiles)

    def noise_variance(self) -> np.ndarray:
        """Return the variance per gene of what is independent between genes: residual, uncertain shift, profile error."""
        return (self.genes[["residual_sd", "shift_sd"]].to_numpy() ** 2).sum(axis=1) + PROFILE_ERROR**2

    def factors(self) -> np.ndarray:
        """Return all that moves genes together, factors × genes: donors, batches, the depth of all genes."""
        n_batches = max(1, self.batch_shift.shape[1])
        return np.vstack(
            [
                self.loadings,
                self.batch_shift.to_numpy().T / np.sqrt(n_batches),
                np.full((1, len(self.genes)), OFFSET),
            ]
        )

    def draw_compositions(self, n_samples: int, broad: float, rng: np.random.Generator) -> np.ndarray:
        """Draw from the logistic-normal of the donors and, in a share ``broad``, from everywhere (Scaden's rule)."""
        n_broad = int(broad * n_samples)
        mean = self.cell_types["mean_log_ratio"].to_numpy()
        ratios = rng.multivariate_normal(mean, INFLATION * self.covariance, n_samples - n_broad, method="eigh")
        everywhere = draw_fractions(n_broad - n_broad // 2, n_broad // 2, np.ones(len(mean), dtype=bool), rng)
        return np.concatenate([softmax(ratios, axis=1), everywhere])

    def draw_bulk(self, fractions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw bulk samples of the given composition, samples × genes: counts, or shares where bulk is not counts."""
        shape = len(fractions), len(self.genes)
        log = self.expected(fractions) + self.genes["platform_shift"].to_numpy()
        if self.batch_shift.shape[1]:
            log += self.batch_shift.to_numpy().T[rng.integers(self.batch_shift.shape[1], size=len(fractions))]
        log += rng.normal(size=(len(fractions), len(self.loadings))) @ self.loadings
        log += rng.normal(size=shape) * np.sqrt(self.noise_variance()) + OFFSET * rng.normal(size=(shape[0], 1))
        shares = np.maximum(np.expm1(log), 0) / (LEVEL * shape[1])
        if not len(self.depths):
            return shares
        return rng.poisson(shares * rng.choice(self.depths, size=(shape[0], 1))).astype(float)

    def model(self) -> CalibratedModel:
        """Return what is needed to read compositions from log expression."""
        return CalibratedModel(
            mean=self.cell_types["mean_log_ratio"].to_numpy(),
            covariance=INFLATION * self.covariance,
            profiles=self.profiles,
            shift=self.genes["platform_shift"].to_numpy(),
            variance=self.noise_variance(),
            factors=self.factors(),
            counted=np.array(len(self.depths) > 0),
        )


@dataclass
class CalibratedModel:
    """Log-ratios ``z ~ N(mean, covariance)`` and log expression ``log_shares(softmax(z) @ profiles) + shift + noise``.

    The noise has covariance ``factors.T @ factors + diag(variance)``, to which counting adds by the depth of a sample
    where bulk is counts (``counted``).
    """

    mean: np.ndarray
    covariance: np.ndarray
    profiles: np.ndarray
    shift: np.ndarray
    variance: np.ndarray
    factors: np.ndarray
    counted: np.ndarray

    def expected(self, ratios: np.ndarray) -> np.ndarray:
        """Return the log expression of samples with these log-ratios, samples × genes."""
        return log_shares(softmax(ratios, axis=-1) @ self.profiles) + self.shift

    def slope(self, ratios: np.ndarray) -> np.ndarray:
        """Return the derivative of :meth:`expected` by the log-ratios, samples × cell types × genes."""
        fractions = softmax(ratios, axis=-1)
        sums = fractions @ self.profiles
        totals = np.maximum(sums.sum(axis=-1, keepdims=True), np.finfo(float).tiny)
        shares = (sums / totals)[:, None, :]
        level = LEVEL * len(self.shift)
        excess = self.profiles - self.profiles.sum(axis=1)[:, None] * shares
        return (fractions / totals)[:, :, None] * excess * (level / (1 + level * shares))

    def solve(self, log: np.ndarray, depths: np.ndarray) -> np.ndarray:
        """Return the most probable log-ratios of each sample, by Gauss-Newton steps from the mean composition.

        Parameters
        ----------
        log
            Log expression, samples × genes.
        depths
            Total of each sample over these genes.

        Returns
        -------
        Samples × cell types; ``softmax`` of it are the fractions.
        """
        ratios = np.tile(self.mean, (len(log), 1))
        for start in range(0, len(log), ROWS_AT_ONCE):
            rows = np.arange(start, min(start + ROWS_AT_ONCE, len(log)))
            for _ in range(MAX_STEPS):
                step = self._step(log[rows], depths[rows], ratios[rows])
                step = np.clip(step, -LONGEST_STEP, LONGEST_STEP)
                ratios[rows] += step
                rows = rows[np.abs(step).max(axis=1) > TOLERANCE]
                if not len(rows):
                    break
        return ratios

    def _step(self, log: np.ndarray, depths: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        """Return the Gauss-Newton step of each sample."""
        slope, expected = self.slope(ratios), self.expected(ratios)
        ahead = log - expected + ((ratios - self.mean)[:, None, :] @ slope)[:, 0, :]
        products = self.products(slope, np.concatenate([slope, ahead[:, None, :]], axis=1), expected, depths)
        # log-ratios sum to zero: the precision of their sum is irrelevant, and made finite
        precision = np.linalg.pinv(self.covariance) + 1 / len(self.mean) + products[:, :, :-1]
        return self.mean + np.linalg.solve(precision, products[:, :, -1:])[:, :, 0] - ratios

    def products(self, rows: np.ndarray, others: np.ndarray, expected: np.ndarray, depths: np.ndarray) -> np.ndarray:
        """Return ``rows @ inverse covariance of the noise @ others.T`` for each sample, by Woodbury's identity.

        Parameters
        ----------
        rows, others
            Samples × rows × genes.
        expected
            Expected log expression, which sets what counting adds, samples × genes.
        depths
            Of the samples.
        """
        variance = self.variance + (counting_variance(expected, depths[:, None]) if self.counted else 0 * expected)
        scaled = self.factors / variance[:, None, :]
        inner = np.eye(len(self.factors)) + scaled @ self.factors.T
        correction = np.linalg.solve(inner, scaled @ others.transpose(0, 2, 1))
        independent = (rows / variance[:, None, :]) @ others.transpose(0, 2, 1)
        return independent - (rows @ scaled.transpose(0, 2, 1)) @ correction

    def noise_level(self, log: np.ndarray, depths: np.ndarray) -> np.ndarray:
        """Return, per sample, the root mean square of its noise in units of what the model expects.

        Real samples are below 1, since the model allows for more noise than the pairs showed.
        """
        expected = self.expected(self.solve(log, depths))
        noise = (log - expected)[:, None, :]
        return np.sqrt(self.products(noise, noise, expected, depths)[:, 0, 0] / log.shape[1])


def counting_variance(log: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return the variance that Poisson counts of samples of this depth have in log expression (delta method)."""
    level = LEVEL * log.shape[-1]
    return level * np.expm1(np.maximum(log, 0)) / np.maximum(depth, 1) * np.exp(-2 * np.maximum(log, 0))
