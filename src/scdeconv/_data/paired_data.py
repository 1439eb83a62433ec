"""Training data of a method: pairs, bulk and reference over the model's genes, without held-out donors."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scdeconv._data import keys
from scdeconv._data.annotated import values_of
from scdeconv._data.checks import SUM_TOLERANCE, checked
from scdeconv._data.fractions import complete_by, complete_fractions, has_measured, measured_shares
from scdeconv._data.matrix import get_matrix
from scdeconv._data.modalities import cell_types_of
from scdeconv._data.reference import CellStates, Reference
from scdeconv._data.units import COUNTS, unit_of

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd
    from mudata import MuData


class Pairs(NamedTuple):
    """Bulk samples with measured fractions."""

    #: Samples × genes.
    expression: np.ndarray
    #: Samples × cell types.
    fractions: np.ndarray
    #: Donor of each sample (str).
    donors: np.ndarray


class PairedData:
    """Training data that the ``fit`` of a method reads: pairs, bulk and reference over the model's genes.

    The methods take ``without``, the donors to exclude from bulk and reference. This allows cross-fitting of ``fit``.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`.
    genes
        Genes of the model.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> data = scdeconv.models.PairedData(mdata, mdata["bulk"].var_names)
    >>> first = data.pairs().donors[0]
    >>> data.pairs().expression.shape, data.pairs(without=[first]).expression.shape
    ((6, 300), (5, 300))
    >>> data.profiles().shape, len(data.cell_types)
    ((7, 300), 7)
    """

    @checked()
    def __init__(self, mdata: MuData, genes: pd.Index) -> None:
        self.mdata = mdata
        self.genes = genes
        self._cell_states: dict[str, CellStates] = {}

    @property
    def samples(self) -> pd.DataFrame:
        """Metadata of all bulk samples (``obs`` of the bulk modality)."""
        return self.mdata[keys.BULK].obs

    @cached_property
    def cell_types(self) -> list[str]:
        """Names of the cell types: those of the reference, else those of the measured fractions."""
        return cell_types_of(self.mdata)

    @cached_property
    def reference(self) -> Reference:
        """Single-cell reference: profiles and sums of counts per donor and cell type."""
        return Reference(self.mdata, self.genes)

    @property
    def bulk_unit(self) -> str:
        """Unit of the bulk, as recorded by :func:`scdeconv.pp.pair`, else found from the values."""
        unit: str | None = self._record("pair").get("bulk_unit")
        return unit or unit_of(self.mdata[keys.BULK].X)

    @property
    def is_counts(self) -> bool:
        """Whether the bulk is counts."""
        return self.bulk_unit == COUNTS

    @property
    def measured(self) -> np.ndarray:
        """Mask of the bulk samples with measured fractions of all or some cell types."""
        return has_measured(self.mdata[keys.BULK].obsm[keys.MEASURED])

    @cached_property
    def reads(self) -> np.ndarray:
        """Sum of each bulk sample over the model's genes, or over all genes for a model without genes."""
        matrix, genes = get_matrix(self.mdata[keys.BULK], None, "bulk"), self.mdata[keys.BULK].var_names
        columns = genes.get_indexer(self.genes) if len(self.genes) else slice(None)
        return np.asarray(matrix[:, columns].sum(axis=1), dtype=float).ravel()

    @property
    def library_size(self) -> float | None:
        """Median number of reads of the bulk samples in the model's genes; None if the bulk is not counts."""
        reads = self.reads[self.reads > 0]
        return float(np.median(reads)) if self.is_counts and len(self.genes) and len(reads) else None

    @property
    def levels(self) -> dict[str, list[str]] | None:
        """Cell types of each level of the hierarchy of :func:`scdeconv.pp.pair`; None without hierarchy.

        Levels with types that the reference lacks, such as another signature, are left out.
        """
        recorded = self._record("pair").get("hierarchy", {})
        # from files, lists are arrays
        levels = {str(name): [str(cell_type) for cell_type in of] for name, of in recorded.items()}
        return {name: of for name, of in levels.items() if {*of} <= {*self.cell_types}} or None

    @property
    def batch_key(self) -> str | None:
        """Column of ``samples`` with the batch, as passed to :func:`scdeconv.pp.calibrate`; None without batches."""
        key: str | None = self._record("calibrate").get("batch_key")
        return key

    def _record(self, step: str) -> dict:
        record: dict = self.mdata.uns.get(keys.UNS, {}).get(step, {})
        return record

    def kept(self, without: Collection[str] = ()) -> np.ndarray:
        """Return a mask of the bulk samples of all donors but the excluded ones.

        Parameters
        ----------
        without
            Donors to exclude.

        Returns
        -------
        Boolean array, length samples. Samples without measured fractions are included.
        """
        kept: np.ndarray = ~self.samples[keys.DONOR].isin(without).to_numpy()
        return kept

    def paired(self, without: Collection[str] = ()) -> np.ndarray:
        """Return a mask of the bulk samples with measured fractions and reads in the model's genes.

        Parameters
        ----------
        without
            Donors to exclude.

        Returns
        -------
        Boolean array, length samples.
        """
        paired: np.ndarray = self.measured & (self.reads > 0) & self.kept(without)
        return paired

    def bulk(self, without: Collection[str] = ()) -> np.ndarray:
        """Return the expression of the bulk samples, with or without measured fractions.

        Parameters
        ----------
        without
            Donors to exclude.

        Returns
        -------
        Samples × genes.
        """
        return values_of(self.mdata[keys.BULK], self.kept(without), self.genes)

    def pairs(self, without: Collection[str] = (), estimates: np.ndarray | None = None) -> Pairs:
        """Return the bulk samples with measured fractions.

        Parameters
        ----------
        without
            Donors to exclude.
        estimates
            Estimates of these samples (samples × cell types) that complete the fractions of types that a sample lacks.
            None: the mean composition completes them.

        Returns
        -------
        Named tuple of ``expression`` (samples × genes), ``fractions`` (samples × cell types) and ``donors`` (length
        samples, str). With a reference, the fractions are shares of the measured types (rows sum to 1).
        """
        rows = self.paired(without)
        bulk = self.mdata[keys.BULK]
        measured = bulk.obsm[keys.MEASURED][rows]
        completed = complete_fractions(measured, self._record("pair").get("never_measured"))
        shares = measured_shares(completed, self.cell_types)
        fractions = shares.to_numpy(dtype=float)
        if estimates is not None:
            known = shares.where(measured[shares.columns].notna())
            panel = known.isna().any(axis=1) & (measured.sum(axis=1) >= 1 - SUM_TOLERANCE)
            fractions = complete_by(known.div(known.sum(axis=1).where(panel, 1), axis=0).to_numpy(), estimates)
        return Pairs(values_of(bulk, rows, self.genes), fractions, bulk.obs[keys.DONOR].to_numpy()[rows].astype(str))

    def lacks_types(self, without: Collection[str] = ()) -> bool:
        """Return whether some pairs lack single cell types.

        Parameters
        ----------
        without
            Donors to exclude.

        Returns
        -------
        True or False.
        """
        return bool(self.mdata[keys.BULK].obsm[keys.MEASURED][self.paired(without)].isna().any(axis=None))

    def pseudobulk(self, without: Collection[str] = ()) -> np.ndarray:
        """Return the summed cells of the donor of each sample of :meth:`pairs`.

        Parameters
        ----------
        without
            Donors to exclude.

        Returns
        -------
        Samples × genes, not normalised. For donors without cells: the measured fractions times the profiles.
        """
        pairs = self.pairs(without)
        expected = pairs.fractions @ self.profiles(without)
        if keys.PSEUDOBULK not in self.mdata.mod:
            return expected
        given = self.mdata[keys.PSEUDOBULK]
        position = {donor: row for row, donor in enumerate(given.obs[keys.DONOR].astype(str))}
        rows = np.array([position.get(donor, -1) for donor in pairs.donors], dtype=int)
        expected[rows >= 0] = values_of(given, rows[rows >= 0], self.genes)
        return expected

    def cell_states(self, key: str, without: Collection[str] = ()) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the counts of the cell states.

        Parameters
        ----------
        key
            Column of the cells' ``obs`` with the cell state. The cells are read once for each column.
        without
            Donors to exclude.

        Returns
        -------
        Sums of counts (states × genes), total counts over all genes (length states), and the index of the cell type of
        each state (length states).
        """
        if key not in self._cell_states:
            self._cell_states[key] = CellStates(self.mdata[keys.CELLS], key, self.cell_types)
        return self._cell_states[key].profiles(self.genes, without)

    def profiles(self, without: Collection[str] = ()) -> np.ndarray:
        """Return the mean counts per cell of each cell type.

        Parameters
        ----------
        without
            Donors to exclude.

        Returns
        -------
        Cell types × genes.
        """
        return self.reference.profiles(without)[0]

    def cell_sizes(self, without: Collection[str] = ()) -> np.ndarray:
        """Return the mean total counts per cell of each cell type.

        Parameters
        ----------
        without
            Donors to exclude.

        Returns
        -------
        Mean total counts over all genes, length cell types.
        """
        return self.reference.profiles(without)[1]
