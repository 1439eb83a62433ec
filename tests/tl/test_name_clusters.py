from __future__ import annotations

import re

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import datasets, tl
from scdeconv._stats.markers import choose, score_by_reference
from scdeconv.tl._name_clusters import score_by_markers


@pytest.fixture(scope="module")
def cohort_of_types():
    """Cells, the planted profiles and names of 7 types; do not change them."""
    cells, bulk = datasets.paired_cohort(
        n_donors=6, n_bulk_only=0, n_reference_only=0, n_genes=1000, cells_per_donor=(150, 300), seed=1
    )
    planted = bulk.uns["cohort"]
    return cells, planted["profiles"], list(planted["cell_types"])


def anonymous_clusters(cells, *, seed=0):
    """The cell types under numbers in random order, the first type split in two at random."""
    rng = np.random.default_rng(seed)
    codes = cells.obs["cell_type"].cat.codes.to_numpy()
    n_types = codes.max() + 1
    split = (codes == 0) & (rng.random(len(codes)) < 0.4)
    numbers = rng.permutation(n_types + 1)[np.where(split, n_types, codes)]
    return pd.Categorical(numbers.astype(str), categories=[str(k) for k in range(n_types + 1)])


@pytest.fixture
def clustered(cohort_of_types):
    """Cells with anonymous clusters and random probabilities of them."""
    cells = cohort_of_types[0].copy()
    cells.obs["desc"] = anonymous_clusters(cells)
    names = cells.obs["desc"].cat.categories
    probabilities = np.random.default_rng(2).dirichlet(np.ones(len(names)), cells.n_obs)
    cells.obsm["desc_probabilities"] = pd.DataFrame(probabilities, cells.obs_names, list(names))
    cells.obs["true"] = cells.obs["cell_type"].astype(str)
    del cells.obs["cell_type"]
    return cells


def best_markers(cells, profiles, cell_types, n):
    """The genes whose planted share is highest in a type, relative to the second."""
    logs = np.log(profiles)
    ratio = [logs[k] - np.delete(logs, k, axis=0).max(axis=0) for k in range(len(logs))]
    return {name: list(cells.var_names[np.argsort(-row)[:n]]) for name, row in zip(cell_types, ratio, strict=True)}


@pytest.mark.parametrize("n_markers", [1, 3, 20])
def test_markers_name_clusters_and_merge_split_types(cohort_of_types, clustered, n_markers, capsys):
    tl.name_clusters(clustered, markers=best_markers(*cohort_of_types, n_markers))
    assert (clustered.obs["cell_type"] == clustered.obs["true"]).all()
    assert list(clustered.obs["cell_type"].cat.categories) == cohort_of_types[2]
    assert capsys.readouterr().out == "named 8 of 8 clusters as 7 of 7 cell types\n"


@pytest.mark.parametrize("shift", [0, 0.9])
def test_reference_of_another_platform_names_all_clusters(cohort_of_types, clustered, shift, capsys):
    """The shift is as large as in the generated bulk: a factor of 2.5 for a typical gene."""
    cells = cohort_of_types[0]
    theirs = cells.obs["donor"].isin(cells.obs["donor"].cat.categories[:3]).to_numpy()
    rng = np.random.default_rng(3)
    factors = np.exp(rng.normal(0, shift, cells.n_vars))
    reference = AnnData(sp.csr_matrix(rng.poisson(cells.X.toarray()[theirs] * factors)), cells.obs[theirs], cells.var)
    mine = clustered[~theirs].copy()
    tl.name_clusters(mine, reference=reference[:, rng.permutation(cells.n_vars)[:900]].copy())
    assert (mine.obs["cell_type"] == mine.obs["true"]).all()
    assert "named 8 of 8 clusters as 7 of 7" in capsys.readouterr().out


def test_profiles_can_be_the_reference(cohort_of_types, clustered):
    cells, profiles, cell_types = cohort_of_types
    reference = AnnData(profiles, obs=pd.DataFrame({"label": cell_types}, index=cell_types), var=cells.var)
    tl.name_clusters(clustered, reference=reference, reference_key="label", key_added="named")
    assert (clustered.obs["named"] == clustered.obs["true"]).all()
    assert "cell_type" not in clustered.obs


