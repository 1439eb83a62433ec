"""Where a benchmark's data lie and how its page in docs/benchmarks is written."""

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
    """Read public data from ../shared/data where the user has not said otherwise."""
    os.environ.setdefault("SCDECONV_DATA_DIR", str(ROOT.parent / "shared" / "data"))


def provenance(data: str, seeds: list[int]) -> str:
    """Return the line that says what a table was made with."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("scdeconv", "torch", "scvi-tools", "numpy"))
    # where things lie on this machine is no reader's concern
    arguments = [Path(text).name if Path(text).is_absolute() else text for text in sys.argv[1:]]
    command = f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(arguments)}".strip()
    return (
        f"Data: {data}. Seeds: {', '.join(map(str, seeds))}. Made on {datetime.date.today()} by `{command}` with {packages}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores."
    )


def markdown_table(table: pd.DataFrame) -> str:
    """Return a Markdown table; numbers are written as they are formatted in the frame."""
    header = [table.index.name or "", *map(str, table.columns)]
    rows = [[str(index), *map(str, row)] for index, row in zip(table.index, table.to_numpy(), strict=True)]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_page(path: Path, parts: list[str]) -> None:
    """Write the parts of a page, print them, and say where they went."""
    text = "\n\n".join(parts) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(text)
    print(f"wrote {path}")


def mean_and_range(values: pd.Series, digits: int = 4) -> str:
    """Return the mean over seeds, with the range where there are several."""
    text = f"{values.mean():.{digits}f}"
    return text if len(values) == 1 else f"{text} ({values.min():.{digits}f}–{values.max():.{digits}f})"
