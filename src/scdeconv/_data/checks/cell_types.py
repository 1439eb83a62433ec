"""Cell types of two tables: names that probably mean the same, and finer types."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from itertools import chain
from typing import TYPE_CHECKING, Literal

from scdeconv._data.keys import UNMEASURED
from scdeconv._data.labels import near_matches

from .problems import Problems, examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd

# words of cell-type names in other forms
SYNONYMS = {"mono": "monocyte", "dendritic": "dc", "regulatory": "reg"}
TWO_WORDS = {frozenset({"natural", "killer"}): frozenset({"nk"}), frozenset({"treg"}): frozenset({"t", "reg"})}
# words without information beside other words
FILLERS = frozenset({"lymphocyte"})
# names of columns that are probably the unmeasured rest
RESTS = frozenset({("other",), ("rest",), ("remainder",), ("unmeasured",), ("unknown",), ("unassigned",)})
# minimum length and similarity of two words that differ by a typing error (set by hand)
MIN_LETTERS, MIN_SIMILARITY = 5, 0.85


def words_of_type(name: str) -> tuple[str, ...]:
    """Return the sorted words of a cell-type name: lower case, singular, without "cell" and separators."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    # "CD8-" before a space or at the end is a negative marker, any other dash a separator
    text = re.sub(r"(?<=\w)-(?=$|\s)", " negative ", text).lower()
    text = re.sub(r"cells?(?![^\W\d_])", " ", text)
    found = [_singular(word) for word in re.findall(r"cd\d+|[^\W\d_]+|\d+", text)]
    words = {SYNONYMS.get(word, word) for word in found}
    for phrase, other in TWO_WORDS.items():
        if phrase <= words:
            words = words - phrase | other
    return tuple(sorted(words - FILLERS or words)) or (name.lower(),)


def near_types(types: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """Return cell types without an equal name in ``others``, and the only name that probably means the same.

    Names match nearly if they differ in case, separators, plural, "cell", "+" and the order of words, by an abbreviation or
    by a typing error.
    """
    mine, theirs = list(types), list(others)
    first = {name: words_of_type(name) for name in mine if name not in theirs}
    second = {name: words_of_type(name) for name in theirs if name not in mine}
    found = _unique_pairs(first, second, lambda one, two: one == two)
    for name, other in found.items():
        del first[name], second[other]
    return found | _unique_pairs(first, second, _misspelt)


def rest_columns(names: Iterable[str]) -> list[str]:
    """Return the names of columns that are probably the unmeasured rest, such as "Other" or "unknown"."""
    return [name for name in names if words_of_type(name) in RESTS]


def finer_types(coarse: Iterable[str], fine: Iterable[str]) -> dict[str, list[str]]:
    """Return groups of at least two types whose names contain the words of a coarser type."""
    words = {name: set(words_of_type(name)) for name in fine}
    groups = {name: [other for other in words if set(words_of_type(name)) < words[other]] for name in coarse}
    return {name: members for name, members in groups.items() if len(members) > 1}


def _unique_pairs(
    first: dict[str, tuple[str, ...]],
    second: dict[str, tuple[str, ...]],
    same: Callable[[tuple[str, ...], tuple[str, ...]], bool],
) -> dict[str, str]:
    """Return the pairs of names in which neither name has a second partner."""
    pairs = [(name, other) for name in first for other in second if same(first[name], second[other])]
    names, others = ([pair[side] for pair in pairs] for side in (0, 1))
    return {name: other for name, other in pairs if names.count(name) == others.count(other) == 1}


def _misspelt(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Return whether all words are equal or long and similar; short words and numbers must be equal."""
    return len(first) == len(second) and all(
        one == two
        or (
            min(len(one), len(two)) >= MIN_LETTERS
            and SequenceMatcher(None, one, two, autojunk=False).ratio() >= MIN_SIMILARITY
        )
        for one, two in zip(first, second, strict=True)
    )


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def report_differences(
    problems: Problems,
    measured: pd.Index,
    other: pd.Index,
    what: Literal["cell types", "samples"] = "cell types",
    names: tuple[str, str] = ("measured", "predicted"),
) -> None:
    """Report names that only one of two tables has, with a proposal: rename them, merge them or select the shared ones.

    Parameters
    ----------
    problems
        Collects the message.
    measured, other
        Names. Repeated names are accepted only in identical order.
    what
        What the names are.
    names
        The tables, as Python expressions.
    """
    if measured.equals(other) and (what == "samples" or measured.is_unique):
        return
    absent, extra = measured.difference(other, sort=False), other.difference(measured, sort=False)
    repeated = [*measured[measured.duplicated()].unique(), *other[other.duplicated()].unique()]
    if repeated:
        problems.add(
            f"Expected the same unique {what} in {names[0]} and {names[1]}, found {len(repeated)} repeated: {examples(repeated)}. "
            "Sum or rename them."
        )
    if not len(absent) and not len(extra):
        return
    found = ", ".join(
        f"only {name if '.' not in name else f'in {name}'}: {list(side[:5])} ({len(side)})"
        for name, side in zip(names, (absent, extra), strict=True)
    )
    axis, near_names = ("columns", near_types) if what == "cell types" else ("index", near_matches)
    near = near_names(absent, extra)
    absent, extra = absent.drop(list(near)), extra.drop(list(near.values()))
    if what == "cell types":
        rest = rest_columns(absent) if UNMEASURED not in measured else []
        near |= dict.fromkeys(rest[:1], UNMEASURED)
        absent = absent.drop(rest[:1])
    advice = []
    if near:
        advice.append(f"If these are the same, rename them: {names[0]} = {names[0]}.rename({axis}={near}).")
    sides = ((absent, extra, names[1]), (extra, absent, names[0])) if what == "cell types" else ()
    for coarse, fine, name in sides:
        groups = finer_types(coarse, fine)
        if groups:
            # of an AnnData, all tables are merged
            table = name.split(".")[0]
            advice.append(
                f"If these are finer types, add them up: {table} = scdeconv.tl.merge_types({table}, {groups})."
            )
            absent, extra = (
                side.drop([*groups, *chain(*groups.values())], errors="ignore") for side in (absent, extra)
            )
    if len(absent) and what == "cell types":
        advice.append(
            f"If the estimate cannot contain {examples(absent)}, count them as unmeasured: "
            f"{names[0]} = scdeconv.tl.merge_types({names[0]}, {{{UNMEASURED!r}: {list(absent)}}})."
        )
    if len(absent) or len(extra):
        advice.append(
            f"To compare the {what} of both tables only, select shared = {names[0]}.{axis}.intersection({names[1]}.{axis})."
        )
        if "." not in names[0]:
            advice.append("Arrays are compared by position.")
    problems.add(f"Expected the same unique {what} in both tables, found {found}. {' '.join(advice)}")
