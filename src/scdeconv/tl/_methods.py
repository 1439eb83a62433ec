"""The methods there are, and what each needs."""

from __future__ import annotations

import pandas as pd

from scdeconv.models import records


def methods() -> pd.DataFrame:
    """List the methods that :func:`scdeconv.tl.train` knows, those that you registered included.

    Returns
    -------
    One row per method: its family (``paired``, ``reference`` or ``simulated``), what it needs in the data (pairs, profiles,
    cells, simulated bulk), whether the fractions are shares of cells or of RNA, whether it takes a seed, a summary and the
    source.

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
