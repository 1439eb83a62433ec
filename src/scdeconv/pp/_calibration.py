"""Calibration of bulk against single cells, as tables."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.checks import checked
from scdeconv._stats.calibration.platform_calibration import PlatformCalibration

if TYPE_CHECKING:
    from mudata import MuData

# table columns, which are fields of PlatformCalibration
GENE_COLUMNS = ("platform_shift", "shift_sd", "residual_sd", "repeatability")
CELL_TYPE_COLUMNS = ("cell_size", "cell_size_umi", "mean_log_ratio")
# fields that Calibration and PlatformCalibration share
SHARED_FIELDS = ("profiles", "centre", "loadings", "covariance", "depths", "n_donors")


@dataclass
class Calibration:
    """Differences between bulk and single cells, estimated by :func:`scdeconv.pp.calibrate`.

    On the scale ``x = log(1 + 10 G share)``, with G genes, a bulk sample with cell fractions f is modelled as::

        x = log_shares(f @ profiles) + platform_shift[+batch_shift] + loadings.T @ N(0, 1) + residual_sd * N(0, 1)

    Attributes
    ----------
    genes
        Table with one row per gene: ``platform_shift`` (log expression of bulk minus single cells), ``shift_sd`` (its
        standard deviation), ``residual_sd`` (independent standard deviation between donors), ``repeatability`` (share
        of the residual variance that is common to all donors, 0 to 1).
    cell_types
        Table with one row per cell type: ``cell_size`` (RNA per cell, estimated from the pairs), ``cell_size_umi``
        (mean UMI counts per cell), ``mean_log_ratio`` (mean centred log-ratio of the compositions).
    profiles
        Mean expression per cell with the estimated cell sizes, cell types × genes.
    centre
        Mean log expression of bulk, length genes.
    loadings
        Correlated noise between donors, factors × genes: one factor per donor (and batch), or the 100 leading factors
        if there are more.
    covariance
        Covariance of the centred log-ratios of compositions, cell types × cell types.
    depths
        Library sizes of bulk samples over these genes; empty if bulk is not counts.
    batch_shift
        Table genes × batches; no columns without ``batch_key``.
    n_donors
        Number of paired donors; 0 without pairs.

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
    @checked()
    def of(cls, mdata: MuData) -> Self:
        """Return the calibration stored in ``mdata`` by :func:`scdeconv.pp.calibrate`.

        Parameters
        ----------
        mdata
            MuData with a calibration.

        Returns
        -------
        The calibration.

        Raises
        ------
        KeyError
            If ``mdata`` has no calibration.
        """
        stored = mdata.uns.get(keys.UNS, {}).get(keys.CALIBRATION)
        if stored is None:
            msg = f"Expected a calibration in mdata.uns[{keys.UNS!r}], found none. Call pp.calibrate(mdata) first."
            raise KeyError(msg)
        return cls(**{field.name: stored[field.name] for field in fields(cls)})

    @classmethod
    def from_arrays(cls, arrays: PlatformCalibration, genes: pd.Index, cell_types: list[str]) -> Self:
        """Return the calibration as tables.

        Parameters
        ----------
        arrays
            The calibration as arrays.
        genes
            Gene names.
        cell_types
            Cell-type names.

        Returns
        -------
        The calibration with gene and cell-type names.
        """
        by_type = pd.DataFrame({name: getattr(arrays, name) for name in CELL_TYPE_COLUMNS})
        batches = pd.DataFrame(index=genes)
        if len(arrays.batches):
            batches = pd.DataFrame(arrays.batch_shift.T, index=genes, columns=arrays.batches)
        return cls(
            genes=pd.DataFrame({name: getattr(arrays, name) for name in GENE_COLUMNS}, index=genes),
            cell_types=by_type.set_axis(pd.Index(cell_types, name="cell_type")),
            batch_shift=batches,
            **{name: getattr(arrays, name) for name in SHARED_FIELDS},
        )

    def to_arrays(self) -> PlatformCalibration:
        """Return the calibration as arrays without names.

        Returns
        -------
        The calibration as arrays.
        """
        values: dict[str, Any] = {name: self.genes[name].to_numpy() for name in GENE_COLUMNS}
        values |= {name: self.cell_types[name].to_numpy() for name in CELL_TYPE_COLUMNS}
        values |= {name: getattr(self, name) for name in SHARED_FIELDS}
        return PlatformCalibration(
            **values,
            batches=self.batch_shift.columns.to_numpy(),
            batch_shift=self.batch_shift.to_numpy().T,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, in types that ``mdata.uns`` can store and write.

        Returns
        -------
        Fields by name.
        """
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @checked()
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
        return self.to_arrays().draw_compositions(n_samples, broad, rng)

    @checked()
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
        if np.ndim(fractions) != 2 or np.shape(fractions)[1] != len(self.cell_types):
            msg = (
                f"Expected fractions as samples × {len(self.cell_types)} cell types, found shape {np.shape(fractions)}. "
                f"Pass one column for each of {list(self.cell_types.index)}."
            )
            raise ValueError(msg)
        return self.to_arrays().draw_bulk(np.asarray(fractions, dtype=float), rng)
