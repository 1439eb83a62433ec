"""Errors of the methods, read from the tables of the benchmark pages when the documentation is built.

conf.py has the role ``{rmse}`method, data set```, which writes one error into a sentence. :func:`score_table` compares all methods.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from method_table import find_cards

PAGES = Path(__file__).parent / "benchmarks"
MEAN = "mean_composition"
# names of the same method on the pages, if they are not its key or its class
OTHER_NAMES = {
    "ridge on the pairs": "ridge",
    "ridge on the simulation": "simulation_ridge",
    "mean composition, in hindsight": MEAN,
    "mean composition, training": MEAN,
}
DEFAULT_SUFFIX = " (default)"


class DataSet(NamedTuple):
    """A column of errors: its page, the beginning of its heading, and the heading of the column."""

    page: str
    section: str = ""
    column: str = "RMSE"


GROUPS = {
    "With pairs and a reference": {
        "retina": DataSet("held_out_donors", "Retina"),
        "generated, seed 0": DataSet("held_out_donors", "Generated cohort, seed 0"),
        "generated, seed 1": DataSet("held_out_donors", "Generated cohort, seed 1"),
        "cell lines, half of them as pairs": DataSet("cell_line_pairs", column="RMSE, a random half"),
    },
    "With measured fractions and no reference": {
        "whole-blood arrays": DataSet("without_reference", column="whole blood"),
        "PBMC arrays": DataSet("without_reference", column="PBMC"),
        "retina, no reference": DataSet("without_reference", column="retina"),
    },
    "Trained on one cohort, tested on another": {
        "blood, RNA-seq to arrays": DataSet(
            "cohort_to_cohort", "Whole blood: 5 RNA-seq samples → 24 arrays, profiles of sorted cells"
        ),
        "PBMC, Finotello to Hoek": DataSet("cohort_to_cohort", "PBMC: Finotello"),
        "blood, arrays to RNA-seq, no reference": DataSet("cohort_to_cohort", "Whole blood: 24 arrays"),
    },
    "Without pairs": {
        "Finotello": DataSet("reference_based", "Finotello"),
        "Hoek": DataSet("reference_based", "Hoek"),
        "cell lines": DataSet("reference_based", "Cell lines"),
    },
}
# errors by the number of pairs, for sentences
OTHERS = {f"retina, {n} pairs": DataSet("learning_curve", "Retina", str(n)) for n in (4, 8)} | {
    f"generated, {n} pairs": DataSet("learning_curve", "Generated cohort", str(n)) for n in (4, 8, 16, 32, 64, 128)
}
DATA_SETS = {name: data_set for group in (*GROUPS.values(), OTHERS) for name, data_set in group.items()}


def squeeze(name: str) -> str:
    """Return a name in lower case without spaces and underscores: ``CalibratedMAP`` is ``calibrated_map``."""
    return re.sub(r"[ _]", "", name.removesuffix(DEFAULT_SUFFIX).lower())


@functools.cache
def method_keys() -> dict[str, str]:
    """Return the key of each method by its squeezed names."""
    return {squeeze(key): key for key in find_cards()} | {squeeze(name): key for name, key in OTHER_NAMES.items()}


def cells_of(line: str) -> list[str]:
    """Return the cells of a row of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


@functools.cache
def read_scores(data_set: DataSet) -> dict[str, str]:
    """Return the error of each method of the library in a column of a page, as it is written there without its range."""
    lines = (PAGES / f"{data_set.page}.md").read_text(encoding="utf-8").splitlines()
    heading = re.compile(rf"#+ {re.escape(data_set.section)}")
    start = next(i for i, line in enumerate(lines) if heading.match(line))
    first = next(i for i in range(start, len(lines)) if lines[i].startswith("|"))
    column = next(i for i, name in enumerate(cells_of(lines[first])) if name.startswith(data_set.column))
    found: dict[str, str] = {}
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        name, value = cells_of(line)[0], cells_of(line)[column]
        key = method_keys().get(squeeze(name))
        if key is not None and re.match(r"\d", value):
            found.setdefault(key, value.split()[0].rstrip(","))
    return found


def find_score(text: str) -> str:
    """Return the error for ``method, data set`` with three digits after the decimal point."""
    method, _, name = (part.strip() for part in text.partition(","))
    if name not in DATA_SETS or method not in read_scores(DATA_SETS[name]):
        msg = f"Expected a method and a data set of docs/score_table.py, found {text!r}. Correct the text of the role rmse."
        raise ValueError(msg)
    return f"{float(read_scores(DATA_SETS[name])[method]):.3f}"


def score_table() -> str:
    """Return a table for each group of data sets as Markdown: error and rank of each method."""
    cards, parts = find_cards(), []
    for title, data_sets in GROUPS.items():
        scores = pd.DataFrame({name: pd.Series(read_scores(each)) for name, each in data_sets.items()}).astype(float)
        ranks = scores.rank(method="min")
        # the mean rank, as a share of the methods of the column, because columns have different methods
        order = (ranks / scores.count()).mean(axis=1).sort_values().index
        header = ["method", *(f"[{name}]({each.page}.md)" for name, each in data_sets.items())]
        rows = []
        for key in order:
            values = [
                "–" if pd.isna(score) else f"{score:.3f}\N{NO-BREAK SPACE}({rank:.0f})"
                for score, rank in zip(scores.loc[key], ranks.loc[key], strict=True)
            ]
            page = cards[key].rpartition("](")[2].rstrip(")")
            row = [f"[{key}](../methods/{page})", *values]
            rows.append([f"**{cell}**" for cell in row] if key == MEAN else row)
        lines = [header, ["---"] * len(header), *rows]
        parts.append(f"## {title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")
    return "\n".join(parts)


def write_score_table(path: Path) -> None:
    """Write the tables to a file, whose folder is made."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(score_table(), encoding="utf-8")
