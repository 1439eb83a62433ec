"""Cell types that two cohorts have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from scdeconv._data import keys
from scdeconv._data.checks import check_groups, examples, finer_types, near_types, rest_columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from scdeconv._data.checks import Problems


class CommonTypes(NamedTuple):
    """Types of the training and of the test cohort, by common type."""

    training: dict[str, list[str]]
    test: dict[str, list[str]]
    #: Whether all types of both cohorts are in a common type.
    complete: bool

    def describe(self) -> str:
        """Return the common types as text, with the merged or renamed ones."""
        changed = [
            f"{name} = {' + '.join(self.training[name])} (training), {' + '.join(self.test[name])} (test)"
            for name in self.training
            if [name] != self.training[name] or [name] != self.test[name]
        ]
        return f"{len(self.training)} common cell types ({', '.join(self.training)})" + "".join(
            f"; {text}" for text in changed
        )

    def shares(self, table: pd.DataFrame, side: Mapping[str, Sequence[str]]) -> pd.DataFrame:
        """Return the shares of the common types; rows of one cohort, whose types are in ``side``."""
        sums = pd.DataFrame({name: table[[*members]].sum(axis=1, skipna=False) for name, members in side.items()})
        return sums.div(sums.sum(axis=1, skipna=False), axis=0)


def match_types(
    problems: Problems,
    training: Iterable[str],
    test: Iterable[str],
    groups: Mapping[str, Sequence[str]] | None,
) -> CommonTypes:
    """Return the cell types that two cohorts have in common; report fewer than two.

    Types match by ``groups``, by equal names, by names that probably mean the same, and if the words of one are among the
    words of several others, which are then added up.

    Parameters
    ----------
    problems
        Collected problems.
    training, test
        Cell types of both cohorts.
    groups
        Types of either cohort by the name of the common type.
    """
    rest = {keys.UNMEASURED, keys.UNKNOWN}
    mine, theirs = ([name for name in names if name not in rest] for names in (training, test))
    left, right = list(mine), [name for name in theirs if name not in rest_columns(theirs) or name in mine]
    n_rest = len(theirs) - len(right)
    found: dict[str, tuple[list[str], list[str]]] = {}
    given = check_groups(problems, groups, {"the cohorts": dict.fromkeys([*mine, *theirs])}) if groups else {}
    for name, members in given.items():
        parts = [[member for member in members if member in side] for side in (left, right)]
        if not all(parts):
            problems.add(
                f"Expected types of both cohorts in groups[{name!r}], found {list(members)}. The training cohort has "
                f"{examples(mine, n=len(mine))}, the test cohort has {examples(theirs, n=len(theirs))}. Correct the group."
            )
            continue
        found[name] = parts[0], parts[1]
        left, right = ([item for item in side if item not in members] for side in (left, right))
    pairs = {name: name for name in left if name in right}
    pairs |= near_types(left, right)
    for name, other in pairs.items():
        found[name] = [name], [other]
    left = [name for name in left if name not in pairs]
    right = [name for name in right if name not in pairs.values()]
    for name, members in finer_types(left, right).items():
        found[name] = [name], members
    used = [name for _, members in found.values() for name in members]
    for name, members in finer_types([name for name in right if name not in used], left).items():
        found[name] = members, [name]
    # a finer type with two coarser ones cannot be added up
    for side in (0, 1):
        names = [member for parts in found.values() for member in parts[side]]
        found = {name: parts for name, parts in found.items() if all(names.count(item) == 1 for item in parts[side])}
    if len(found) < 2 and not problems.messages:
        problems.add(
            f"Expected at least two cell types that both cohorts have, found {len(found)}. The training cohort has "
            f"{examples(mine, n=len(mine))}, the test cohort has {examples(theirs, n=len(theirs))}. Name them with "
            "groups={common type: [types of either cohort]}."
        )
    order = {name: position for position, name in enumerate(mine)}
    found = dict(sorted(found.items(), key=lambda item: min(order[name] for name in item[1][0])))
    sides = [{name: parts[side] for name, parts in found.items()} for side in (0, 1)]
    n_used = [sum(map(len, side.values())) for side in sides]
    return CommonTypes(sides[0], sides[1], complete=n_used == [len(mine), len(theirs)] and not n_rest)
