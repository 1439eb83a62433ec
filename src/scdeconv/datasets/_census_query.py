"""Queries of the Census: filter, choice of cells, and messages on what it contains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from scdeconv._data import keys
from scdeconv._data.checks import examples
from scdeconv._data.checks.arguments.rules import nearest

from ._cell_sampling import CELL

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Iterator

    from ._census_store import Store

# assays that count molecules, by the start of their name
UMI_ASSAYS = "10x"
UNKNOWN_LABELS = ("unknown", "nan", "")
COLUMNS = ("dataset_id", "donor_id", keys.CELL_TYPE, "assay", "suspension_type")


def filter_of(tissue: str, disease: str | None) -> str:
    """Return the filter of cells in the syntax of SOMA, which is that of Python: ``repr`` quotes any text."""
    terms = [
        "is_primary_data == True",
        "tissue_type == 'tissue'",
        f"(tissue_general == {tissue!r} or tissue == {tissue!r})",
        *([] if disease is None else [f"disease == {disease!r}"]),
    ]
    return " and ".join(terms)


def select_cells(
    blocks: Iterable[pd.DataFrame], query: dict[str, Any], seen: dict[str, Counter[str]]
) -> Iterator[pd.DataFrame]:
    """Yield the wanted cells of each block with the donor's full name.

    Parameters
    ----------
    blocks
        Annotation of cells with ``COLUMNS``, text or categories.
    query
        Arguments of :func:`scdeconv.datasets.census_reference`.
    seen
        By column, receives the number of cells of each value that the earlier choices leave.
    """
    assays, cell_types = query["assays"], query["cell_types"]
    choices: dict[str, Callable[[pd.Series], pd.Series]] = {
        "suspension_type": lambda values: values == query["suspension_type"],
        "assay": lambda values: values.isin(assays) if assays else values.astype(str).str.startswith(UMI_ASSAYS),
        keys.CELL_TYPE: lambda values: (
            values.isin(cell_types) if cell_types else ~values.astype(str).isin(UNKNOWN_LABELS)
        ),
    }
    for table in blocks:
        wanted = pd.Series(True, index=table.index)
        for column, choose in choices.items():
            found = table.loc[wanted, column].value_counts()
            seen[column].update({str(value): int(n) for value, n in found.items() if n})
            # few distinct values: the choice is made once for each of them
            wanted &= table[column].isin(found.index[choose(found.index.to_series())])
        table = table.loc[wanted, [CELL, *COLUMNS]].astype(dict.fromkeys(COLUMNS, str))
        # studies have donors of the same name; the word in front keeps bulk samples of this name from being near matches
        yield table.assign(**{keys.DONOR: "census:" + table["donor_id"] + ":" + table["dataset_id"].str[:8]})


def list_counts(counts: Counter[str]) -> str:
    """Return the most frequent values with their numbers."""
    return examples([f"{name} ({n:,})" for name, n in counts.most_common()], 8) if counts else "none"


def describe_failure(store: Store, query: dict[str, Any], seen: dict[str, Counter[str]]) -> str:
    """Return which choice left no cells, what there is instead, and what to do."""
    tissue, suspension, assays = query["tissue"], query["suspension_type"], query["assays"]
    if not seen["suspension_type"]:
        is_tissue = tissue in (*store.values("tissue_general"), *store.values("tissue"))
        column, wanted = ("disease", query["disease"]) if is_tissue else ("tissue_general", tissue)
        known = store.values(column)
        return (
            f"Expected primary data with {column} {wanted!r} in {store.release}, found none for tissue={tissue!r}; the Census "
            f"has {examples(known, 60)}. {nearest(wanted, known)}"
        ).rstrip()
    if not seen["assay"]:
        column, wanted, argument = "suspension_type", repr(suspension), "suspension_type"
    elif not seen[keys.CELL_TYPE]:
        column, wanted, argument = (
            "assay",
            examples(assays) if assays else f"names starting with {UMI_ASSAYS!r}",
            "assays",
        )
    else:
        column, wanted, argument = keys.CELL_TYPE, examples(query["cell_types"] or ["any known type"]), "cell_types"
    return f"Expected cells of {tissue!r} with {column} {wanted}, found {list_counts(seen[column])}. Pass {argument}= from these."
