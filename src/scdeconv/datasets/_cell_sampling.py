"""Samples of cells from a stream of cell annotations: the same cells in any order and block size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable

# identifier of a cell, and the groups that are sampled
CELL, DONOR, CELL_TYPE = "soma_joinid", "donor", "cell_type"
STRATUM = [CELL_TYPE, DONOR]
PRIORITY = "priority"


def priorities(cells: np.ndarray, seed: int) -> np.ndarray:
    """Return a pseudo-random number of each cell that depends only on its identifier and the seed.

    The SplitMix64 hash of Steele, Lea and Flood (2014), twice.

    Parameters
    ----------
    cells
        Identifiers, whole numbers.
    seed
        Other seeds give other numbers.
    """
    return _hash(np.asarray(cells).astype(np.uint64) + _hash(np.full(1, seed, dtype=np.uint64)))


def _hash(values: np.ndarray) -> np.ndarray:
    # arrays of unsigned integers wrap around without a warning
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def sample_strata(tables: Iterable[pd.DataFrame], limit: int, seed: int) -> pd.DataFrame:
    """Return at most ``limit`` random cells of each cell type and donor.

    At most one block and the cells that are kept are in memory.

    Parameters
    ----------
    tables
        Blocks with the columns ``soma_joinid``, ``donor`` and ``cell_type``.
    limit
        Maximum number of cells of a type and donor.
    seed
        Seed of the choice.
    """
    kept = pd.DataFrame({CELL: np.empty(0, np.int64), DONOR: [], CELL_TYPE: [], PRIORITY: np.empty(0, np.uint64)})
    for table in tables:
        new = table.assign(**{PRIORITY: priorities(table[CELL].to_numpy(), seed)})
        parts = [part for part in (kept, _first(new, limit)) if len(part)]
        if parts:
            kept = _first(pd.concat(parts, ignore_index=True), limit)
    return kept


def _first(table: pd.DataFrame, limit: int) -> pd.DataFrame:
    return table.sort_values([PRIORITY, CELL]).groupby(STRATUM, observed=True, sort=False).head(limit)


def balance_donors(table: pd.DataFrame, total: int) -> pd.DataFrame:
    """Return at most ``total`` cells of each type, from as many donors and as evenly as possible.

    Parameters
    ----------
    table
        Cells of :func:`sample_strata` with a limit of at least ``total``.
    total
        Maximum number of cells of a type.
    """
    chosen = []
    for _, cells in table.sort_values([PRIORITY, CELL]).groupby(CELL_TYPE, observed=True):
        rank = cells.groupby(DONOR, observed=True).cumcount().to_numpy()
        counts = cells[DONOR].value_counts()
        quotas = dict(zip(counts.index, share_out(counts.to_numpy(), total), strict=True))
        chosen.append(cells[rank < cells[DONOR].map(quotas).astype(int).to_numpy()])
    return pd.concat(chosen).sort_values(CELL, ignore_index=True) if chosen else table


def share_out(available: np.ndarray, total: int) -> np.ndarray:
    """Return how many each group gives to a total: all the same, groups with less give all that they have.

    Parameters
    ----------
    available
        Size of each group.
    total
        Wanted sum.
    """
    given = np.zeros(len(available), dtype=np.int64)
    for number, group in enumerate(np.argsort(available, kind="stable")):
        rest = total - int(given.sum())
        given[group] = min(int(available[group]), rest // (len(available) - number))
    return given
