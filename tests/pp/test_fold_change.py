from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scdeconv._stats.draws import draw_replicates
from scdeconv._stats.markers import fold_changes
from scdeconv.pp._fold_change import fold_change_scores


@pytest.mark.parametrize("kind_of_matrix", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("fraction", [0.0, 0.6])
def test_replicates_are_counts_per_million_of_their_cells(fraction, kind_of_matrix):
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.repeat([0, 1, 2], [8, 12, 20]))
    counts = rng.poisson(rng.gamma(0.7, 2, (3, 60))[codes])
    totals = counts.sum(axis=1) + 30.0
    labels = pd.Series(pd.Categorical.from_codes(codes, ["A", "B", "C"]))
    options = {"replicates": 5, "sampling": 0.5, "seed": 3}
    scores = fold_change_scores(kind_of_matrix(counts), totals, labels, **options, fraction=fraction, q_value=0.01)

    rows = draw_replicates(codes, **options).toarray()
    cpm = np.array([[sum(row * counts[:, gene]) / sum(row * totals) * 1e6 for gene in range(60)] for row in rows])
    expressed = np.array([[np.mean(counts[codes == kind, gene] > 0) for gene in range(60)] for kind in range(3)])
    expected = fold_changes(cpm, np.arange(15) // 5, expressed, fraction=fraction, q_value=0.01)
    assert np.isfinite(expected).sum() > 9
    np.testing.assert_allclose(scores, expected)


def test_expressing_share_of_cells_limits_the_markers():
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1], 50)
    counts = rng.poisson(rng.gamma(0.5, 0.5, (2, 300))[codes])
    labels = pd.Series(pd.Categorical.from_codes(codes, ["A", "B"]))
    options = {"replicates": 5, "sampling": 0.5, "seed": 0, "q_value": 0.01}
    found = [
        np.isfinite(fold_change_scores(counts, counts.sum(axis=1), labels, **options, fraction=f)).sum()
        for f in (0.0, 0.75)
    ]
    assert found[1] < 0.3 * found[0]
