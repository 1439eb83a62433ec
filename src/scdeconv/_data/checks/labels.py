"""Checks of the labels of donors, batches and cell types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from scdeconv._data.labels import MISSING_WORDS, Values, as_labels, changed_labels, is_missing, spellings_of_one_label

from .problems import Problems, examples

if TYPE_CHECKING:
    from collections.abc import Iterable

# donors of this name on two sides would be paired
UNKNOWN_DONORS = frozenset({"unknown", "unassigned", "not available", "not applicable"})
# pandas and anndata use this column for the row names
RESERVED = "_index"


def check_labels(problems: Problems, values: pd.Series, name: str, what: str) -> pd.Series:
    """Refuse rows without a label (NaN, "nan", "NA", "None", "", ".", "-") and two spellings of one label.

    Spellings differ only in case, spaces, dots, dashes, underscores or leading zeros. Labels that are equal without
    surrounding spaces and decimals (``1.0``, ``"1"``) are one label. Donors of bulk must not be "unknown" or "unassigned".

    Parameters
    ----------
    problems
        Collected problems.
    values
        Labels as given, one for each row.
    name
        Name of the input in messages.
    what
        "donor", "cell type" or "batch".

    Returns
    -------
    The labels as text. They may be missing only if a problem was added.
    """
    labels = as_labels(values)
    # unknown donors of cells contribute to the reference; they pair with no bulk, where such donors are refused
    unknown = UNKNOWN_DONORS if what == "donor" and not name.startswith("cells") else frozenset()
    missing = is_missing(labels, MISSING_WORDS | unknown)
    if missing.any():
        words = labels[missing].dropna().unique()
        named = f" ({examples(words)})" if len(words) else ""
        problems.add(
            f"Expected a {what} for every row of {name}, found {int(missing.sum())} rows without {what}{named}: "
            f"{examples(labels.index[missing])}. Remove these rows."
        )
    unique = [str(label) for label in labels[~missing].unique()]
    check_spellings(problems, unique, name, what)
    note_changes(problems, values[~missing], labels[~missing], f"{what}s of {name}")
    return labels


def check_spellings(problems: Problems, labels: Iterable[str], name: str, what: str) -> None:
    """Refuse labels that differ only in case, spaces, dots, dashes, underscores or leading zeros."""
    groups = spellings_of_one_label(labels)
    if groups:
        shown = [" and ".join(map(repr, group)) for group in groups[:3]]
        more = f" and {len(groups) - 3} more" if len(groups) > 3 else ""
        problems.add(
            f"Expected one spelling of each {what} in {name}, found several: {'; '.join(shown)}{more}. "
            f"Give both the same name, or names that differ in more than case and separators."
        )


def check_cell_type_names(
    problems: Problems, cell_types: Iterable[object], name: str, *, spellings: bool = True
) -> pd.Index:
    """Refuse cell types that are missing, repeated, "_index", contain "/", or are two spellings of one type.

    Parameters
    ----------
    problems
        Collected problems.
    cell_types
        Names of the types.
    name
        Name of the input in messages.
    spellings
        Whether to check the spellings and note changes. Not needed after :func:`check_labels`.

    Returns
    -------
    The names as text, without surrounding spaces.
    """
    given = pd.Index(list(cell_types), dtype=object)
    names = as_labels(given)
    missing = is_missing(names)
    if missing.any():
        problems.add(
            f"Expected a name for every cell type of {name}, found {int(missing.sum())} without name: "
            f"{examples(names[missing])}. Name these types, such as 'unknown', or drop them."
        )
    names = as_labels(names.where(names.notna(), "nan"))
    slashed = [item for item in names if "/" in item and item.lower() not in MISSING_WORDS]
    if slashed:
        problems.add(
            f"Expected cell-type names without '/' in {name}, found {len(slashed)}: {examples(slashed)}. "
            "h5ad files do not support such column names. Rename them, e.g. 'NK/T' to 'NK-T'."
        )
    if RESERVED in names:
        problems.add(
            f"Expected cell-type names other than {RESERVED!r} in {name}, found it. h5ad files use it for the row "
            "names. Rename the type."
        )
    if not names.is_unique:
        repeated = names[names.duplicated()].unique()
        problems.add(
            f"Expected unique cell types in {name}, found {len(repeated)} repeated: {examples(repeated)}. "
            "Sum or rename them."
        )
    if spellings:
        check_spellings(problems, names, name, "cell type")
        note_changes(problems, given, names, f"cell types of {name}")
    return names


def note_changes(problems: Problems, values: Values, labels: Values, name: str) -> None:
    """Note labels that are read without surrounding spaces or decimals."""
    changed = changed_labels(values, labels)
    if changed:
        value, label = next(iter(changed.items()))
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        problems.note(f"{name}: {value!r} read as {label!r}{more}")
