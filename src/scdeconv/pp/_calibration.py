"""What the pairs teach about bulk against single cells, and bulk drawn from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.special import softmax

from scdeconv._data import keys
from scdeconv._stats.draws import draw_fractions
from scdeconv._stats.expression import LEVEL, log_shares
from scdeconv._stats.logistic_normal import CalibratedModel

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

    Examples
    --------
    >>> import numpy as np
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> calibration = scdeconv.pp.calibrate(mdata)
    >>> calibration.cell_types[["cell_size", "cell_size_umi"]].shape
    (7, 2)
    >>> fractions = calibration.draw_compositions(20, broad=0.1, rng=np.random.default_rng(0))
    >>> calibration.draw_bulk(fractions, rng=np.random.default_rng(0)).shape
    (20, 300)
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
