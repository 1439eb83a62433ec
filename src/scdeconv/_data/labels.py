"""Labels of donors, samples and cell types: text conversion and comparison of spellings, equal in pandas 2 and 3."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from anndata import AnnData
    from mudata import MuData

    Annotated = TypeVar("Annotated", AnnData, MuData)

Values = TypeVar("Values", pd.Series, pd.Index)

# texts that programs write for missing values, in lower case
MISSING_WORDS = frozenset(
    {"", ".", "-", "--", "?", "na", "n/a", "#n/a", "<na>", "nan", "nat", "none", "null", "missing"}
)
# True and False in tables of other programs, in lower case
FLAG_WORDS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
DECIMAL, WHOLE = re.compile(r"[+-]?\d+\.\d+"), re.compile(r"([+-]?\d+)\.0+")
# a dash after a word and before a space or the end is a sign, as in "CD4- T cell"
MINUS = re.compile(r"(?<=\w)-(?=[\s,;)]|$)")
# R's make.names puts an X before names that start with a number or an invalid character
R_PREFIX = re.compile(r"^[xX](?=[\d.])")
DASHES = re.compile("[‐‑‒–—]")


def as_text(values: Values) -> Values:
    """Return values as text; missing values become ``"nan"`` in both pandas 2 and 3."""
    return values.astype(object).where(values.notna(), "nan").astype(str)


def as_labels(values: Values) -> Values:
    """Return labels as text without surrounding spaces; missing values stay missing.

    Whole numbers are written without decimals (``1.0`` becomes ``"1"``) unless other labels have decimals.
    """
    codes, unique = pd.factorize(values)
    texts: list[Any] = [_clean(value) for value in unique]
    if all(WHOLE.fullmatch(text) for text in texts if DECIMAL.fullmatch(text)):
        texts = [whole[1] if (whole := WHOLE.fullmatch(text)) else text for text in texts]
    labels: Any = np.array([*texts, np.nan], dtype=object)[codes]
    if isinstance(values, pd.Series):
        return pd.Series(labels, index=values.index, name=values.name, dtype=object)
    return pd.Index(labels, name=values.name, dtype=object)


def _clean(value: object) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return unicodedata.normalize("NFC", text).strip()


def as_flags(values: pd.Series) -> pd.Series:
    """Return a mask from True and False, also as text or as 1 and 0; missing values are False. Refuse others."""
    flags = values.map(lambda value: FLAG_WORDS.get(str(value).lower()))
    wrong = values[flags.isna() & ~is_missing(values)]
    if len(wrong):
        msg = f"Expected True or False, found {wrong.iloc[0]!r}. Correct the value."
        raise ValueError(msg)
    return flags.eq(True)


def as_categorical(values: pd.Series) -> pd.Categorical[Any]:
    """Return labels as text, with the used categories in the order of the given categories, or sorted."""
    given = values.astype("category").cat.remove_unused_categories()
    order = as_text(as_labels(pd.Index(given.cat.categories))).unique()
    return pd.Categorical(as_labels(given), categories=pd.Index(order, dtype=str))


def is_continuous(values: pd.Series) -> bool:
    """Return whether a column has numbers; True and False are groups."""
    return is_numeric_dtype(values.dtype) and not is_bool_dtype(values.dtype)


def is_missing(labels: pd.Series | pd.Index, words: frozenset[str] = MISSING_WORDS) -> np.ndarray:
    """Return a mask of the labels that are missing or a word for missing values, such as ``"NA"``."""
    codes, unique = pd.factorize(labels)
    return np.array([*(str(value).lower() in words for value in unique), True], dtype=bool)[codes]


def changed_labels(values: Values, labels: Values) -> dict[str, str]:
    """Return the labels of :func:`as_labels` that are not written like their values, by the text of the value."""
    pairs = pd.DataFrame({"value": np.asarray(as_text(values)), "label": np.asarray(labels)}).drop_duplicates()
    return {value: label for value, label in pairs.itertuples(index=False) if value != label and isinstance(label, str)}


def spelling(label: str) -> str:
    """Return a label without case, spaces, dots, dashes, underscores and leading zeros.

    Separators between numbers and signs such as in ``"CD4+"`` and ``"CD4- T"`` are kept: they change the meaning.
    """
    text = MINUS.sub("−", DASHES.sub("-", label)).lower()
    return _join(re.findall(r"\d+|[^\W\d_]+|[^\w\s.-]", text))


def r_spelling(label: str) -> str:
    """Return the :func:`spelling` of a label after R's ``make.names``, which replaces signs by dots."""
    return _join(re.findall(r"\d+|[^\W\d_]+", R_PREFIX.sub("", label).lower()))


def _join(tokens: list[str]) -> str:
    """Join tokens; numbers have no leading zeros, and a space between them."""
    text = ""
    for token in tokens:
        number = token.lstrip("0") or "0" if token.isdigit() else token
        text += f" {number}" if token.isdigit() and text[-1:].isdigit() else number
    return text


def spellings_of_one_label(labels: Iterable[str]) -> list[list[str]]:
    """Return groups of labels that differ only in case, spaces, dots, dashes, underscores and leading zeros."""
    groups: dict[str, list[str]] = {}
    for label in dict.fromkeys(labels):
        groups.setdefault(spelling(label), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def near_matches(ours: Iterable[str], theirs: Iterable[str]) -> dict[str, str]:
    """Return labels of ``ours`` without an equal label in ``theirs``, and the label that nearly matches.

    Labels match nearly if they differ in case, separators, leading zeros or by R's ``make.names`` (``"X1"`` and ``"1"``).
    """
    mine, others = list(dict.fromkeys(ours)), list(dict.fromkeys(theirs))
    lonely = [label for label in mine if label not in set(others)]
    free = [label for label in others if label not in set(mine)]
    found: dict[str, str] = {}
    for key in (spelling, r_spelling):
        by_key = {key(label): label for label in reversed(free)}
        found = {label: by_key[key(label)] for label in lonely if key(label) in by_key} | found
    return {label: found[label] for label in lonely if label in found}


def plain_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with nullable string columns converted to object columns.

    anndata 0.12 reads text of newer releases as nullable strings but cannot write them.
    """
    for name, dtype in table.dtypes.items():
        if _is_nullable_text(dtype):
            table = table.assign(**{str(name): table[name].astype(object).where(table[name].notna(), None)})
    if _is_nullable_text(table.index.dtype):
        table = table.set_axis(table.index.astype(object), axis=0)
    if _is_nullable_text(table.columns.dtype):
        table = table.set_axis(table.columns.astype(object), axis=1)
    return table


def plain_tables(adata: Annotated) -> Annotated:
    """Apply :func:`plain_table` to all tables of an object in place and return the object."""
    adata.obs, adata.var = plain_table(adata.obs), plain_table(adata.var)
    for tables in (adata.obsm, adata.varm, adata.uns):
        _replace_tables(tables)
    return adata


def _replace_tables(values: MutableMapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, pd.DataFrame):
            values[key] = plain_table(value)
        elif isinstance(value, dict):
            _replace_tables(value)


def _is_nullable_text(dtype: object) -> bool:
    return isinstance(dtype, pd.StringDtype) and dtype.na_value is pd.NA
