"""Clustering of unlabelled cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scdeconv import clustering
from scdeconv._data import keys
from scdeconv._data.annotated import make_adata
from scdeconv._data.checks import checked, choice, examples
from scdeconv._data.matrix import get_matrix
from scdeconv._process import scanpy_alone
from scdeconv._version import __version__

from ._train import keyword_arguments, split_arguments

if TYPE_CHECKING:
    from anndata import AnnData

    from scdeconv.clustering import ClusteringModel

CLASSES = {"desc": "DESC", "scdeepcluster": "ScDeepCluster", "scdcc": "ScDCC"}


@checked(method=choice(CLASSES))
def cluster(
    cells: AnnData,
    method: str = "desc",
    *,
    key_added: str | None = None,
    layer: str | None = None,
    batch_key: str | None = None,
    n_top_genes: int = 2000,
    **kwargs: Any,
) -> ClusteringModel:
    """Cluster unlabelled cells, and compute an embedding.

    The results can be used by scanpy, ``sc.pp.neighbors(cells, use_rep="X_desc")``, and by :func:`scdeconv.pp.pair`,
    ``pair(cells, bulk, cell_type_key="desc")``. :func:`scdeconv.tl.name_clusters` assigns cell-type names to the
    clusters.

    Parameters
    ----------
    cells
        Cells × genes, counts. If ``var["highly_variable"]`` exists, these genes are used.
    method
        ``"desc"`` (:class:`~scdeconv.clustering.DESC`): determines the number of clusters. ``"scdeepcluster"``
        (:class:`~scdeconv.clustering.ScDeepCluster`): preferably with ``n_clusters=``. ``"scdcc"``
        (:class:`~scdeconv.clustering.ScDCC`): as scDeepCluster, with ``constraints=`` from
        :func:`scdeconv.pp.constraints`.
    key_added
        Key of the results; None: the name of the method.
    layer
        Layer to read instead of ``X``.
    batch_key
        Column of ``obs`` with the batch of each cell, for ``method="desc", scale_by_batch=True``.
    n_top_genes
        Maximum number of genes without ``var["highly_variable"]``: highly variable genes by the default of scanpy on
        log-normalised expression.
    **kwargs
        Arguments of the method's class and of its ``train``, such as ``n_clusters``, ``resolution``, ``seed``.

    Returns
    -------
    The trained model. It can assign new cells (``get_clusters``), and it can be saved.

    Writes
    ------
    ``cells.obs[key]``
        The cluster of each cell, categorical: ``"0"``, ``"1"``, ... from the largest to the smallest.
    ``cells.obsm[f"X_{key}"]``
        The latent representation.
    ``cells.obsm[f"{key}_probabilities"]``
        Soft assignment of each cell to each cluster; DataFrame, rows sum to 1. The values are not calibrated
        probabilities.
    ``cells.uns["scdeconv"][key]``
        Method, version, parameters, number of genes and seed.

    With several resolutions of DESC, the results are written for each resolution under the keys ``desc_0.6``,
    ``desc_0.8``.

    Raises
    ------
    ValueError
        If ``key_added`` is empty or contains a ``/``, if the cells are invalid (all problems are reported), or if there
        are more clusters than cells or only one cluster.
    TypeError
        If an argument is unknown to the method.

    Examples
    --------
    >>> import scdeconv
    >>> cells, _ = scdeconv.datasets.paired_cohort(n_donors=3, n_genes=300, cells_per_donor=(100, 150))
    >>> model = scdeconv.tl.cluster(cells, method="desc", resolution=0.5)  # doctest: +ELLIPSIS
    desc: ...
    >>> cells.obs["desc"].cat.categories[0]
    '0'
    """
    cls: Any = getattr(clustering, CLASSES[method])
    architecture, training = split_arguments(cls, kwargs, similar=keyword_arguments(cluster))
    cls.check_cells(cells, layer=layer, batch_key=batch_key)
    genes = _genes_to_read(cells, layer, n_top_genes)
    # registration writes to the object: register a copy
    matrix = get_matrix(cells, layer, "cells")
    obs = cells.obs[[] if batch_key not in cells.obs else [batch_key]].copy()
    work = make_adata(matrix if genes.all() else matrix[:, genes], obs=obs, var=cells.var.loc[genes, []].copy())
    empty = work.obs_names[np.asarray(work.X.sum(axis=1)).ravel() == 0]
    if len(empty):
        msg = (
            f"Expected counts in every cell in the {work.n_vars} used genes, found none in {len(empty)} cells: "
            f"{examples(empty)}. Remove these cells, or use more genes: n_top_genes=, var['highly_variable']."
        )
        raise ValueError(msg)
    cls.setup_anndata(work, batch_key=batch_key)
    model = cls(work, **architecture)
    model.train(**training)
    # scvi-tools keeps a reference to every registered object: release the memory
    model.deregister_manager(model.adata)
    key = key_added or method
    resolutions = getattr(model, "resolutions", [])
    results = (
        {f"{key}_{value:g}": {"resolution": value} for value in resolutions} if len(resolutions) > 1 else {key: {}}
    )
    for name, chosen in results.items():
        cells.obs[name] = model.get_clusters(**chosen)
        cells.obsm[f"X_{name}"] = model.get_latent_representation(**chosen)
        cells.obsm[f"{name}_probabilities"] = model.get_soft_assignments(**chosen)
        cells.uns.setdefault(keys.UNS, {})[name] = {
            "method": method,
            "version": __version__,
            "parameters": {**model.parameters_, **chosen},
            "n_genes": len(model.genes_),
            "seed": model.seed_,
        }
    print(f"{method}: {model.summary_}")
    return model


def _genes_to_read(cells: AnnData, layer: str | None, n_top_genes: int) -> np.ndarray:
    """Return a mask of the highly variable genes, from ``var`` or computed by scanpy."""
    if "highly_variable" in cells.var:
        return cells.var["highly_variable"].to_numpy(dtype=bool)
    if cells.n_vars <= n_top_genes:
        return np.ones(cells.n_vars, dtype=bool)
    import scanpy as sc

    work = make_adata(get_matrix(cells, layer, "cells").astype(np.float32))
    with scanpy_alone():
        sc.pp.normalize_total(work)
        sc.pp.log1p(work)
        sc.pp.highly_variable_genes(work, n_top_genes=n_top_genes)
    return work.var["highly_variable"].to_numpy(dtype=bool)
