from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from scdeconv import pp
from scdeconv._stats.markers import agreement, best_per_type, marker_ratio


@pytest.fixture
def profiles():
    return np.random.default_rng(0).gamma(0.7, 2.0, (4, 60))


def selected(mdata):
    chosen = mdata["bulk"].var["selected"]
    assert chosen.dtype == bool
    return set(chosen.index[chosen])


def loop_over_marker_ratios(profiles):
    """Best type and log2 ratio of the best and the second share of RNA, one gene after the other."""
    n_genes = len(profiles[0])
    shares = [[value / sum(row) + 0.1 / n_genes if sum(row) else 0.1 / n_genes for value in row] for row in profiles]
    kinds, scores = [], []
    for gene in range(n_genes):
        values = sorted(((row[gene], -kind) for kind, row in enumerate(shares)), reverse=True)
        kinds.append(-values[0][1])
        scores.append(math.log2(values[0][0] / values[1][0]))
    return kinds, scores


def test_marker_ratio_equals_a_loop(profiles):
    kinds, scores = marker_ratio(profiles)
    expected_kinds, expected_scores = loop_over_marker_ratios(profiles.tolist())
    assert kinds.tolist() == expected_kinds
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-12)


def test_marker_ratio_does_not_depend_on_depth(profiles):
    kinds, scores = marker_ratio(profiles)
    deeper = marker_ratio(profiles * [[1], [10], [0.1], [3]])
    np.testing.assert_array_equal(deeper[0], kinds)
    np.testing.assert_allclose(deeper[1], scores)


def test_rarely_detected_genes_are_not_selected():
    profiles = np.full((2, 50), 10.0)
    profiles[:, 0] = [0.001, 0]
    profiles[:, 1] = [30, 10]
    scores = marker_ratio(profiles)[1]
    assert scores.argmax() == 1
    assert scores[0] < 0.01


def test_types_without_cells_have_no_markers(profiles):
    profiles[2] = 0
    with np.errstate(all="raise"):
        kinds, scores = marker_ratio(profiles)
    assert np.isfinite(scores).all()
    assert set(kinds) == {0, 1, 3}
    assert (scores >= 0).all()


def test_a_single_type_ranks_genes_by_expression(profiles):
    kinds, scores = marker_ratio(profiles[:1])
    assert set(kinds) == {0}
    assert np.argsort(scores).tolist() == np.argsort(profiles[0]).tolist()


@pytest.mark.parametrize("n_genes", [1, 4, 10, 12, 40, 60])
def test_genes_are_selected_round_robin_over_types(profiles, n_genes):
    kinds, scores = marker_ratio(profiles)
    chosen = best_per_type(kinds, scores, n_genes)
    assert chosen.sum() == n_genes
    queues = [sorted(np.flatnonzero(kinds == kind), key=lambda gene: -scores[gene]) for kind in range(4)]
    expected = set()
    while any(queues):
        turn = sorted((queue.pop(0) for queue in queues if queue), key=lambda gene: -scores[gene])
        expected |= set(turn[: n_genes - len(expected)])
    assert set(np.flatnonzero(chosen)) == expected


def test_types_get_equal_numbers_of_genes():
    kinds = np.repeat([0, 1, 2], [50, 30, 4])
    chosen = best_per_type(kinds, np.random.default_rng(0).random(84), 24)
    assert np.bincount(kinds[chosen]).tolist() == [10, 10, 4]


def test_markers_are_those_of_the_profiles(mdata):
    pp.select_genes(mdata, 9)
    kinds, scores = (np.array(x) for x in loop_over_marker_ratios(mdata["profiles"].X.tolist()))
    expected = {
        mdata.var_names[gene]
        for kind in range(3)
        for gene in sorted(np.flatnonzero(kinds == kind), key=lambda gene: -scores[gene])[:3]
    }
    assert selected(mdata) == expected


def test_variance_is_between_donors_not_samples(make_inputs):
    cells, bulk = make_inputs(bulk_donors=("D1", "D1", "D1", "D2", "D3", "B1"))
    mdata = pp.pair(cells, bulk)
    pp.select_genes(mdata, 8, criterion="variance")
    scores = {}
    for gene in range(40):
        of_donor = {}
        for sample, donor in enumerate(bulk.obs["donor"]):
            value = math.log1p(bulk.X[sample, gene] / bulk.X[sample].sum() * 1e6)
            of_donor.setdefault(donor, []).append(value)
        means = [sum(values) / len(values) for values in of_donor.values()]
        scores[f"G{gene}"] = sum((x - sum(means) / 4) ** 2 for x in means) / 3
    assert selected(mdata) == set(sorted(scores, key=scores.get)[-8:])


