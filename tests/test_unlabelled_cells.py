"""From cells without types to the fractions of bulk."""

from __future__ import annotations

import numpy as np
import pytest

from scdeconv import datasets, metrics, pp, tl


@pytest.fixture(scope="module")
def cohort():
    cells, bulk = datasets.paired_cohort(n_donors=18, n_genes=600, cells_per_donor=(80, 150), seed=3)
    return cells, bulk[bulk.obs["donor"].isin(cells.obs["donor"])].copy()


def markers_of(cells, n=10):
    """Known markers: the genes with the highest expression of each type relative to the others."""
    means = {
        cell_type: np.log1p(np.asarray(cells[cells.obs["cell_type"] == cell_type].X.mean(axis=0)).ravel())
        for cell_type in cells.obs["cell_type"].unique()
    }
    return {
        cell_type: list(
            cells.var_names[np.argsort(np.max([m for t, m in means.items() if t != cell_type], axis=0) - own)[:n]]
        )
        for cell_type, own in means.items()
    }


def held_out_error(cells, bulk, truth):
    """Train on the pairs of two thirds of the donors, and predict the bulk of the others."""
    donors = sorted(bulk.obs["donor"].unique())
    test = bulk.obs["donor"].isin(donors[::3]).to_numpy()
    training = ~cells.obs["donor"].isin(donors[::3]).to_numpy()
    mdata = pp.pair(cells[training].copy(), bulk[~test].copy())
    predicted = tl.train(mdata, "calibrated_nnls").predict(bulk[test])
    truth = truth.loc[bulk.obs["donor"][test]].set_axis(predicted.index)
    return metrics.rmse(truth, predicted.reindex(columns=truth.columns, fill_value=0))


def test_clustered_cells_train_nearly_as_well(cohort):
    cells, bulk = cohort
    truth = cells.obs.groupby("donor", observed=True)["cell_type"].value_counts(normalize=True).unstack(fill_value=0)
    with_labels = held_out_error(cells, bulk, truth)

    unlabelled = cells.copy()
    del unlabelled.obs["cell_type"]
    tl.cluster(unlabelled, "desc", seed=0)
    tl.name_clusters(unlabelled, "desc", markers=markers_of(cells))
    without = held_out_error(unlabelled, bulk, truth)

    mean = metrics.rmse(truth, np.tile(truth.mean(), (len(truth), 1)))
    assert with_labels < 0.8 * mean
    assert without < 1.1 * with_labels
