"""What the pairs teach about bulk against single cells, as tables."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from scdeconv._data import keys
from scdeconv._stats.calibration.platform_calibration import PlatformCalibration

if TYPE_CHECKING:
    import numpy as np
    from mudata import MuData

# columns of the tables, arrays of PlatformCalibration
OF_GENES = ("platform_shift", "shift_sd", "residual_sd", "repeatability")
OF_CELL_TYPES = ("cell_size", "cell_size_umi", "mean_log_ratio")
# arrays that tables and PlatformCalibration have in common
SHARED = ("profiles", "centre", "loadings", "covariance", "depths", "n_donors")


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
        Correlated part of what differs between donors, factors × genes: a factor for each donor (and batch), or the 100
        leading directions where there are more.
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

    @classmethod
    def from_arrays(cls, arrays: PlatformCalibration, genes: pd.Index, cell_types: list[str]) -> Self:
        """Return tables of the arrays, with the names of their genes and cell types."""
        by_type = pd.DataFrame({name: getattr(arrays, name) for name in OF_CELL_TYPES})
        batches = pd.DataFrame(index=genes)
        if len(arrays.batches):
            batches = pd.DataFrame(arrays.batch_shift.T, index=genes, columns=arrays.batches)
        return cls(
            genes=pd.DataFrame({name: getattr(arrays, name) for name in OF_GENES}, index=genes),
            cell_types=by_type.set_axis(pd.Index(cell_types, name="cell_type")),
            batch_shift=batches,
            **{name: getattr(arrays, name) for name in SHARED},
        )

    def to_arrays(self) -> PlatformCalibration:
        """Return the values without their names."""
        values: dict[str, Any] = {name: self.genes[name].to_numpy() for name in OF_GENES}
        values |= {name: self.cell_types[name].to_numpy() for name in OF_CELL_TYPES}
        values |= {name: getattr(self, name) for name in SHARED}
        return PlatformCalibration(
            **values,
            batches=self.batch_shift.columns.to_numpy(),
            batch_shift=self.batch_shift.to_numpy().T,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as ``mdata.uns`` can hold and write them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def draw_compositions(self, n_samples: int, broad: float, rng: np.random.Generator) -> np.ndarray:
        """Draw from the logistic-normal of the donors and, in a share ``broad``, from everywhere (Scaden's rule)."""
        return self.to_arrays().draw_compositions(n_samples, broad, rng)

    def draw_bulk(self, fractions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw bulk samples of the given composition, samples × genes: counts, or shares where bulk is not counts."""
        return self.to_arrays().draw_bulk(fractions, rng)
