"""Must-link and cannot-link constraints between cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from scdeconv._data.checks import checked

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, eq=False, repr=False)
class Constraints:
    """Pairs of cells of the same cluster or of different clusters, from :func:`scdeconv.pp.constraints`.

    Parameters
    ----------
    cells
        Names of the cells (``obs_names``) to which the positions refer.
    must_link, cannot_link
        Pairs of cells of the same cluster and of different clusters: positions in ``cells``, int, pairs × 2.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import scdeconv
    >>> cells = pd.Index(["a", "b", "c"])
    >>> constraints = scdeconv.pp.Constraints(cells, must_link=np.array([[0, 1]]), cannot_link=np.array([[0, 2]]))
    >>> constraints
    Constraints: 1 must-link, 1 cannot-link among 3 cells; consistent
    >>> constraints.agreement(pd.Series({"a": "T", "b": "T", "c": "T"}))
    0.5
    """

    cells: pd.Index
    must_link: np.ndarray
    cannot_link: np.ndarray

    def __repr__(self) -> str:
        return f"Constraints: {self.summary}"

    @property
    def summary(self) -> str:
        """One-line summary of the constraints."""
        report = self.report
        consistent = f"{n:,} contradictions" if (n := report["contradictions"]) else "consistent"
        return (
            f"{report['must_link']:,} must-link, {report['cannot_link']:,} cannot-link among {report['cells']:,} "
            f"cells; {consistent}"
        )

    @property
    def report(self) -> dict[str, int]:
        """Numbers of constraints, constrained cells, groups and contradictions.

        A group is a connected component of the must-links. ``largest_group`` is its largest number of cells.
        """
        sizes = np.bincount(self.groups())
        return {
            "must_link": len(self.must_link),
            "cannot_link": len(self.cannot_link),
            "cells": len(np.unique(np.concatenate([self.must_link, self.cannot_link]))),
            "groups": int((sizes > 1).sum()),
            "largest_group": int(sizes.max(initial=0)) if len(self.must_link) else 0,
            "contradictions": len(self.contradictions),
        }

    @property
    def contradictions(self) -> pd.DataFrame:
        """Cannot-links between cells of one must-link group, with cell names in ``first`` and ``second``."""
        groups = self.groups()
        impossible = self.cannot_link[groups[self.cannot_link[:, 0]] == groups[self.cannot_link[:, 1]]]
        return pd.DataFrame({"first": self.cells[impossible[:, 0]], "second": self.cells[impossible[:, 1]]})

    @checked()
    def agreement(self, labels: pd.Series | Sequence[object] | np.ndarray) -> float:
        """Return the share of constraints that labels (cell types or clusters) satisfy.

        Parameters
        ----------
        labels
            Series indexed by cell names, or one label per cell in the order of ``cells``. Constraints of cells without
            label (NaN) are ignored.

        Returns
        -------
        Share from 0 to 1.

        Raises
        ------
        ValueError
            If the labels do not match the cells, or if no constraint has two labelled cells.
        """
        values = labels.reindex(self.cells) if isinstance(labels, pd.Series) else pd.Series(list(labels), dtype=object)
        if len(values) != len(self.cells):
            msg = (
                f"Expected one label for each of {len(self.cells)} cells, found {len(values)} labels. "
                "Pass a Series indexed by cell names."
            )
            raise ValueError(msg)
        codes = pd.factorize(values)[0]
        must, cannot = codes[self.must_link], codes[self.cannot_link]
        satisfied = np.concatenate([must[:, 0] == must[:, 1], cannot[:, 0] != cannot[:, 1]])
        known = (np.concatenate([must, cannot]) >= 0).all(axis=1)
        if not known.any():
            msg = (
                f"Expected labels of both cells of a constraint, found no such constraint among {known.size}. "
                "Pass labels of the same cells as a Series indexed by cell names."
            )
            raise ValueError(msg)
        return float(satisfied[known].mean())

    def distinct_groups(self) -> list[np.ndarray]:
        """Return must-link groups of at least two cells that have a cannot-link to all other returned groups.

        Groups are added in order of decreasing size.

        Returns
        -------
        Cell positions of each group, largest group first.
        """
        of_cell = self.groups()
        apart = {frozenset(pair) for pair in of_cell[self.cannot_link].tolist()}
        sizes = np.bincount(of_cell)
        chosen: list[int] = []
        for group in np.argsort(-sizes, kind="stable").tolist():
            if sizes[group] > 1 and all(frozenset((group, other)) in apart for other in chosen):
                chosen.append(group)
        return [np.flatnonzero(of_cell == group) for group in chosen]

    def groups(self) -> np.ndarray:
        """Return the connected components of the must-links.

        Returns
        -------
        Group code of each cell, int.
        """
        size = len(self.cells)
        ones = np.ones(len(self.must_link), dtype=bool)
        graph = sp.coo_matrix((ones, self.must_link.T), shape=(size, size))
        return connected_components(graph, directed=False)[1]
