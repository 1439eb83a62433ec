"""Simulation of bulk with known composition from cells (Scaden) or from a calibration."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata
from scdeconv._data.checks import check_paired, checked
from scdeconv._data.chunks import product
from scdeconv._data.matrix import to_dense
from scdeconv._data.modalities import add_modality, check_reference
from scdeconv._stats.calibration.platform_calibration import BROAD
from scdeconv._stats.draws import draw_cells, draw_fractions, round_to_cells

from ._calibration import Calibration

if TYPE_CHECKING:
    from mudata import MuData

# simulated samples per chunk: bounds the memory (set by hand)
ROWS_AT_ONCE = 500


@checked()
def simulate(
    mdata: MuData,
    n_samples: int = 1000,
    *,
    cells_per_sample: int = 100,
    sparse_share: float = 0.5,
    across_donors: bool = False,
    exact_labels: bool = False,
    calibration: Calibration | bool = False,
    seed: int = 0,
) -> None:
    """Simulate bulk samples from random cells, as in Scaden (Menden et al. 2020), or from a calibration.

    Compositions are normalised uniform random numbers. In the sparse share of the samples, they cover only a random
    subset of the types. ``floor(fraction * cells_per_sample)`` cells of each type are drawn with replacement and
    summed. Without cells, the expression is Poisson with mean ``n`` times the type's profile for ``n`` cells of a type.

    With ``calibration``, the samples resemble the user's real bulk. Compositions are drawn from the distribution of the
    paired donors (10 % by the Scaden rule). Expression is drawn from the calibrated profiles with platform shifts,
    noise and library sizes of real bulk (see :class:`scdeconv.pp.Calibration`). Arguments about cells are then ignored.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`.
    n_samples
        Number of samples.
    cells_per_sample
        Number of cells per sample. The default of Scaden is 100. Its published training sets use 500.
    sparse_share
        Share of samples without at least one type.
    across_donors
        Draw the cells of a sample from all donors. Default: each sample has cells of one donor, and donors have equal
        numbers of samples. Types that the donor lacks have fraction 0.
    exact_labels
        Return the composition of the summed cells. Default, as in Scaden: the drawn composition before rounding to
        whole cells.
    calibration
        Result of :func:`scdeconv.pp.calibrate`, or True for the calibration stored in ``mdata``.
    seed
        Seed of the random number generator.

    Writes
    ------
    ``mdata.mod["simulated"]``: samples × genes (float32), with the donor of the cells in ``obs["donor"]`` and the
    composition in ``obsm["measured_fractions"]``.

    Raises
    ------
    KeyError
        If ``calibration`` is True and ``mdata`` has no calibration.
    ValueError
        If an argument is out of range, or if the calibration has other genes.

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
    check_reference(mdata, "pp.simulate")
    check_paired(mdata)
    rng = np.random.default_rng(seed)
    records = mdata.uns.setdefault(keys.UNS, {})
    if calibration is not False:
        if calibration is True:
            calibration = Calibration.of(mdata)
        if not calibration.genes.index.equals(mdata[keys.BULK].var_names):
            msg = (
                f"Expected a calibration of the {mdata[keys.BULK].n_vars} genes of mdata, found a calibration of "
                f"{len(calibration.genes)} genes with other names or order. Call pp.calibrate(mdata)."
            )
            raise ValueError(msg)
        records[keys.CALIBRATION] = calibration.to_dict()
        fractions = calibration.draw_compositions(n_samples, BROAD, rng)
        expression = calibration.draw_bulk(fractions, rng)
        _store(mdata, expression, fractions, np.full(n_samples, "calibration"))
        records["simulate"] = {"n_samples": n_samples, "calibration": True, "seed": seed}
        return
    pools = _pools(mdata, across_donors)
    samples_of = np.array_split(np.arange(n_samples), len(pools))
    fractions = np.empty((n_samples, mdata[keys.PROFILES].n_obs))
    donor = np.empty(n_samples, dtype=object)
    blocks, weights, done = [], [], 0
    for (name, pool), rows in zip(pools.items(), samples_of, strict=True):
        available = np.array([len(cells) > 0 for cells in pool])
        # cumulative rounding over donors: otherwise donors with one sample would have no sparse sample
        n_sparse = int(sparse_share * (done + len(rows))) - int(sparse_share * done)
        done += len(rows)
        drawn = draw_fractions(len(rows) - n_sparse, n_sparse, available, rng)
        n_cells = round_to_cells(drawn, cells_per_sample)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = n_cells[start : start + ROWS_AT_ONCE]
            if keys.CELLS in mdata.mod:
                weights.append(draw_cells(some, pool, mdata[keys.CELLS].n_obs, rng))
            else:
                blocks.append(rng.poisson(some @ to_dense(mdata[keys.PROFILES].X)).astype(np.float32))
        fractions[rows] = n_cells / n_cells.sum(axis=1, keepdims=True) if exact_labels else drawn
        donor[rows] = name
    if weights:
        cells, drawn = mdata[keys.CELLS].X, sp.vstack(weights, format="csr")
        expression, _ = product(drawn, cells, description="simulating bulk", dtype=np.float32)
    else:
        expression = np.concatenate(blocks)
    _store(mdata, expression, fractions, donor)
    records["simulate"] = {
        "n_samples": n_samples,
        "cells_per_sample": cells_per_sample,
        "sparse_share": sparse_share,
        "across_donors": across_donors,
        "exact_labels": exact_labels,
        "seed": seed,
    }


def _store(mdata: MuData, expression: np.ndarray, fractions: np.ndarray, donor: np.ndarray) -> None:
    names = pd.Index([f"simulated_{row}" for row in range(len(expression))])
    simulated = make_adata(
        expression.astype(np.float32, copy=False),
        obs=pd.DataFrame({keys.DONOR: donor.astype(str)}, index=names),
        var=mdata[keys.BULK].var[[]].copy(),
    )
    cell_types = list(mdata[keys.PROFILES].obs[keys.CELL_TYPE])
    simulated.obsm[keys.MEASURED] = pd.DataFrame(fractions, index=names, columns=cell_types)
    add_modality(mdata, keys.SIMULATED, simulated)


def _pools(mdata: MuData, across_donors: bool) -> dict[str, list[np.ndarray]]:
    """Return the cell positions of each type for each donor, or the profile positions without cells."""
    profiles = mdata[keys.PROFILES]
    if keys.CELLS not in mdata.mod:
        return {"profiles": [np.array([row]) for row in range(profiles.n_obs)]}
    obs = mdata[keys.CELLS].obs
    donors = pd.Series("all donors", obs.index) if across_donors else obs[keys.DONOR].astype(str)
    donor, names = pd.factorize(donors, sort=True)
    kind = pd.Categorical(obs[keys.CELL_TYPE], categories=profiles.obs[keys.CELL_TYPE]).codes.astype(int)
    pool = donor * profiles.n_obs + kind
    # stable sort: reproducible order of the cells in each pool
    order = np.argsort(pool, kind="stable")
    ends = np.searchsorted(pool[order], np.arange(len(names) * profiles.n_obs + 1))
    cells = [order[start:stop] for start, stop in itertools.pairwise(ends)]
    return {name: cells[i * profiles.n_obs : (i + 1) * profiles.n_obs] for i, name in enumerate(names)}
