"""Table of the available methods."""

from __future__ import annotations

import pandas as pd

from scdeconv._data.checks import checked
from scdeconv.models import records


@checked()
def methods() -> pd.DataFrame:
    """List the methods of :func:`scdeconv.tl.train`, including registered methods.

    Returns
    -------
    DataFrame with one row per method: family (``paired``, ``reference`` or ``simulated``), required data (pairs,
    profiles, cells, simulated bulk), kind of fractions (cell or RNA), whether the method uses a seed, summary and
    reference.

    Examples
    --------
    >>> import scdeconv
    >>> scdeconv.tl.methods().loc["nnls", "family"]
    'reference'
    """
    known = records()
    columns = ["family", "needs", "fraction_kind", "stochastic", "summary", "reference"]
    table = pd.DataFrame(
        [[getattr(record, column) for column in columns] for record in known.values()],
        index=pd.Index(known, name="method"),
        columns=columns,
    )
    return table.assign(needs=table["needs"].map(", ".join))
