"""Input scaling, starting composition and mixtures of the members, computed from their own training donors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv._data import keys
from scdeconv._data.checks import cell_sizes_known
from scdeconv._stats.expression import log_shares, to_shares
from scdeconv._stats.mixing import concentrations, gene_relevance, residual_weights
from scdeconv._stats.ridge import LEAST_SD

if TYPE_CHECKING:
    from collections.abc import Collection

    from mudata import MuData

    from scdeconv._data.paired_data import PairedData
    from scdeconv._nn import Ensemble, Mixing
    from scdeconv.models._neural import TrainingRows


def start_from_donors(network: Ensemble, rows: TrainingRows, folds: np.ndarray) -> None:
    """Set input scaling and starting composition of the members of each fold from the rows that they do not hold out.

    The input of a gene is its standardised log expression times its relevance for the composition.
    """
    # lazy import: ridge regression is fitted without torch
    from scdeconv.models._members import tensor

    log = log_shares(rows.expression)
    centres, scales, means = [], [], []
    for out in folds:
        x, fractions = log[~out], rows.measured[~out]
        centres.append(x.mean(axis=0))
        scales.append((x.std(axis=0) + LEAST_SD) / gene_relevance(x, fractions))
        means.append(np.average(fractions, axis=0, weights=rows.weights[~out]))
    network.reference.copy_(tensor(to_shares(rows.expression).mean(axis=0)))
    for buffer, values in ((network.centre, centres), (network.scale, scales)):
        # one input without folds
        buffer.copy_(tensor(np.stack(values)[:, None] if buffer.ndim > 1 else values[0]))
    network.start_at(tensor(np.stack(means)))


def mix_donors(rows: TrainingRows, folds: np.ndarray, total: float, data: PairedData | None) -> Mixing:
    """Return mixtures of the rows that are not held out, for each fold.

    Parameters
    ----------
    rows
        Training samples.
    folds
        Mask of the held-out rows, folds × rows.
    total
        Sum of the parameters of the Dirichlet distribution of the weights.
    data
        Pairs and reference; None: bulk without reference.
    """
    from scdeconv._nn import Mixing
    from scdeconv.models._members import tensor

    shape, rna = np.zeros(folds.shape), np.ones(folds.shape)
    noise = np.zeros((*folds.shape, folds.shape[1]))
    for fold, out in enumerate(folds):
        used = np.flatnonzero(~out)
        shape[fold, used] = concentrations(rows.donors[used], total)
        noise[fold][np.ix_(used, used)] = residual_weights(rows.measured[used])
        rna[fold] = rna_per_cell(data, rows.measured, set(rows.donors[out]))
    bulk = rows.expression / rows.totals[:, None]
    log = log_shares(rows.expression)
    return Mixing(*(tensor(values) for values in (bulk / bulk.mean(), log, shape, rna, noise)))


def mix_of(given: float | None, mdata: MuData | None, default: float) -> float:
    """Return the argument ``mix`` of a method, or else of :func:`scdeconv.pp.augment`, or else the default."""
    recorded = None if mdata is None else mdata.uns.get(keys.UNS, {}).get("augment", {}).get("mix")
    return next(float(value) for value in (given, recorded, default) if value is not None)


def rna_per_cell(data: PairedData | None, fractions: np.ndarray, without: Collection[str]) -> np.ndarray:
    """Return the mean RNA per cell of each sample up to a factor, from the cells of the other donors; 1 if unknown.

    Parameters
    ----------
    data
        Pairs and reference; None: bulk without reference.
    fractions
        Samples × cell types.
    without
        Donors whose cells are not used.
    """
    if data is None or keys.PROFILES not in data.mdata.mod or not cell_sizes_known(data.mdata):
        return np.ones(len(fractions))
    rna: np.ndarray = fractions @ data.cell_sizes(without)
    return rna / rna.mean()
