"""Checks of groups of cell types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from scdeconv._data.keys import UNMEASURED

from .cell_types import near_types
from .labels import check_cell_type_names
from .problems import Problems, examples

Groups = Mapping[str, Sequence[str]]
EXAMPLE = '{"T": ["CD4 T", "CD8 T"]}'


def check_groups(problems: Problems, groups: Groups, tables: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Refuse groups of unknown types, types in two groups, tables with a part of a group, and names of other types.

    Parameters
    ----------
    problems
        Collects the messages.
    groups
        Cell types to add up, by the name of the group.
    tables
        Cell types of each table, by the name of the table in messages.

    Returns
    -------
    The groups as lists of text.
    """
    members_of = _as_lists(problems, groups, "groups")
    known = list(dict.fromkeys(chain(*tables.values())))
    _report_unknown(problems, members_of, known, "groups")
    _report_repeated(problems, members_of, "groups")
    for table, cell_types in tables.items():
        types = set(cell_types)
        for name, members in members_of.items():
            inside = [member for member in members if member in types]
            missing = [member for member in members if member in known and member not in types]
            if inside and missing:
                problems.add(
                    f"Expected all types of group {name!r} in {table}, found only {examples(inside)}, not "
                    f"{examples(missing)}. Add columns of zeros for absent types, or remove the table."
                )
            # what is added to the unmeasured rest needs not name the rest
            if inside and name in types and name not in members and name != UNMEASURED:
                problems.add(
                    f"Expected a new name of group {name!r}, found another cell type of this name in {table}. Choose "
                    "another name, or add the type to the group."
                )
    return members_of


def check_hierarchy(problems: Problems, hierarchy: Groups, cell_types: Iterable[str]) -> dict[str, list[str]]:
    """Refuse a hierarchy with unknown types, a type below two groups, a group below itself, or a group named as a type.

    Parameters
    ----------
    problems
        Collects the messages.
    hierarchy
        Cell types and other groups in each group.
    cell_types
        Known types.

    Returns
    -------
    Cell types of each group, at all depths.
    """
    before = len(problems.messages)
    children_of = _as_lists(problems, hierarchy, "hierarchy")
    types = list(cell_types)
    _report_unknown(problems, children_of, [*types, *children_of], "hierarchy")
    _report_repeated(problems, children_of, "hierarchy")
    taken = [name for name in children_of if name in types]
    if taken:
        problems.add(
            f"Expected new names of groups in hierarchy, found cell types: {examples(taken)}. Rename the groups."
        )
    above = {child: name for name, children in children_of.items() for child in children}
    for name in children_of:
        path = [name]
        while path[-1] in above and above[path[-1]] not in path:
            path.append(above[path[-1]])
        if above.get(path[-1]) == name:
            cycle = " in ".join(map(repr, [*path, name]))
            problems.add(f"Expected groups without cycles in hierarchy, found {cycle}. Remove one of the groups.")
            break
    if len(problems.messages) > before:
        return {}

    def leaves(name: str) -> list[str]:
        return [leaf for child in children_of[name] for leaf in (leaves(child) if child in children_of else [child])]

    return {name: leaves(name) for name in children_of}


def _as_lists(problems: Problems, groups: Groups, name: str) -> dict[str, list[str]]:
    """Return groups as lists of text; report empty groups and names that cannot be columns."""
    lists = {str(group): [str(member) for member in members] for group, members in groups.items()}
    empty = [group for group, members in lists.items() if not members]
    if empty or not lists:
        problems.add(
            f"Expected cell types in {name}, found an empty {'list of ' + examples(empty) if empty else 'dictionary'}. "
            f"Pass groups such as {EXAMPLE}."
        )
    check_cell_type_names(problems, lists, name)
    return lists


def _report_unknown(problems: Problems, groups: Mapping[str, list[str]], known: list[str], name: str) -> None:
    unknown = list(dict.fromkeys(member for members in groups.values() for member in members if member not in known))
    if unknown:
        near = near_types(unknown, known)
        nearly = f" Nearly matching: {examples(f'{ours} = {theirs}' for ours, theirs in near.items())}." if near else ""
        problems.add(
            f"Expected known cell types in {name}, found {len(unknown)} others: {examples(unknown)}.{nearly} Choose from "
            f"{known[:30]}."
        )


def _report_repeated(problems: Problems, groups: Mapping[str, list[str]], name: str) -> None:
    counts = Counter(member for members in groups.values() for member in members)
    repeated = [member for member, count in counts.items() if count > 1]
    if repeated:
        problems.add(
            f"Expected each cell type once in {name}, found {len(repeated)} several times: {examples(repeated)}. Keep each in "
            "one group."
        )
