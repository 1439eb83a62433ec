from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import datasets, pp
from scdeconv._data.modalities import columns_stay
from scdeconv._stats.markers import marker_ratio
from scdeconv.pp._constraints.sources import centred_log_levels, link_by_distance, marker_scores

NO_PAIRS = np.zeros((0, 2), dtype=int)


def named(result, links):
    return {frozenset(pair) for pair in result.cells.to_numpy()[links]}


def toy(n=6):
    """Cells c0, c1, ... with counts of two genes."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(index=[f"c{i}" for i in range(n)])
    return AnnData(rng.poisson(3, (n, 2)) + 1, obs=obs, var=pd.DataFrame(index=["g0", "g1"]))


# labels


def test_label_constraints_agree_with_the_truth(cells, capsys):
    result = pp.constraints(cells, labels_key="known", n_pairs=1500)
    both = np.concatenate([result.must_link, result.cannot_link])
    assert len(both) == 1500
    assert len(np.unique(np.sort(both, axis=1), axis=0)) == 1500
    assert cells.obs["known"].notna().to_numpy()[both].all()
    assert result.cells.equals(cells.obs_names)
    assert result.agreement(cells.obs["cell_type"]) == 1
    n_cells = len(np.unique(both))
    line = f"{len(result.must_link):,} must-link, {len(result.cannot_link):,} cannot-link among {n_cells} cells; consistent"
    assert capsys.readouterr().out == f"constraints: {line}\n"
    assert repr(result) == f"Constraints: {line}"


def test_random_pairs_follow_the_label_frequencies(cells):
    result = pp.constraints(cells, labels_key="cell_type", n_pairs=20_000)
    shares = cells.obs["cell_type"].value_counts(normalize=True)
    assert len(result.must_link) / 20_000 == pytest.approx((shares**2).sum(), abs=0.02)


def test_too_few_pairs_are_all_used(capsys):
    cells = toy()
    cells.obs["label"] = ["A", "B", np.nan, "A", None, "B"]
    result = pp.constraints(cells, labels_key="label")
    assert named(result, result.must_link) == {frozenset(("c0", "c3")), frozenset(("c1", "c5"))}
    assert len(result.cannot_link) == 4
    assert capsys.readouterr().out.endswith("consistent; only 6 pairs available from labels\n")


def test_sources_draw_pairs_independently(cells, markers, global_state_untouched):
    with global_state_untouched():
        first, again, other = (pp.constraints(cells, labels_key="known", n_pairs=50, seed=seed) for seed in (1, 1, 2))
        joined = pp.constraints(cells, labels_key="known", markers=markers, n_pairs=50, seed=1)
    np.testing.assert_array_equal(first.must_link, again.must_link)
    np.testing.assert_array_equal(first.cannot_link, again.cannot_link)
    assert named(first, first.cannot_link) != named(other, other.cannot_link)
    assert named(first, first.cannot_link) <= named(joined, joined.cannot_link)


# markers


def test_marker_scores_are_mean_z_scores():
    rng = np.random.default_rng(0)
    counts = rng.poisson(2, (30, 8)) + 1
    counts[:, 7] = 0
    columns = [np.array([0, 3]), np.array([1, 2, 7])]
    middle = np.median([sum(row) for row in counts])
    logs = np.array([[np.log(1 + value / sum(row) * middle) for value in row] for row in counts])
    for matrix in (counts, sp.csr_matrix(counts)):
        scores = marker_scores(matrix, columns)
        for k, genes in enumerate(columns):
            z = [(logs[:, g] - logs[:, g].mean()) / logs[:, g].std() if g != 7 else np.zeros(30) for g in genes]
            np.testing.assert_allclose(scores[:, k], np.mean(z, axis=0), atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_constraints_from_markers_agree_with_the_true_types(seed, capsys):
    cells, bulk = datasets.paired_cohort(
        n_donors=4,
        n_bulk_only=0,
        n_reference_only=0,
        n_genes=500,
        n_cell_types=7,
        cells_per_donor=(150, 300),
        seed=seed,
    )
    best, score = marker_ratio(bulk.uns["cohort"]["profiles"])
    types = bulk.uns["cohort"]["cell_types"]
    markers = {
        name: cells.var_names[(best == k) & (score >= np.sort(score[best == k])[-6])] for k, name in enumerate(types)
    }
    result = pp.constraints(cells, markers=markers)
    assert result.agreement(cells.obs["cell_type"]) > 0.98
    assert pp.Constraints(result.cells, result.must_link, NO_PAIRS).agreement(cells.obs["cell_type"]) > 0.95
    # anchors of every type, including rare ones
    linked = cells.obs["cell_type"].iloc[np.unique(result.cannot_link)]
    assert set(linked) == set(types)
    assert re.search(r"consistent; \d+ anchors of 7 types\n", capsys.readouterr().out)


def test_unknown_marker_genes_give_a_warning(cells, markers):
    first = next(iter(markers))
    more = markers | {first: [*markers[first], "CD3E"]}
    with pytest.warns(
        UserWarning, match=r"1 of 31 markers are not among the genes of cells: 'CD3E'\. The remaining markers are"
    ):
        result = pp.constraints(cells, markers=more)
    np.testing.assert_array_equal(result.must_link, pp.constraints(cells, markers=markers).must_link)


def test_counts_are_read_from_the_layer(cells, markers):
    logged = cells.copy()
    logged.layers["counts"] = cells.X
    logged.X = cells.X.log1p()
    result = pp.constraints(logged, markers=markers, layer="counts")
    np.testing.assert_array_equal(result.must_link, pp.constraints(cells, markers=markers).must_link)


def test_markers_without_clear_cells_are_refused(cells, markers):
    same = next(iter(markers.values()))
    with pytest.raises(ValueError, match=r"of at least two types, found anchors of none\. Pass more markers"):
        pp.constraints(cells, markers={"A": same, "B": same})


# protein


def test_protein_levels_are_centred_log_ratios():
    counts = np.array([[0, 3, 10], [5, 5, 5]])
    logs = np.log(counts + 1.0)
    expected = logs - np.log(np.prod(counts + 1.0, axis=1, keepdims=True) ** (1 / 3))
    np.testing.assert_allclose(centred_log_levels(sp.csr_matrix(counts)), expected, atol=1e-12)


def test_proteins_are_linked_by_percentiles_of_all_distances(levels):
    rng = np.random.default_rng(0)
    counts = levels(rng.integers(0, 3, 90), rng)
    pairs, must = link_by_distance(sp.csr_matrix(counts), 10**6, rng)
    ratios = centred_log_levels(counts)
    distances = {(i, j): np.sqrt(((ratios[i] - ratios[j]) ** 2).sum()) for i, j in itertools.combinations(range(90), 2)}
    lower, upper = np.percentile(list(distances.values()), [0.5, 95])
    linked = list(map(tuple, pairs.tolist()))
    close = [pair for pair, together in zip(linked, must, strict=True) if together]
    assert set(close) == {pair for pair, distance in distances.items() if distance < lower}
    assert set(linked) - set(close) == {pair for pair, distance in distances.items() if distance > upper}
    assert [distances[pair] for pair in close] == sorted(distances[pair] for pair in close)
    assert not must[: len(linked) - len(close)].any()


@pytest.mark.parametrize("n_pairs", [50, 700])
def test_protein_gives_about_the_requested_number(levels, n_pairs):
    rng = np.random.default_rng(0)
    pairs, _ = link_by_distance(levels(rng.integers(0, 3, 400), rng), n_pairs, rng)
    assert n_pairs <= len(pairs) <= n_pairs + 2


def test_protein_constraints_agree_with_the_truth(multiome, cells, unchanged):
    with unchanged(multiome):
        result = pp.constraints(multiome, protein="prot")
    assert result.cells.equals(multiome["rna"].obs_names)
    assert set(result.cells[np.unique(result.cannot_link)]) <= set(multiome["prot"].obs_names)
    assert len(result.must_link) > 150
    assert result.agreement(cells.obs["cell_type"]) > 0.98
    assert pp.Constraints(result.cells, result.must_link, NO_PAIRS).agreement(cells.obs["cell_type"]) > 0.9


# explicit pairs


def test_explicit_pairs_are_kept_without_duplicates(unchanged):
    cells = toy()
    pairs = {"must_link": [("c0", "c1"), ("c1", "c0")], "cannot_link": [("c4", "c0"), ("c2", "c1")]}
    with unchanged(cells):
        result = pp.constraints(cells, pairs=pairs)
    assert named(result, result.must_link) == {frozenset(("c0", "c1"))}
    assert named(result, result.cannot_link) == {frozenset(("c0", "c4")), frozenset(("c1", "c2"))}
    assert result.must_link.dtype.kind == "i"
    table = pd.DataFrame(
        [(first, second, link) for link in pairs for first, second in pairs[link]], columns=["first", "second", "link"]
    )
    from_table = pp.constraints(cells, pairs=table)
    np.testing.assert_array_equal(from_table.must_link, result.must_link)
    np.testing.assert_array_equal(from_table.cannot_link, result.cannot_link)


@pytest.mark.parametrize("kind", ["must_link", "cannot_link"])
def test_one_kind_of_pairs_is_enough(kind):
    result = pp.constraints(toy(), pairs={kind: [("c0", "c1")]})
    assert result.report[kind] == 1
    assert result.must_link.shape[1] == result.cannot_link.shape[1] == 2
    assert result.report["contradictions"] == 0


@pytest.mark.parametrize(
    ("must", "cannot"),
    [([("c0", "c1")], [("c1", "c0")]), ([("c0", "c2"), ("c2", "c1"), ("c3", "c4")], [("c0", "c1"), ("c0", "c3")])],
)
def test_contradictory_explicit_pairs_are_refused(must, cannot):
    with pytest.raises(ValueError, match=r"found 1 cannot-links between .*: 'c[01] and c[10]'\. Remove these"):
        pp.constraints(toy(), pairs={"must_link": must, "cannot_link": cannot})


def test_at_most_three_contradictory_pairs_are_named():
    names = [f"c{i}" for i in range(6)]
    with pytest.raises(ValueError, match=r"found 5 .*'c0 and c1', 'c1 and c2', 'c2 and c3' and 2 more"):
        pp.constraints(toy(), pairs=dict.fromkeys(("must_link", "cannot_link"), list(itertools.pairwise(names))))


# contradictions


def test_indirect_contradictions_are_reported_by_cell():
    names = pd.Index(["a", "b", "c", "d", "e"])
    result = pp.Constraints(names, np.array([[0, 1], [1, 2]]), np.array([[3, 4], [2, 0], [0, 3]]))
    assert result.contradictions.to_dict("records") == [{"first": "c", "second": "a"}]
    assert result.report == {
        "must_link": 2,
        "cannot_link": 3,
        "cells": 5,
        "groups": 1,
        "largest_group": 3,
        "contradictions": 1,
    }
    assert repr(result) == "Constraints: 2 must-link, 3 cannot-link among 5 cells; 1 contradictions"


def test_explicit_pairs_override_labels():
    cells = toy(4)
    cells.obs["label"] = ["A", "A", "B", None]
    with pytest.warns(UserWarning, match=r"Constraints of lower priority are removed: 2 of 3 from labels\.$"):
        result = pp.constraints(cells, labels_key="label", pairs={"must_link": [("c0", "c3"), ("c3", "c2")]})
    assert named(result, result.must_link) == {frozenset(pair) for pair in (("c0", "c3"), ("c3", "c2"), ("c0", "c1"))}
    assert named(result, result.cannot_link) == set()
    assert result.report["contradictions"] == 0


def test_labels_override_markers_and_protein(cells, markers, multiome):
    with columns_stay():
        wrong = multiome.copy()
    types = list(cells.obs["cell_type"].cat.categories)
    # two types under one label
    wrong["rna"].obs["known"] = cells.obs["known"].astype(object).replace(types[1], types[0])
    with pytest.warns(
        UserWarning, match=r"are removed: [\d,]+ of [\d,]+ from markers, [\d,]+ of [\d,]+ from protein\.$"
    ):
        result = pp.constraints(wrong, labels_key="known", markers=markers, protein="prot")
    assert result.report["contradictions"] == 0
    trusted = pp.constraints(wrong, labels_key="known")
    assert named(trusted, trusted.must_link) <= named(result, result.must_link)
    assert named(trusted, trusted.cannot_link) <= named(result, result.cannot_link)


# agreement


def test_agreement_is_the_share_of_satisfied_constraints():
    result = pp.Constraints(pd.Index(list("abcd")), np.array([[0, 1], [2, 3]]), np.array([[0, 2], [1, 3], [0, 3]]))
    assert result.agreement(["x", "x", "y", "y"]) == 1
    assert result.agreement(np.array([1, 2, 1, 1])) == pytest.approx(2 / 5)
    assert result.agreement(pd.Series(["y", "x", "x", "z"], index=list("dbae"))) == 1
    assert result.agreement(pd.Categorical(["x", None, "x", "x"])) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["x"], "Expected one label for each of 4 cells, found 1 labels."),
        (pd.Series(["x", "y"]), "Expected labels of both cells of a constraint, found no such constraint among 1."),
    ],
)
def test_labels_of_other_cells_are_refused(labels, expected):
    result = pp.Constraints(pd.Index(list("abcd")), np.array([[0, 1]]), NO_PAIRS)
    with pytest.raises(ValueError, match=re.escape(expected)):
        result.agreement(labels)


def test_constraints_cannot_be_reassigned():
    result = pp.constraints(toy(), pairs={"must_link": [("c0", "c1")]})
    with pytest.raises(AttributeError):
        result.must_link = NO_PAIRS


def test_groups_follow_must_and_cannot_links():
    must = np.array([[0, 1], [1, 2], [3, 4], [5, 6], [7, 8], [8, 9]])
    # {3, 4} is cannot-linked to {0, 1, 2} and {7, 8, 9}; {5, 6} has no cannot-links
    cannot = np.array([[2, 7], [3, 0], [9, 4], [5, 10]])
    constraints = pp.Constraints(pd.Index([f"cell{i}" for i in range(11)]), must, cannot)
    assert [group.tolist() for group in constraints.distinct_groups()] == [[0, 1, 2], [7, 8, 9], [3, 4]]
