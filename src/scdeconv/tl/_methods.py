"""Table of the available methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from scdeconv._data.checks import checked
from scdeconv.models import methods_without_reference, missing_needs, records

if TYPE_CHECKING:
    from mudata import MuData


@checked()
def methods(mdata: MuData | None = None) -> pd.DataFrame:
    """List the methods of :func:`scdeconv.tl.train`, including registered methods.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`: list only the methods that can be trained on these data. Default: all methods.

    Returns
    -------
    DataFrame with one row per method: family (``paired``, ``reference`` or ``simulated``), required data (pairs,
    profiles, cells, simulated bulk), whether the method needs a reference (cells or profiles), kind of fractions (cell
    or RNA), whether the method uses a seed, summary and reference (the publication).

    Examples
    --------
    >>> import scdeconv
    >>> scdeconv.tl.methods().loc["nnls", "family"]
    'reference'
    >>> cells, bulk = scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    >>> paired = scdeconv.pp.pair(cells, bulk)  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> bulk_only = scdeconv.pp.pair(bulk=paired["bulk"])  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> list(scdeconv.tl.methods(bulk_only).index)
    ['ensemble', 'mean_composition', 'ridge', 'simplednn']
    """
    known = {key: record for key, record in records().items() if mdata is None or not missing_needs(mdata, record)}
    columns = ["family", "needs", "fraction_kind", "stochastic", "summary", "reference"]
    table = pd.DataFrame(
        [[getattr(record, column) for column in columns] for record in known.values()],
        index=pd.Index(known, name="method"),
        columns=columns,
    )
    table.insert(2, "needs_reference", ~table.index.isin(methods_without_reference()))
    return table.assign(needs=table["needs"].map(", ".join))
