"""Generated cohorts with planted effects of a group on the expression of single cell types, and with known expression."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from unittest import mock

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

import scdeconv
from scdeconv import pp, tl
from scdeconv.datasets import _cohort


@dataclass
class Generated:
    """Bulk of donors without cells, the pairs, and what was planted."""

    bulk: AnnData
    mdata: MuData
    model: scdeconv.models.DeconvolutionModel
    #: log fold change in the second group, cell types × genes
    planted: np.ndarray
    #: RNA of each sample and type, samples × cell types × genes
    rna: np.ndarray


def generate(
    n_samples: int,
    seed: int,
    *,
    n_genes: int = 2000,
    n_pairs: int = 16,
    share: float = 0.1,
    fold: float = 2.0,
    programme: float = 0.0,
    composition: float = 0.0,
    cells_per_donor: tuple[int, int] = (200, 600),
) -> Generated:
    """Return a cohort in two groups whose types differ in a share of the genes, up or down by a fold change.

    Parameters
    ----------
    n_samples
        Number of bulk samples without cells, half in each group.
    seed
        Seed of the cohort and of the planted effects.
    n_genes, n_pairs, cells_per_donor
        Size of the cohort; the donors with cells are in no group.
    share, fold
        Share of the genes that differ in a type, and fold change.
    programme
        SD within groups of the activity of a programme to which all planted effects belong, whose mean differs by 1
        between the groups; 0: each sample of the second group has the same effect.
    composition
        Effect of the most frequent type on the log odds of the second group, per SD: groups differ in composition.
    """
    rng = np.random.default_rng(10_000 + seed)
    n_drawn = 2 * n_samples if composition else n_samples
    captured = {}
    sequence = _cohort._sequence_bulk

    def sequence_with_effects(
        generator: np.random.Generator, rna: np.ndarray, profiles: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        n_bulk, n_types, _ = rna.shape
        total = rna.sum(axis=2)
        odds = np.log(total[:, 0] / total[:, 1:].sum(axis=1))
        chance = 1 / (1 + np.exp(-composition * (odds - odds.mean()) / odds.std()))
        group = rng.random(n_bulk) < chance if composition else rng.permutation(np.arange(n_bulk) % 2) == 1
        planted = np.zeros((n_types, n_genes))
        for effects in planted:
            genes = rng.choice(n_genes, int(share * n_genes), replace=False)
            effects[genes] = np.log(fold) * rng.choice([-1, 1], len(genes))
        activity = group + programme * rng.normal(size=n_bulk)
        rna = rna * np.exp(activity[:, None, None] * planted)
        captured.update(rna=rna, group=group, planted=planted)
        return sequence(generator, rna, profiles)

    with mock.patch.object(_cohort, "_sequence_bulk", sequence_with_effects):
        cells, bulk = scdeconv.datasets.paired_cohort(
            n_donors=n_pairs,
            n_bulk_only=n_drawn,
            n_reference_only=0,
            n_genes=n_genes,
            cells_per_donor=cells_per_donor,
            seed=seed,
        )
    bulk.obs["group"] = np.where(captured["group"], "patient", "control")
    has_cells = bulk.obs["donor"].isin(cells.obs["donor"]).to_numpy()
    chosen = np.flatnonzero(~has_cells)
    if composition:
        halves = [chosen[captured["group"][chosen] == value] for value in (False, True)]
        chosen = np.concatenate([rng.permutation(half)[: n_samples // 2] for half in halves])
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdata = pp.pair(cells, bulk[has_cells].copy())
        model = tl.train(mdata, "calibrated_map")
        samples = bulk[chosen].copy()
        tl.predict(samples, model, key_added="estimated")
    add_rna_fractions(samples, mdata, captured["rna"][chosen])
    return Generated(samples, mdata, model, captured["planted"], captured["rna"][chosen])


def add_rna_fractions(bulk: AnnData, mdata: MuData, rna: np.ndarray) -> None:
    """Write true RNA fractions as ``true``, and estimated cell fractions as RNA fractions ``rna_estimated``."""
    types = list(bulk.uns["cohort"]["cell_types"])
    totals = rna.sum(axis=2)
    bulk.obsm["true"] = pd.DataFrame(totals / totals.sum(axis=1, keepdims=True), bulk.obs_names, types)
    bulk.obsm["estimated"] = bulk.obsm["estimated"][types]
    sizes = pp.calibrate(mdata).cell_types["cell_size"]
    tl.convert_fractions(bulk, sizes, to="rna", key="estimated")
