"""Record of a method: its name, requirements and properties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scdeconv._data import keys
from scdeconv._data.modalities import cell_types_of
from scdeconv._stats.markers import GENES_PER_TYPE
from scdeconv.pp import FEWEST_PAIRS

if TYPE_CHECKING:
    from mudata import MuData

# variable genes in place of each marker gene if there is no reference to find markers with. On pairs alone, more genes
# lower the error on arrays and hardly change it on RNA-seq
VARIABLE_GENES = 3


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
        Number of marker genes selected for each cell type if the user selected none. Without a reference,
        :data:`VARIABLE_GENES` times as many variable genes.
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
        per_type = self.genes_per_type * (1 if keys.PROFILES in mdata.mod else VARIABLE_GENES)
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
