"""Pseudobulk with known composition, by Scaden's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import _keys as keys
from scdeconv._matrix import to_dense
from scdeconv._progress import progress

from ._pair import add_modality

if TYPE_CHECKING:
    from mudata import MuData

ROWS_AT_ONCE = 500


def draw_fractions(n_normal: int, n_sparse: int, available: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw compositions as Scaden does: normalised uniforms, in the sparse half over a random subset of the types.

    Parameters
    ----------
    n_normal, n_sparse
        Compositions over all available types, and over 1 to K-1 of them (K the number available).
    available
        Which types there are, bool of length K_all; the others get 0.
    rng
        Source of randomness.

    Returns
    -------
    Fractions, (n_normal + n_sparse) × K_all, rows sum to 1.
    """
    types = np.flatnonzero(available)
    weights = rng.uniform(size=(n_normal + n_sparse, len(types)))
    if len(types) > 1:
        n_kept = rng.integers(1, len(types), size=n_sparse)
        order = rng.permuted(np.tile(np.arange(len(types)), (n_sparse, 1)), axis=1)
        weights[n_normal:][order >= n_kept[:, None]] = 0.0
    fractions = np.zeros((len(weights), len(available)))
    fractions[:, types] = weights / weights.sum(axis=1, keepdims=True)
    return fractions


def draw_cells(n_cells: np.ndarray, pools: list[np.ndarray], n_total: int, rng: np.random.Generator) -> sp.csr_matrix:
    """Draw cells with replacement and return how often each sample holds each cell (samples × all cells)."""
    n_types = n_cells.shape[1]
    types = np.repeat(np.tile(np.arange(n_types), len(n_cells)), n_cells.ravel())
    starts = np.cumsum([0, *(len(pool) for pool in pools)])
    sizes = np.diff(starts)
    within = (rng.random(len(types)) * sizes[types]).astype(np.int64)
    cells = np.concatenate(pools)[starts[types] + within]
    ends = np.concatenate([[0], np.cumsum(n_cells.sum(axis=1))])
    weights = sp.csr_matrix((np.ones(len(cells), np.float32), cells, ends), shape=(len(n_cells), n_total))
    weights.sum_duplicates()
    return weights


def simulate(
    mdata: MuData,
    n_samples: int = 1000,
    *,
    cells_per_sample: int = 100,
    sparse_share: float = 0.5,
    across_donors: bool = False,
    exact_labels: bool = False,
    seed: int = 0,
) -> None:
    """Simulate bulk samples by adding up random cells, as Scaden does (Menden et al. 2020).

    A composition is drawn (uniforms divided by their sum; in the sparse share, only over a random subset of the types),
    ``floor(fraction * cells_per_sample)`` cells of each type are drawn with replacement, and their counts are added up.
    Without cells, a sample of ``n`` cells of a type is Poisson around ``n`` times the type's profile.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`.
    n_samples
        Number of samples.
    cells_per_sample
        Cells in a sample. Scaden's program takes 100, its published training sets 500.
    sparse_share
        Share of samples in which at least one type is missing.
    across_donors
        Draw each sample's cells from all donors. By default every sample comes from one donor, chosen in turn, and holds
        only types that this donor has.
    exact_labels
        Give the composition of the cells that were added up. By default, as in Scaden, the composition that was drawn
        before rounding to whole cells.
    seed
        Seed of the draws.

    Writes
    ------
    ``mdata.mod["simulated"]``: samples × genes (float32), ``obs["donor"]`` the donor whose cells were used,
    ``obsm["measured_fractions"]`` the composition.

    Raises
    ------
    ValueError
        Where an argument is out of range.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.pp.simulate(mdata, n_samples=20)
    >>> mdata["simulated"].shape
    (20, 300)
    """
    if n_samples < 1 or cells_per_sample < 1 or not 0 <= sparse_share <= 1:
        msg = (
            "Expected n_samples and cells_per_sample of at least 1 and sparse_share from 0 to 1, found "
            f"{n_samples}, {cells_per_sample} and {sparse_share}."
        )
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    n_types = mdata[keys.PROFILES].n_obs
    pools = _pools(mdata, across_donors)
    samples_of = np.array_split(np.arange(n_samples), len(pools))
    expression = np.empty((n_samples, mdata[keys.BULK].n_vars), dtype=np.float32)
    fractions = np.empty((n_samples, n_types))
    donor = np.empty(n_samples, dtype=object)
    done = 0
    with progress(n_samples, "simulating bulk") as bar:
        for (name, pool), rows in zip(pools.items(), samples_of, strict=True):
            available = np.array([len(cells) > 0 for cells in pool])
            # counted over all samples: a donor with a single sample would never get a sparse one
            n_sparse = int(sparse_share * (done + len(rows))) - int(sparse_share * done)
            done += len(rows)
            drawn = draw_fractions(len(rows) - n_sparse, n_sparse, available, rng)
            n_cells = np.floor(drawn * cells_per_sample).astype(np.int64)
            # with few cells every count may round to zero; a sample holds at least its most frequent type
            empty = n_cells.sum(axis=1) == 0
            n_cells[empty, drawn[empty].argmax(axis=1)] = 1
            for start in range(0, len(rows), ROWS_AT_ONCE):
                chunk = slice(start, start + ROWS_AT_ONCE)
                expression[rows[chunk]] = _add_up(mdata, n_cells[chunk], pool, rng)
                bar.update(len(rows[chunk]))
            fractions[rows] = n_cells / n_cells.sum(axis=1, keepdims=True) if exact_labels else drawn
            donor[rows] = name
    names = pd.Index([f"simulated_{row}" for row in range(n_samples)])
    simulated = AnnData(
        expression, obs=pd.DataFrame({keys.DONOR: donor.astype(str)}, index=names), var=mdata[keys.BULK].var[[]].copy()
    )
    cell_types = list(mdata[keys.PROFILES].obs[keys.CELL_TYPE])
    simulated.obsm[keys.MEASURED] = pd.DataFrame(fractions, index=names, columns=cell_types)
    add_modality(mdata, keys.SIMULATED, simulated)
    mdata.uns.setdefault(keys.UNS, {})["simulate"] = {
        "n_samples": n_samples,
        "cells_per_sample": cells_per_sample,
        "sparse_share": sparse_share,
        "across_donors": across_donors,
        "exact_labels": exact_labels,
        "seed": seed,
    }


def _pools(mdata: MuData, across_donors: bool) -> dict[str, list[np.ndarray]]:
    """Return, for each source of samples, the cells of each type; a profile stands for one endless cell."""
    profiles = mdata[keys.PROFILES]
    if keys.CELLS not in mdata.mod:
        return {"profiles": [np.array([row]) for row in range(profiles.n_obs)]}
    obs = mdata[keys.CELLS].obs
    donors = np.full(len(obs), "all donors", dtype=object) if across_donors else obs[keys.DONOR].to_numpy()
    types = obs[keys.CELL_TYPE].to_numpy()
    return {
        donor: [np.flatnonzero((donors == donor) & (types == name)) for name in profiles.obs[keys.CELL_TYPE]]
        for donor in sorted(set(donors))
    }


def _add_up(mdata: MuData, n_cells: np.ndarray, pool: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    if keys.CELLS in mdata.mod:
        cells = mdata[keys.CELLS]
        return to_dense(draw_cells(n_cells, pool, cells.n_obs, rng) @ cells.X)
    return np.asarray(rng.poisson(n_cells @ to_dense(mdata[keys.PROFILES].X)))