@pytest.mark.parametrize("by", ["markers", "reference"])
def test_cluster_of_a_missing_type_is_unknown(cohort_of_types, clustered, by, capsys):
    cells, profiles, cell_types = cohort_of_types
    left_out = "Monocyte"
    markers = best_markers(cells, profiles, cell_types, 5)
    del markers[left_out]
    reference = cells[cells.obs["cell_type"] != left_out]
    tl.name_clusters(clustered, **({"markers": markers} if by == "markers" else {"reference": reference}))
    expected = clustered.obs["true"].replace(left_out, "unknown")
    assert (clustered.obs["cell_type"] == expected).all()
    assert clustered.obs["cell_type"].cat.categories[-1] == "unknown"
    cluster = clustered.obs["desc"][clustered.obs["true"] == left_out].iloc[0]
    share = (clustered.obs["true"] == left_out).mean()
    report = f"named 7 of 8 clusters as 6 of 6 cell types; unknown: '{cluster}' ({share:.1%} of the cells)\n"
    assert capsys.readouterr().out == report


@pytest.mark.parametrize("by", ["markers", "reference"])
def test_types_without_clusters_are_not_assigned(cohort_of_types, clustered, by):
    cells, profiles, cell_types = cohort_of_types
    part = clustered[clustered.obs["true"].isin(["Macrophage", "Dendritic cell"])].copy()
    # clusters without cells cannot be named
    del part.obsm["desc_probabilities"]
    offer = {"markers": best_markers(cells, profiles, cell_types, 10)} if by == "markers" else {"reference": cells}
    tl.name_clusters(part, **offer)
    assert (part.obs["cell_type"] == part.obs["true"]).all()


def test_mixed_cluster_is_unknown(cohort_of_types, clustered):
    clustered.obs["mixed"] = clustered.obs["true"].replace({"CD4 T cell": "mixed", "CD8 T cell": "mixed"})
    tl.name_clusters(clustered, "mixed", reference=cohort_of_types[0])
    assert (
        clustered.obs["cell_type"] == clustered.obs["true"].where(clustered.obs["mixed"] != "mixed", "unknown")
    ).all()
    record = clustered.uns["scdeconv"]["cell_type"]
    scores = pd.DataFrame(record["scores"], record["clusters"], record["cell_types"]).loc["mixed"]
    assert set(scores.nlargest(2).index) == {"CD4 T cell", "CD8 T cell"}


def test_types_with_equal_markers_are_ambiguous(cohort_of_types, clustered):
    markers = best_markers(*cohort_of_types, 5)
    markers["Monocyte"] = markers["Dendritic cell"]
    tl.name_clusters(clustered, markers=markers)
    known = ~clustered.obs["true"].isin(["Monocyte", "Dendritic cell"])
    assert (clustered.obs["cell_type"] == clustered.obs["true"].where(known, "unknown")).all()


def test_probabilities_of_merged_clusters_are_summed(cohort_of_types, clustered):
    tl.name_clusters(clustered, markers=best_markers(*cohort_of_types, 5))
    record = clustered.uns["scdeconv"]["cell_type"]
    found = clustered.obsm["cell_type_probabilities"]
    assert list(found.columns) == list(clustered.obs["cell_type"].cat.categories)
    by_cluster = clustered.obsm["desc_probabilities"]
    for name in found:
        members = [c for c, n in zip(record["clusters"], record["names"], strict=True) if n == name]
        np.testing.assert_allclose(found[name], sum(by_cluster[member] for member in members))
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_outdated_probabilities_are_removed(cohort_of_types, clustered):
    tl.name_clusters(clustered, markers=best_markers(*cohort_of_types, 5))
    del clustered.obsm["desc_probabilities"]
    tl.name_clusters(clustered, markers=best_markers(*cohort_of_types, 5))
    assert "cell_type_probabilities" not in clustered.obsm