def test_agreement_correlates_bulk_with_its_pseudobulk(make_inputs):
    cells, bulk = make_inputs(bulk_donors=("D3", "B1", "D1", "D4", "D2", "D3"))
    mdata = pp.pair(cells, bulk)
    pp.select_genes(mdata, 8, criterion="agreement")
    paired = bulk[bulk.obs["donor"] != "B1"]
    own = []
    for donor in paired.obs["donor"]:
        total = cells.X[(cells.obs["donor"] == donor).to_numpy()].toarray().sum(axis=0)
        own.append(np.log1p(total / total.sum() * 1e6))
    logs = np.log1p(paired.X / paired.X.sum(axis=1, keepdims=True) * 1e6)
    scores = {f"G{gene}": np.corrcoef(logs[:, gene], np.array(own)[:, gene])[0, 1] for gene in range(40)}
    assert selected(mdata) == set(sorted(scores, key=scores.get)[-8:])


def test_agreement_of_a_constant_gene_is_zero():
    rng = np.random.default_rng(0)
    first, second = rng.random((5, 3)), rng.random((5, 3))
    first[:, 0], second[:, 1] = 2.0, 0.0
    with np.errstate(all="raise"):
        found = agreement(first, second)
    np.testing.assert_allclose(found, [0, 0, np.corrcoef(first[:, 2], second[:, 2])[0, 1]], atol=1e-12)


def test_given_pseudobulk_is_matched_by_donor(reference_inputs):
    mdata = pp.pair(**reference_inputs)
    bulk, pseudobulk = mdata["bulk"], mdata["pseudobulk"]
    # the pseudobulk is in reverse order: gene G7 follows bulk donor by donor
    pseudobulk.X[:, 7] = bulk.X[::-1, 7] * 2
    pp.select_genes(mdata, 1, criterion="agreement")
    assert selected(mdata) == {"G7"}


def test_fifty_genes_for_each_type_by_default(make_inputs):
    mdata = pp.pair(*make_inputs(n_genes=400))
    pp.select_genes(mdata)
    assert len(selected(mdata)) == 150
    assert mdata.uns["scdeconv"]["select_genes"] == {"n_genes": None, "criterion": "markers"}


@pytest.mark.parametrize("criterion", ["markers", "variance", "agreement"])
def test_number_of_genes_is_as_requested(mdata, criterion):
    for asked, given in ((1, 1), (17, 17), (40, 40), (1000, 40)):
        pp.select_genes(mdata, asked, criterion=criterion)
        assert len(selected(mdata)) == given
    assert mdata.uns["scdeconv"]["select_genes"] == {"n_genes": 1000, "criterion": criterion}


def test_expression_and_order_of_genes_are_kept(mdata, assert_same):
    before = {name: adata.copy() for name, adata in mdata.mod.items()}
    pp.select_genes(mdata, 5)
    del mdata["bulk"].var["selected"]
    for name, copy in before.items():
        assert_same(mdata[name], copy)


def test_agreement_needs_pseudobulk(reference_inputs):
    del reference_inputs["pseudobulk"]
    with pytest.raises(KeyError, match=r"Expected mdata\['pseudobulk'\].*Pass pseudobulk to pp\.pair"):
        pp.select_genes(pp.pair(**reference_inputs), criterion="agreement")


@pytest.mark.filterwarnings("ignore:Only")
def test_too_few_donors_are_refused(make_inputs):
    two = pp.pair(*make_inputs(bulk_donors=("D1", "D2", "B1")))
    with pytest.raises(ValueError, match="Expected at least 3 donors with bulk and pseudobulk .*, found 2"):
        pp.select_genes(two, criterion="agreement")
    repeated = pp.pair(*make_inputs(bulk_donors=("D1", "D1", "D2", "D2")))
    with pytest.raises(ValueError, match="Expected at least 3 donors with bulk and pseudobulk .*, found 2"):
        pp.select_genes(repeated, criterion="agreement")
    one = pp.pair(*make_inputs(bulk_donors=("D1", "D1")))
    with pytest.raises(ValueError, match="Expected at least 2 donors with bulk for criterion='variance', found 1"):
        pp.select_genes(one, criterion="variance")
    for mdata in (two, repeated, one):
        assert "selected" not in mdata["bulk"].var
        assert "select_genes" not in mdata.uns["scdeconv"]


def test_planted_markers_are_found():
    rng = np.random.default_rng(0)
    profiles = rng.gamma(5, 1, (3, 100))
    planted = {0: [3, 50], 1: [7, 99], 2: [20, 21]}
    for kind, genes in planted.items():
        profiles[kind, genes] += 60
    kinds, scores = marker_ratio(profiles)
    chosen = pd.Series(kinds)[best_per_type(kinds, scores, 6)]
    assert {kind: list(genes.index) for kind, genes in chosen.groupby(chosen)} == planted
