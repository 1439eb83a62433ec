"""Objects of R files as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from pathlib import Path


def read_r(path: Path) -> Any:
    """Return the object of an R file that has the same name as the file."""
    import rdata

    return rdata.read_rda(path)[path.stem]


def as_table(r_object: Any) -> pd.DataFrame:
    """Return a named R matrix or data frame as a DataFrame."""
    table = r_object if isinstance(r_object, pd.DataFrame) else r_object.to_pandas()
    # R data frames, but not matrices, have an X before column names that start with a digit
    columns = table.columns.astype(str).str.replace(r"^X(?=\d)", "", regex=True)
    return table.set_axis(table.index.astype(str), axis=0).set_axis(columns, axis=1)
