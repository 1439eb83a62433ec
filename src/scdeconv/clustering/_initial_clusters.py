"""Initial clusters of self-training: k-means for a given number of clusters, otherwise Leiden."""

from __future__ import annotations

import numpy as np

from scdeconv._data.annotated import make_adata
from scdeconv._data.warnings import warnings_ignored
from scdeconv._process import one_blas_thread, one_openmp_thread, scanpy_alone


def k_means(latent: np.ndarray, start: int | np.ndarray, seed: int) -> np.ndarray:
    """Return the k-means cluster of each cell; ``start``: initial centroids or number of clusters (best of 20 runs)."""
    from sklearn.cluster import KMeans

    if isinstance(start, np.ndarray):
        model = KMeans(len(start), init=start, n_init=1, random_state=seed)
    else:
        model = KMeans(start, n_init=20, random_state=seed)
    # scikit-learn adds up the cells of a cluster in the order in which its threads finish
    with one_blas_thread(), one_openmp_thread():
        return np.asarray(model.fit_predict(latent))


def leiden(latent: np.ndarray, resolution: float, n_neighbors: int, seed: int) -> np.ndarray:
    """Return the cluster of each cell by Leiden on the neighbour graph of scanpy."""
    import scanpy as sc

    cells = make_adata(latent.astype(np.float32))
    with scanpy_alone(), warnings_ignored():
        sc.pp.neighbors(cells, n_neighbors=n_neighbors, use_rep="X", random_state=seed)
        sc.tl.leiden(cells, resolution=resolution, flavor="igraph", n_iterations=-1, random_state=seed)
    labels = cells.obs["leiden"].cat.codes.to_numpy().astype(int)
    if labels.max() == 0:
        msg = f"Expected at least two clusters, found one at resolution={resolution:g}. Raise resolution."
        raise ValueError(msg)
    return labels


def even_spread(latent: np.ndarray) -> np.ndarray:
    """Return the principal components of the cells, each divided by the square root of its standard deviation.

    K-means splits large clusters along the directions of largest variance, and merges others. This scaling reduces the
    weight of these directions, as Pareto scaling does for genes.
    """
    left, singular, _ = np.linalg.svd(latent - latent.mean(axis=0), full_matrices=False)
    return np.asarray(left * np.sqrt(singular))


def centroids(latent: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the mean of each cluster, clusters × dimensions."""
    return np.stack([latent[labels == cluster].mean(axis=0) for cluster in range(labels.max() + 1)])
