from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdeconv.datasets._cell_sampling import balance_donors, priorities, sample_strata, share_out


@pytest.fixture(scope="module")
def annotation():
    rng = np.random.default_rng(3)
    table = pd.DataFrame(
        {
            "soma_joinid": rng.permutation(np.arange(1000, 5000)),
            "donor": rng.choice(["d1", "d2", "d3", "d4"], 4000, p=[0.7, 0.2, 0.09, 0.01]),
            "cell_type": rng.choice(["a", "b"], 4000, p=[0.9, 0.1]),
        }
    )
    return table


def blocks(table, size):
    return [table.iloc[start : start + size] for start in range(0, len(table), size)]


@pytest.mark.parametrize("size", [37, 1000])
def test_sample_depends_neither_on_order_nor_blocks(annotation, size):
    expected = sample_strata([annotation], 20, seed=1)
    again = sample_strata(blocks(annotation.sample(frac=1, random_state=2), size), 20, seed=1)
    assert sorted(again["soma_joinid"]) == sorted(expected["soma_joinid"])


def test_strata_have_at_most_the_limit(annotation):
    sizes = sample_strata(blocks(annotation, 300), 20, seed=1).groupby(["cell_type", "donor"]).size()
    available = annotation.groupby(["cell_type", "donor"]).size()
    assert sizes.equals(available.clip(upper=20))


def test_other_seeds_choose_other_cells(annotation):
    first, second = (set(sample_strata([annotation], 20, seed)["soma_joinid"]) for seed in (0, 1))
    assert len(first & second) < 0.5 * len(first)


def test_priorities_are_uniform_and_distinct():
    values = priorities(np.arange(20_000), seed=5)
    assert len(np.unique(values)) == len(values)
    counts, _ = np.histogram(values / 2.0**64, bins=20, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 50
    # neighbouring identifiers are independent
    assert abs(np.corrcoef(values[:-1] / 2.0**64, values[1:] / 2.0**64)[0, 1]) < 0.03


@pytest.mark.parametrize(
    ("available", "total", "expected"),
    [
        ([100, 100, 100], 30, [10, 10, 10]),
        ([2, 100, 100], 30, [2, 14, 14]),
        ([2, 5, 3], 30, [2, 5, 3]),
        ([100, 1, 100], 10, [4, 1, 5]),
    ],
)
def test_groups_give_equal_shares(available, total, expected):
    assert share_out(np.array(available), total).tolist() == expected


def test_shares_sum_to_the_total():
    rng = np.random.default_rng(0)
    for _ in range(50):
        available = rng.integers(0, 40, rng.integers(1, 9))
        total = int(rng.integers(1, 200))
        given = share_out(available, total)
        assert given.sum() == min(total, available.sum())
        # whoever gives less than another has given all
        below = given < given.max() - 1
        assert (given[below] == available[below]).all()


def test_types_are_balanced_over_donors(annotation):
    table = balance_donors(sample_strata([annotation], 100, seed=1), 100)
    sizes = table[table["cell_type"] == "a"].groupby("donor").size()
    rare = (annotation["cell_type"].eq("a") & annotation["donor"].eq("d4")).sum()
    assert sizes.sum() == 100
    assert sizes["d4"] == min(rare, 25)
    assert sizes.drop("d4").max() - sizes.drop("d4").min() <= 1


def test_no_cells_give_an_empty_sample(annotation):
    empty = sample_strata([annotation.iloc[:0]], 5, seed=0)
    assert balance_donors(empty, 5).empty
