from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from scdeconv.clustering._initial_clusters import centroids, even_spread, k_means, leiden


@pytest.fixture
def groups():
    return np.random.default_rng(3).permutation(np.arange(150) % 3)


@pytest.fixture
def latent(groups):
    """150 cells in three groups, far from each other."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(150, 5)) + 20 * np.eye(3, 5)[groups]).astype(np.float32)


def test_k_means_finds_the_groups(latent, groups):
    labels = k_means(latent, 3, seed=0)
    assert adjusted_rand_score(groups, labels) == 1
    assert set(labels) == {0, 1, 2}


def test_even_spread_halves_log_deviations():
    """Standard deviations of 100, 4 and 1 along rotated axes become 10, 2 and 1, up to a common factor."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 3))
    axes = np.linalg.qr(values - values.mean(axis=0))[0]
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    spread = even_spread(axes * [100, 4, 1] @ rotation + 7)
    np.testing.assert_allclose(np.abs(spread / axes), np.tile([10, 2, 1], (200, 1)), rtol=1e-6)


def test_even_spread_ignores_a_wide_axis():
    """Two groups that both vary more along another axis: k-means on the raw values cuts that axis."""
    rng = np.random.default_rng(0)
    groups = np.arange(1000) % 2
    values = np.column_stack([rng.laplace(0, 1.2, 1000), 2 * groups]) + rng.normal(0, 0.05, (1000, 2))
    assert adjusted_rand_score(groups, k_means(values, 2, seed=0)) < 0.1
    assert adjusted_rand_score(groups, k_means(even_spread(values), 2, seed=0)) == 1


def test_k_means_from_given_centroids_keeps_their_order(latent, groups):
    start = np.stack([latent[groups == group][:3].mean(axis=0) for group in (2, 0, 1)])
    assert list(k_means(latent, start, seed=0)) == [{2: 0, 0: 1, 1: 2}[group] for group in groups]


def test_leiden_finds_the_groups_and_their_number(latent, groups):
    labels = leiden(latent, 0.1, 15, seed=0)
    assert adjusted_rand_score(groups, labels) == 1
    assert set(labels) == {0, 1, 2}
    assert leiden(latent, 3, 15, seed=0).max() > 2


LARGE = """
import numpy as np, torch
torch.set_num_threads(1)
from sklearn.metrics import adjusted_rand_score
from scdeconv.clustering._initial_clusters import leiden
groups = np.arange(8400) % 3
latent = np.random.default_rng(0).normal(size=(8400, 5)) + 20 * np.eye(3, 5)[groups]
agreement = adjusted_rand_score(groups, leiden(latent, 0.01, 15, seed=0))
print(agreement, torch.get_num_threads())
"""


@pytest.mark.slow
def test_leiden_of_many_cells_keeps_torch_threads():
    """Above 8,192 cells scanpy uses pynndescent. In a new process, as numba sets the OpenMP threads when it starts."""
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    agreement, n_threads = done.stdout.split()
    assert float(agreement) == 1
    assert n_threads == "1"


def test_leiden_equals_scanpy(latent):
    import scanpy as sc
    from anndata import AnnData

    cells = AnnData(latent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.neighbors(cells, n_neighbors=12, use_rep="X", random_state=4)
        sc.tl.leiden(cells, resolution=1.2, flavor="igraph", n_iterations=-1, random_state=4)
    assert list(leiden(latent, 1.2, 12, seed=4)) == [int(label) for label in cells.obs["leiden"]]


def test_single_cluster_error_names_the_remedy(latent, groups):
    with pytest.raises(ValueError, match=r"at least two clusters, found one at resolution=0.001\. Raise resolution\."):
        leiden(latent[groups == 0], 0.001, 20, seed=0)


def test_fewer_cells_than_neighbours_are_accepted(latent):
    assert len(leiden(np.vstack([latent[:6], latent[:6] + 50]), 1.0, 20, seed=0)) == 12


@pytest.mark.parametrize("find", [lambda x: k_means(x, 4, seed=1), lambda x: leiden(x, 1.0, 10, seed=1)])
def test_same_seed_gives_the_same_labels(latent, find, unchanged, global_state_untouched):
    with unchanged(latent), global_state_untouched(), warnings.catch_warnings():
        warnings.simplefilter("error")
        first = find(latent)
        np.random.default_rng().random()
        assert np.array_equal(find(latent), first)


def test_centroids_are_the_means_of_the_clusters(latent, groups):
    expected = [[latent[groups == group, j].mean() for j in range(5)] for group in range(3)]
    result = centroids(latent, groups)
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert result.dtype == np.float32


def test_fewer_distinct_cells_than_clusters_give_no_nan():
    """Five clusters are requested of cells with three distinct values."""
    latent = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = k_means(latent, 5, seed=0)
    result = centroids(latent, labels)
    assert np.isfinite(result).all()
    assert len(np.unique(result, axis=0)) == 3
