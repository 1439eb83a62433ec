"""Limits of noise and composition from held-out donors, compared with explicit loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
from familiarity_loops import distance_by_loops

from scdeconv._stats.recognition.familiarity import MARGIN, Familiarity


def test_limits_and_distances_equal_an_explicit_loop():
    rng = np.random.default_rng(0)
    fractions, noise = rng.dirichlet([4, 2, 1], 9), rng.uniform(0.8, 1.3, 9)
    found = Familiarity.from_held_out(noise, fractions, np.arange(len(fractions)))
    held_out = [distance_by_loops(fractions[i], fractions[np.arange(9) != i]) for i in range(9)]
    np.testing.assert_allclose(found.limits, [1.25 * max(noise), 1.25 * max(held_out)])
    assert MARGIN == 1.25
    new = pd.DataFrame(np.vstack([rng.dirichlet([4, 2, 1], 5), [[0, 0, 1]]]), index=list("abcdef"), columns=list("xyz"))
    new_noise = np.array([1.0, 1.0, 1.7, 1.0, 1.0, 1.0])
    table = found.quality(new_noise, new)
    assert list(table.columns) == ["noise", "composition", "outside"]
    np.testing.assert_array_equal(table["noise"], new_noise)
    np.testing.assert_allclose(table["composition"], [distance_by_loops(row, fractions) for row in new.to_numpy()])
    expected = (new_noise > 1.25 * max(noise)) | (table["composition"] > 1.25 * max(held_out))
    assert table["outside"].tolist() == expected.tolist()
    assert table["outside"][["c", "f"]].all()
    assert list(table.index) == list(new.index)


def test_constant_type_does_not_mark_samples_outside():
    fractions = np.column_stack([np.linspace(0.4, 0.6, 8), np.linspace(0.6, 0.4, 8), np.zeros(8)])
    familiarity = Familiarity.from_held_out(np.ones(8), fractions, np.arange(8))
    assert np.isfinite(familiarity.limits).all()
    table = familiarity.quality(np.ones(1), pd.DataFrame([[0.5, 0.4999, 0.0001]]))
    assert not table["outside"].any()
