"""Record of a method: its name, requirements and properties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scdeconv._data import keys
from scdeconv._data.modalities import cell_types_of
from scdeconv._stats.markers import GENES_PER_TYPE
from scdeconv.pp import FEWEST_PAIRS, paired_donors

if TYPE_CHECKING:
    from mudata import MuData

# genes for each cell type with many pairs, and variable genes if there is no reference to find markers with: most of them do
# not depend on the composition
MANY_GENES = 150


@dataclass(frozen=True)
class Method:
    """Record of a deconvolution method: name, required data, kind of fractions.

    In the methods of the library all values are literals, so that :func:`scdeconv.tl.methods` reads them without
    importing torch.

    Parameters
    ----------
    key
        Name of the method in ``tl.train(mdata, key)``; also the name of its source file.
    family
        ``"paired"``: trained on bulk with measured fractions. ``"reference"``: fits bulk by cell-type profiles.
        ``"simulated"``: trained on bulk simulated from cells.
    needs
        Required data: ``"pairs"``, ``"profiles"``, ``"cells"``, ``"simulated"`` (simulated automatically if missing).
    summary
        Description in one line.
    reference
        Publication (authors and year), or "this library".
    fraction_kind
        Whether the fractions are shares of cells or of RNA.
    stochastic
        Whether ``train`` or the constructor takes a seed.
    selects_genes
        Whether the method selects genes by its own rule if the user selected none.
    genes_per_type
        Number of marker genes selected for each cell type if the user selected none. Without a reference, the number of
        variable genes is the same for all methods.
    genes_per_pair
        Number of marker genes for each cell type and paired donor, if it is larger: with more pairs, a method can use more
        genes. At most 150 for each cell type.
    fewest_pairs
        Minimum number of paired donors, for methods that need pairs.

    Examples
    --------
    >>> import scdeconv
    >>> scdeconv.models.NNLS.record.needs
    ('profiles',)
    """

    key: str
    family: Literal["paired", "reference", "simulated"]
    needs: tuple[str, ...]
    summary: str
    reference: str
    fraction_kind: Literal["cell", "rna"] = "cell"
    stochastic: bool = False
    selects_genes: bool = False
    genes_per_type: int = GENES_PER_TYPE
    genes_per_pair: int = 0
    fewest_pairs: int = FEWEST_PAIRS

    def n_genes(self, mdata: MuData) -> int:
        """Return the number of genes that are selected if the user selected none.

        Parameters
        ----------
        mdata
            From :func:`scdeconv.pp.pair`.

        Returns
        -------
        At most the number of genes of the bulk.
        """
        per_type = MANY_GENES
        if keys.PROFILES in mdata.mod:
            per_type = max(self.genes_per_type, min(self.genes_per_pair * len(paired_donors(mdata)), MANY_GENES))
        return min(per_type * len(cell_types_of(mdata)), mdata[keys.BULK].n_vars)

    def needed(self, train_on: str | None = None) -> tuple[str, ...]:
        """Return the required data with an argument ``train_on`` of the method.

        Parameters
        ----------
        train_on
            ``"pairs"``, ``"simulated"`` or None.

        Returns
        -------
        As ``needs``.
        """
        return self.needs if train_on is None else (train_on,)

    @property
    def uses_cell_sizes(self) -> bool:
        """Whether the estimates depend on the RNA content of the reference cells. Pairs determine it otherwise."""
        return self.fraction_kind == "cell" and self.family != "paired"

    @property
    def learns_from_pairs(self) -> bool:
        """Whether the method learns from measured fractions, so that its fit of the training samples is no estimate."""
        return self.family == "paired" or "pairs" in self.needs