def test_record_of_scores_survives_a_file(cohort_of_types, clustered, tmp_path):
    tl.name_clusters(clustered, reference=cohort_of_types[0])
    record = clustered.uns["scdeconv"]["cell_type"]
    assert record["method"] == "reference"
    assert record["key"] == "desc"
    mapping = dict(zip(record["clusters"], record["names"], strict=True))
    assert (clustered.obs["desc"].astype(str).map(mapping) == clustered.obs["cell_type"]).all()
    best = record["cell_types"][record["scores"].argmax(axis=1)]
    assert list(best) == list(record["names"])
    clustered.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(
        again.obsm["cell_type_probabilities"], clustered.obsm["cell_type_probabilities"], check_names=False
    )
    found = again.uns["scdeconv"]["cell_type"]
    assert {key: np.asarray(value).tolist() for key, value in found.items()} == {
        key: np.asarray(value).tolist() for key, value in record.items()
    }


def test_only_its_own_keys_are_written(cohort_of_types, clustered, unchanged):
    reference = cohort_of_types[0]
    with unchanged(clustered, reference):
        tl.name_clusters(clustered, reference=reference)
        del clustered.obs["cell_type"], clustered.obsm["cell_type_probabilities"], clustered.uns["scdeconv"]


def test_order_and_matrix_format_do_not_matter(cohort_of_types, clustered):
    markers = best_markers(*cohort_of_types, 5)
    rng = np.random.default_rng(4)
    other = clustered[rng.permutation(clustered.n_obs)][:, rng.permutation(clustered.n_vars)].copy()
    other.X = other.X.toarray().astype(float)
    other.layers["counts"], other.X = other.X, np.log1p(other.X)
    for offer in ({"markers": markers}, {"reference": cohort_of_types[0]}):
        tl.name_clusters(clustered, **offer)
        tl.name_clusters(other, **offer, layer="counts")
        first, second = (adata.uns["scdeconv"]["cell_type"] for adata in (clustered, other))
        np.testing.assert_allclose(first["scores"], second["scores"], atol=1e-8)
        assert (other.obs["cell_type"] == clustered.obs["cell_type"][other.obs_names]).all()


def test_score_by_markers_equals_a_loop():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(1, 3, (4, 12))[rng.integers(0, 4, 60)])
    counts[:, 5] = 0
    clusters = np.r_[0, 1, 2, rng.integers(0, 3, 57)]
    markers = [np.array([0, 3]), np.array([5]), np.array([5, 7, 8])]
    totals = counts.sum(axis=1)
    expected = np.zeros((3, 3))
    for k, columns in enumerate(markers):
        for gene in columns:
            logs = np.array([np.log1p(counts[i, gene] / totals[i] * np.mean(sorted(totals)[29:31])) for i in range(60)])
            groups = [logs[clusters == c] for c in range(3)]
            means = np.array([np.mean(group) for group in groups])
            if np.all(means == means[0]):
                continue
            pooled = sum(((group - group.mean()) ** 2).sum() for group in groups) / 57
            noise = np.mean([pooled / len(group) for group in groups])
            share = max(0.0, 1 - noise / np.var(means, ddof=1))
            expected[:, k] += share * (means - means.mean()) / np.std(means, ddof=1) / len(columns)
    for matrix in (counts, sp.csr_matrix(counts)):
        np.testing.assert_allclose(score_by_markers(matrix, clusters, markers), expected, atol=1e-12)


def test_reference_score_is_pearson_over_variable_genes():
    rng = np.random.default_rng(1)
    clusters, types = rng.gamma(1, 5, (3, 400)), rng.gamma(1, 2, (4, 400))
    logs = [np.log(1 + 400 * (t.T / t.sum(axis=1)).T) for t in (clusters, types)]
    genes = sorted(range(400), key=lambda g: -np.var(logs[1][:, g]))[:200]
    expected = [
        [np.corrcoef((c - logs[0].mean(axis=0))[genes], (t - logs[1].mean(axis=0))[genes])[0, 1] for t in logs[1]]
        for c in logs[0]
    ]
    np.testing.assert_allclose(score_by_reference(clusters, types), expected)
    np.testing.assert_allclose(score_by_reference(7 * clusters, 0.01 * types), expected)


