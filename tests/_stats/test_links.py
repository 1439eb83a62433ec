from __future__ import annotations

import itertools

import numpy as np
import pytest

from scdeconv._stats.links import (
    draw_pairs,
    find_anchors,
    link_by_label,
    mean_z_scores,
    select_by_distance,
    without_contradictions,
)


@pytest.mark.parametrize("n", [2, 3, 7, 40])
def test_all_pairs_are_drawn_once_if_asked_for(n):
    drawn = draw_pairs(n, 10_000, np.random.default_rng(0))
    assert sorted(map(tuple, drawn.tolist())) == list(itertools.combinations(range(n), 2))


def test_pairs_are_distinct_and_uniform():
    rng = np.random.default_rng(0)
    counts = np.zeros((6, 6))
    for _ in range(3000):
        drawn = draw_pairs(6, 5, rng)
        assert len(np.unique(drawn, axis=0)) == 5
        counts[drawn[:, 0], drawn[:, 1]] += 1
    upper = counts[np.triu_indices(6, 1)]
    assert counts.sum() == upper.sum() == 15_000
    assert np.abs(upper - 1000).max() < 5 * np.sqrt(1000 * 2 / 3)


def test_pairs_of_millions_of_cells_need_little_memory():
    n = 30_000_000
    drawn = draw_pairs(n, 2000, np.random.default_rng(0))
    assert len(np.unique(drawn, axis=0)) == 2000
    assert (drawn[:, 0] >= 0).all()
    assert (drawn[:, 0] < drawn[:, 1]).all()
    assert (drawn[:, 1] < n).all()


def test_pairs_of_labelled_cells_follow_their_labels():
    codes = np.array([0, -1, 1, 0, -1, 1, 2, 0])
    pairs, must = link_by_label(codes, 100, np.random.default_rng(0))
    labelled = [i for i, code in enumerate(codes) if code >= 0]
    expected = {pair: codes[pair[0]] == codes[pair[1]] for pair in itertools.combinations(labelled, 2)}
    assert dict(zip(map(tuple, pairs.tolist()), must, strict=True)) == expected


def test_anchors_belong_to_one_type():
    rng = np.random.default_rng(0)
    scores = rng.gamma(1, 1, (500, 3))
    anchors = find_anchors(scores)
    low, high = np.percentile(scores, 5, axis=0), np.percentile(scores, 99.5, axis=0)
    for row, anchor in zip(scores, anchors, strict=True):
        scaled = [(row[k] - low[k]) / (high[k] - low[k]) for k in range(3)]
        clear = [k for k in range(3) if scaled[k] > 2 / 3 and all(scaled[j] < 1 / 3 for j in range(3) if j != k)]
        assert anchor == (clear[0] if clear else -1)
    assert (anchors >= 0).any()


def test_score_of_few_cells_gives_no_anchors():
    scores = np.column_stack([np.repeat([0.0, 1.0], 500), np.repeat([1.0, 0.0], 500), np.zeros(1000)])
    scores[0, 2] = 5
    np.testing.assert_array_equal(find_anchors(scores), np.repeat([1, 0], 500))


def test_z_scores_of_constant_genes_are_zero():
    logs = np.random.default_rng(0).normal(size=(20, 3))
    logs[:, 1] = 0.1
    z = [(logs[:, gene] - logs[:, gene].mean()) / logs[:, gene].std() for gene in (0, 2)]
    np.testing.assert_allclose(mean_z_scores(logs), sum(z) / 3)


def test_cannot_links_precede_must_links_by_distance():
    distances = np.random.default_rng(0).permutation(1000.0 + np.arange(1000))
    pairs, close = select_by_distance(np.column_stack([distances, distances]), distances)
    assert pairs[close, 0].tolist() == [1000, 1001, 1002, 1003, 1004]
    assert sorted(pairs[~close, 0]) == list(range(1950, 2000))
    assert not close[:50].any()


def possible(pairs, must, n):
    """Try to give every cell a group by following must-links until nothing changes."""
    groups = list(range(n))
    changed = True
    while changed:
        changed = False
        for (first, second), together in zip(pairs, must, strict=True):
            lower = min(groups[first], groups[second])
            if together and groups[first] != groups[second]:
                groups[first] = groups[second] = lower
                changed = True
    return all(
        together or groups[first] != groups[second] for (first, second), together in zip(pairs, must, strict=True)
    )


@pytest.mark.parametrize("seed", range(12))
def test_constraint_is_kept_unless_it_contradicts_earlier_ones(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 15))
    pairs = draw_pairs(n, 60, rng)[rng.permutation(min(60, n * (n - 1) // 2))]
    must = rng.random(len(pairs)) < rng.uniform(0.2, 0.8)
    kept = []
    expected = []
    for pair, together in zip(pairs.tolist(), must, strict=True):
        fits = possible([p for p, _ in [*kept, (pair, together)]], [m for _, m in [*kept, (pair, together)]], n)
        expected.append(fits)
        if fits:
            kept.append((pair, together))
    np.testing.assert_array_equal(without_contradictions(pairs, must), expected)
    assert not all(expected) or n < 6
