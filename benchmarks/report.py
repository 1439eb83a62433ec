"""Locate the data of the benchmarks and write their pages in docs/benchmarks."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "benchmarks"


def use_shared_data() -> None:
    """Read public data from ../shared/data unless the user has set another directory."""
    os.environ.setdefault("SCDECONV_DATA_DIR", str(ROOT.parent / "shared" / "data"))


def provenance(data: str, seeds: list[int]) -> str:
    """Return the line with data, seeds, command and versions."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("scdeconv", "torch", "scvi-tools", "numpy"))
    # absolute paths of this machine do not help the reader
    arguments = [Path(text).name if Path(text).is_absolute() else text for text in sys.argv[1:]]
    command = f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(arguments)}".strip()
    return (
        f"Data: {data}. Seeds: {', '.join(map(str, seeds))}. Made on {datetime.date.today()} by `{command}` with {packages}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores."
    )


def markdown_table(table: pd.DataFrame) -> str:
    """Return a Markdown table with the values as they are formatted in the frame."""
    header = [table.index.name or "", *map(str, table.columns)]
    rows = [[str(index), *map(str, row)] for index, row in zip(table.index, table.to_numpy(), strict=True)]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_page(path: Path, parts: list[str]) -> None:
    """Write the parts of a page, and print them and the path."""
    text = "\n\n".join(parts) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(text)
    print(f"wrote {path}")


def mean_and_range(values: pd.Series, digits: int = 4) -> str:
    """Return the mean over seeds, with the range if there are several seeds."""
    text = f"{values.mean():.{digits}f}"
    return text if len(values) == 1 else f"{text} ({values.min():.{digits}f}–{values.max():.{digits}f})"