def test_best_score_must_be_high_and_unique():
    scores = np.array([[0.9, 0.2, 0.1], [0.2, 0.29, -1.0], [0.5, 0.9, 0.85], [0.1, 0.2, 0.5]])
    assert choose(scores, least=0.3, lead=0.1).tolist() == [0, -1, -1, 2]


def problems_of(cells, *args, **kwargs):
    before = set(cells.obs), set(cells.obsm), set(cells.uns)
    with pytest.raises(ValueError, match="The clusters cannot be named") as caught:
        tl.name_clusters(cells, *args, **kwargs)
    assert (set(cells.obs), set(cells.obsm), set(cells.uns)) == before
    return re.split(r"\n  \d+\. ", str(caught.value))[1:]


MARKERS = {"a": ["G1"], "b": ["G2"]}


def test_exactly_one_of_markers_and_reference_required(cohort_of_types, clustered):
    assert "found neither" in problems_of(clustered)[0]
    markers = best_markers(*cohort_of_types, 2)
    assert "found both" in problems_of(clustered, markers=markers, reference=cohort_of_types[0])[0]


def test_all_problems_are_in_one_report(clustered):
    clustered.obs.loc[clustered.obs_names[:2], "desc"] = np.nan
    found = problems_of(clustered, key_added="desc", markers=MARKERS, layer="counts")
    assert [text.split(", found")[0] for text in found] == [
        "Expected key_added to differ from key",
        "Expected a cluster for every row of cells.obs['desc']",
        "Expected layer 'counts'",
        "Expected markers of every type among the genes of cells",
    ]


def test_names_invalid_in_files_are_refused(cohort_of_types, clustered):
    genes = list(clustered.var_names[:2])
    (problem,) = problems_of(clustered, markers={"NK/T": genes[:1], "B": genes[1:]})
    assert "Expected cell-type names without '/'" in problem
    reference = cohort_of_types[0].copy()
    reference.obs["cell_type"] = reference.obs["cell_type"].cat.rename_categories({"Monocyte": "Mono/Mac"})
    (problem,) = problems_of(clustered, reference=reference)
    assert "in reference.obs['cell_type'], found 1: 'Mono/Mac'" in problem


def test_invalid_clusters_are_refused_with_advice(clustered):
    assert "Expected clusters in cells.obs['leiden']" in problems_of(clustered, "leiden", markers=MARKERS)[0]
    clustered.obs["one"] = "0"
    assert "Expected at least two clusters" in problems_of(clustered, "one", markers=MARKERS)[0]
    clustered.obsm["desc_probabilities"] = clustered.obsm["desc_probabilities"].drop(columns="3")
    assert "as columns in cells.obsm['desc_probabilities']" in problems_of(clustered, markers=MARKERS)[0]
    clustered.obsm["desc_probabilities"] = np.ones((clustered.n_obs, 8)) / 8
    assert "found ndarray" in problems_of(clustered, markers=MARKERS)[0]


def test_invalid_references_are_refused_with_advice(cohort_of_types, clustered):
    reference = cohort_of_types[0]
    (problem,) = problems_of(clustered, reference=reference, reference_key="type")
    assert "Expected the cell types in reference.obs['type'], found columns ['donor', 'cell_type']" in problem
    other = reference.copy()
    other.var_names = "x" + other.var_names
    (problem,) = problems_of(clustered, reference=other)
    assert "Expected the same genes in cells and reference, found 0" in problem
    logged = reference.copy()
    logged.X = logged.X.astype(float).log1p()
    (problem,) = problems_of(clustered, reference=logged)
    assert "Expected values on a linear scale in reference, found log-transformed values" in problem
    (problem,) = problems_of(clustered, reference=reference[reference.obs["cell_type"] == "Monocyte"].copy())
    assert "Expected at least two cell types" in problem


def test_missing_markers_are_reported(cohort_of_types, clustered):
    markers = best_markers(*cohort_of_types, 5)
    markers["Monocyte"].append("NOT_THERE")
    with pytest.warns(UserWarning, match="1 of 36 markers are not among the genes of cells: 'NOT_THERE'") as caught:
        tl.name_clusters(clustered, markers=markers)
    assert caught[0].filename == __file__
    assert (clustered.obs["cell_type"] == clustered.obs["true"]).all()
