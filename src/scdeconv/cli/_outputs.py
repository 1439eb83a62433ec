"""Output files of the commands."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from scdeconv._data.checks import examples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pandas as pd


def claim(paths: Sequence[Path], *, force: bool) -> None:
    """Raise an error for existing output before the computation."""
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        msg = f"Expected no existing output, found {examples(there)}. Add --force to overwrite it."
        raise FileExistsError(msg)


def beside(path: Path, side: str) -> Path:
    """Return 'fractions_lower.tsv.gz' for 'fractions.tsv.gz'."""
    ending = ".gz" if path.suffix == ".gz" else ""
    table = path.with_name(path.name.removesuffix(".gz"))
    return table.with_name(f"{table.stem}_{side}{table.suffix}{ending}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name, and rename the file when it is complete. After a failure the old file is unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield new
        new.replace(path)
        print(f"wrote {path}")
    finally:
        new.unlink(missing_ok=True)


def write_table(table: pd.DataFrame, path: Path, **options: Any) -> None:
    """Write a table with six digits: tabs for .tsv, commas for .csv, gzip for .gz."""
    table.to_csv(path, sep="\t" if ".tsv" in path.suffixes else ",", float_format="%.6g", **options)
