"""The record of a method, which stands in its class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scdeconv._stats.markers import GENES_PER_TYPE
from scdeconv.pp import FEWEST_PAIRS


@dataclass(frozen=True)
class Method:
    """What a deconvolution method is called, what it needs and what it returns.

    All values are literals, so that :func:`scdeconv.tl.methods` reads them without importing torch.

    Parameters
    ----------
    key
        Name for ``tl.train(mdata, key)``; also the name of its file.
    family
        ``"paired"``: learns from bulk with measured fractions; ``"reference"``: fits bulk by cell-type profiles;
        ``"simulated"``: learns from bulk simulated from cells.
    needs
        What has to be in the data: ``"pairs"``, ``"profiles"``, ``"cells"``, ``"simulated"`` (simulated if missing).
    summary
        One line.
    reference
        Source: authors and year, or "this library".
    fraction_kind
        Whether the fractions are shares of cells or of RNA.
    stochastic
        Whether ``train`` or the constructor takes a seed.
    selects_genes
        Whether the method chooses genes by a rule of its own where the user selected none.
    genes_per_type
        Genes selected for each cell type where the user selected none.
    fewest_pairs
        Least number of paired donors, for methods that need pairs.

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
