"""Checks of the donors of two inputs against each other."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from scdeconv._data import keys
from scdeconv._data.labels import as_labels, near_matches
from scdeconv._data.warnings import warn

from .problems import Problems, examples

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


def check_donors_match(
    problems: Problems, obs: Mapping[str, pd.DataFrame], sources: Mapping[str, str], *, others_known: bool = False
) -> None:
    """Refuse donors that nearly match between bulk and cells, and donors in a column of another name.

    Near matches differ in case, separators, leading zeros, a prefix or suffix, or by R's ``make.names`` (``X101``).
    Warn if no donor has bulk and cells.

    Parameters
    ----------
    problems
        Collected problems.
    obs
        ``obs`` of bulk and of cells or pseudobulk, by name, with the donors in ``obs["donor"]``.
    sources
        Where the donors of each input come from, such as ``bulk.obs["patient"]``, as text.
    others_known
        Whether the fractions of the bulk are known from elsewhere, so that no warning is needed.
    """
    bulk, (side, others) = obs[keys.BULK], next(item for item in obs.items() if item[0] != keys.BULK)
    ours, theirs = (list(table[keys.DONOR].unique()) for table in (bulk, others))
    near = near_matches(ours, theirs) or _with_prefix(ours, theirs)
    columns = {} if set(ours) & set(theirs) else _columns(obs)
    if near and not columns:
        problems.add(
            f"Expected identical donor names in bulk and {side}, found {len(near)} that nearly match "
            f"({len(ours)} donors in bulk, {len(theirs)} in {side}): bulk {examples(near)}; {side} "
            f"{examples(near.values())}. If they are the same donors, rename them in {sources['bulk']}, such as "
            f".replace({_first(near)}). If not, give them other names."
        )
    elif not set(ours) & set(theirs):
        found = f"Expected the same donors in bulk and {side}, found none in both: " + ". ".join(
            [
                "; ".join(
                    f"{name} has {table[keys.DONOR].nunique()} ({examples(table[keys.DONOR].unique())}; from {sources[name]})"
                    for name, table in obs.items()
                ),
                *columns,
            ]
        )
        # numbers may be ages or batches: only the warning names these columns
        if any(re.search(r"[^\W\d_]", donor) for shared in columns.values() for donor in shared):
            problems.add(f"{found}. Pass donor_key= with a column of donors of the same name in both.")
        elif not others_known:
            warn(f"{found}. No donor is paired. If these are the same donors, name their column with donor_key=.")


def columns_of_donors(table: pd.DataFrame, donors: pd.Series) -> dict[str, list[str]]:
    """Return the columns of ``table`` with at least half of the donors, or most of whose values are donors."""
    known = set(donors)
    candidates = {column: table[column] for column in table if column != keys.DONOR}
    found = {}
    for column, values in {**candidates, "obs_names": table.index.to_series()}.items():
        labels = set(as_labels(values.drop_duplicates()).dropna())
        shared = sorted(labels & known)
        if len(shared) >= max(2, min(len(known), len(labels)) / 2):
            found[str(column)] = shared
    return found


def _columns(obs: Mapping[str, pd.DataFrame]) -> dict[str, list[str]]:
    """Return the donors in columns that have donors of the other input, by a text that names the column."""
    texts = {}
    for name, other in itertools.permutations(obs, 2):
        for column, shared in columns_of_donors(obs[name], obs[other][keys.DONOR]).items():
            source = f"{name}.obs_names" if column == "obs_names" else f"{name}.obs[{column!r}]"
            texts[f"{source} has {len(shared)} donors of {other} ({examples(shared)})"] = shared
    return texts


def _first(near: Mapping[str, str]) -> dict[str, str]:
    return dict(list(near.items())[:3])


def _tokens(donor: str) -> tuple[str, ...]:
    """Split a donor name into lower-case words and numbers, without separators and leading zeros."""
    return tuple(part.lstrip("0") or "0" for part in re.findall(r"[^\W\d_]+|\d+", donor.lower()))


def _extends(whole: tuple[str, ...], part: tuple[str, ...]) -> bool:
    """Return whether ``whole`` is ``part`` plus a prefix or suffix; ``part`` needs at least two tokens."""
    return 1 < len(part) < len(whole) and part in (whole[: len(part)], whole[-len(part) :])


def _with_prefix(ours: list[str], theirs: list[str]) -> dict[str, str]:
    """Return donors that match without a prefix or suffix such as "bulk_", if no donor matches."""
    if set(ours) & set(theirs):
        return {}
    spelled = {_tokens(donor): donor for donor in theirs}
    return {
        donor: other
        for donor, tokens in ((donor, _tokens(donor)) for donor in ours)
        for other_tokens, other in spelled.items()
        if _extends(tokens, other_tokens) or _extends(other_tokens, tokens)
    }
