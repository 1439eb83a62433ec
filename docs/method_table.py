"""The table of the methods in docs/methods/index.md, made from their records when the documentation is built."""

from __future__ import annotations

import re
from pathlib import Path

from scdeconv import models, tl

CARDS = Path(__file__).parent / "methods"
COLUMNS = ("method", "key", "needs", "shares of", "summary")


def find_cards() -> dict[str, str]:
    """Return the link to the card of each method, by key: a page, or a heading of it."""
    found = {}
    for path in sorted(CARDS.glob("*.md")):
        heading, anchor = "", ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("#"):
                level, _, heading = line.partition(" ")
                anchor = "" if level == "#" else "#" + heading.lower().replace(" ", "-")
            for key in re.findall(r'tl\.train\(mdata, "(\w+)"', line):
                found.setdefault(key, f"[{heading}]({path.name}{anchor})")
    return found


def method_table() -> str:
    """Return the table as Markdown, one row for each record."""
    cards, methods = find_cards(), tl.methods().loc[models.built_in_methods()]
    rows = [
        (
            cards[key],
            f'`"{key}"`',
            row["needs"],
            {"cell": "cells", "rna": "RNA"}[row["fraction_kind"]],
            row["summary"],
        )
        for key, row in methods.iterrows()
    ]
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def write_method_table(path: Path) -> None:
    """Write the table to a file, whose folder is made."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(method_table(), encoding="utf-8")
