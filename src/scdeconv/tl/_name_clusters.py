"""Assignment of cell-type names to clusters by marker genes or by a labelled reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.checks import (
    Problems,
    check_cell_type_names,
    check_expression,
    check_labels,
    check_names,
    check_shared_genes,
    checked,
    examples,
)
from scdeconv._data.gene_names import Genes, strip_versions
from scdeconv._data.labels import as_categorical, is_missing
from scdeconv._data.matrix import Matrix, get_matrix, layer_names, to_dense
from scdeconv._data.reference import indicator
from scdeconv._stats.markers import choose, score_by_reference
from scdeconv._stats.rounding import deviations_from_mean
from scdeconv._version import __version__
from scdeconv.pp import read_markers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

UNKNOWN = "unknown"
# minimum score of the best name, and minimum difference to the second best (mean z-scores); set by hand
MIN_MARKER_Z, MIN_MARKER_Z_LEAD = 0.3, 0.3
# minimum score of the best name, and minimum difference to the second best (correlations); set by hand
MIN_CORRELATION, MIN_CORRELATION_LEAD = 0.3, 0.1


def score_by_markers(matrix: Matrix, clusters: np.ndarray, markers: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean z-score over the marker genes of each type, clusters × types.

    The z-score of the log-normalised expression of a gene is computed over clusters. It is multiplied by the share of
    the variance between clusters that is not sampling noise. The marker genes of an absent type differ between clusters
    by sampling noise only.

    Parameters
    ----------
    matrix
        Counts, cells × genes.
    clusters
        Cluster code of each cell, from 0; no empty clusters.
    markers
        Columns of the marker genes of each type.
    """
    totals = np.asarray(matrix.sum(axis=1), dtype=float).reshape(-1, 1)
    sizes = np.bincount(clusters)
    scores = np.empty((len(sizes), len(markers)))
    for k, columns in enumerate(markers):
        logs = np.log1p(to_dense(matrix[:, columns]) / totals * np.median(totals))
        means = pd.DataFrame(logs).groupby(clusters).mean().to_numpy()
        within = ((logs - means[clusters]) ** 2).sum(axis=0) / max(len(logs) - len(sizes), 1)
        between = deviations_from_mean(means)
        noise, variance = within * (1 / sizes).mean(), means.var(axis=0, ddof=1)
        positive = np.where(between.any(axis=0), variance, 1)
        signal = np.clip(1 - noise / positive, 0, 1)
        scores[:, k] = (between / np.sqrt(positive) * signal).mean(axis=1)
    return scores


@checked()
def name_clusters(
    cells: AnnData,
    key: str = "desc",
    *,
    markers: Mapping[str, Sequence[str]] | None = None,
    reference: AnnData | None = None,
    reference_key: str = "cell_type",
    key_added: str = "cell_type",
    layer: str | None = None,
) -> None:
    """Assign a cell-type name to each cluster, by marker genes or by a labelled reference.

    Clusters with the same name are merged into one cell type. Clusters with a low score, such as mixtures of two types
    or types without markers or reference, are named ``"unknown"``. A missing type that is similar to a given type, such
    as CD4 and CD8 T cells, may get the name of the similar type with a lower score. Scores are written to ``uns``.

    Parameters
    ----------
    cells
        Cells × genes, counts, with ``obs[key]``.
    key
        Column of ``obs`` with the clusters, from :func:`scdeconv.tl.cluster` or any other method.
    markers
        Marker genes of each cell type. The score of a type is the mean z-score of its marker genes: mean log-normalised
        expression of the cluster, standardised over clusters and corrected for sampling noise. A name needs a score of
        at least 0.3, and at least 0.3 more than the second best. Use several marker genes per type, about ten with only
        two or three clusters.
    reference
        Alternative to ``markers``: cells, or profiles with one row per type, on a linear scale, with
        ``obs[reference_key]``. The score is the correlation between the log expression of cluster and type, each
        centred over clusters or types, over the 50 most different genes of each type. A name needs a correlation of at
        least 0.3, and at least 0.1 more than the second best.
    reference_key
        Column of ``reference.obs`` with the cell types.
    key_added
        Key of the results. Existing values are replaced.
    layer
        Layer to read instead of ``X``, in ``cells``, ``reference`` or both.

    Writes
    ------
    ``cells.obs[key_added]``
        Cell type of each cell, categorical, in the order of the markers or the reference; ``"unknown"`` is last. Types
        without clusters are omitted.
    ``cells.obsm[f"{key_added}_probabilities"]``
        If ``obsm[f"{key}_probabilities"]`` exists: sum of the probabilities over the clusters of each type, DataFrame
        cells × cell types.
    ``cells.uns["scdeconv"][key_added]``
        ``clusters``, their ``names``, and ``scores`` (clusters × ``cell_types``).

    Raises
    ------
    ValueError
        If ``key_added`` is empty or contains a ``/``, or if the input is invalid (all problems are reported). Nothing
        is written.

    Examples
    --------
    >>> import scdeconv
    >>> cells, _ = scdeconv.datasets.paired_cohort(n_donors=3, n_genes=300, cells_per_donor=(100, 150))
    >>> cells.obs["cluster"] = cells.obs["cell_type"].cat.codes.astype(str)
    >>> scdeconv.tl.name_clusters(cells, "cluster", reference=cells.copy(), key_added="name")  # doctest: +ELLIPSIS
    named ...
    >>> bool((cells.obs["name"] == cells.obs["cell_type"]).all())
    True
    """
    problems = Problems("The clusters cannot be named")
    if (markers is None) == (reference is None):
        given = "neither" if markers is None else "both"
        problems.add(f"Expected either markers or reference, found {given}. Pass one of them.")
    if key == key_added:
        problems.add(f"Expected key_added to differ from key, found {key!r} for both. Change key_added.")
    clusters = _read_clusters(problems, cells, key)
    probabilities = _read_probabilities(problems, cells, key, clusters)
    if layer is not None and not any(layer in adata.layers for adata in (cells, reference) if adata is not None):
        problems.add(f"Expected layer {layer!r}, found layers {layer_names(cells)} in cells. Correct layer.")
    if markers is not None:
        how, least, lead = "markers", MIN_MARKER_Z, MIN_MARKER_Z_LEAD
        found: Any = read_markers(problems, cells, "cells", markers, layer)
        cell_types = [str(name).strip() for name in markers] if isinstance(markers, Mapping) else []
        problems.raise_if_any()
        scores = score_by_markers(found[0], clusters.codes, found[1])
    else:
        how, least, lead = "reference", MIN_CORRELATION, MIN_CORRELATION_LEAD
        found = _read_profiles(problems, cells, clusters, reference, reference_key, layer)
        problems.raise_if_any()
        cell_types, *sums = found
        scores = score_by_reference(*sums)

    chosen = choose(scores, least, lead)
    names = np.array([*cell_types, UNKNOWN])[chosen]
    # "unknown" may also be a type of the reference
    order = [name for name in dict.fromkeys([*cell_types, UNKNOWN]) if name in names]
    cells.obs[key_added] = pd.Categorical(names[clusters.codes], categories=order)
    cells.obsm.pop(f"{key_added}_probabilities", None)
    if probabilities is not None:
        summed = probabilities.T.groupby(names, sort=False).sum().T[order]
        cells.obsm[f"{key_added}_probabilities"] = summed.rename_axis(columns=None)
    cells.uns.setdefault(keys.UNS, {})[key_added] = {
        "method": how,
        "version": __version__,
        "key": key,
        "clusters": np.array(clusters.categories, dtype=str),
        "names": names,
        "cell_types": np.array(cell_types),
        "scores": scores,
    }
    unnamed = clusters.categories[chosen < 0]
    share = np.isin(clusters.codes, np.flatnonzero(chosen < 0)).mean()
    rest = f"; unknown: {examples(unnamed)} ({share:.1%} of the cells)" if len(unnamed) else ""
    n_found = len(set(chosen) - {-1})
    print(f"named {(chosen >= 0).sum()} of {len(chosen)} clusters as {n_found} of {len(cell_types)} cell types{rest}")


def _read_clusters(problems: Problems, cells: AnnData, key: str) -> pd.Categorical[Any]:
    """Return the clusters with cells, as text; empty if there is a problem."""
    if key not in cells.obs:
        problems.add(
            f"Expected clusters in cells.obs[{key!r}], found columns {list(cells.obs)}. Call tl.cluster first."
        )
        return pd.Categorical([])
    before = len(problems.messages)
    check_labels(problems, cells.obs[key], f"cells.obs[{key!r}]", "cluster")
    if len(problems.messages) > before:
        return pd.Categorical([])
    clusters = pd.Categorical(cells.obs[key]).remove_unused_categories().rename_categories(str)
    if len(clusters.categories) < 2:
        problems.add(f"Expected at least two clusters in cells.obs[{key!r}], found {list(clusters.categories)}.")
    return clusters


def _read_probabilities(
    problems: Problems, cells: AnnData, key: str, clusters: pd.Categorical[Any]
) -> pd.DataFrame | None:
    """Return the cluster probabilities of each cell, or None if there are none."""
    name = f"{key}_probabilities"
    if name not in cells.obsm or not len(clusters):
        return None
    table = cells.obsm[name]
    columns = [str(column) for column in table] if isinstance(table, pd.DataFrame) else None
    if columns is None or sorted(columns) != sorted(clusters.categories):
        found = f"the columns {examples(columns)}" if columns is not None else type(table).__name__
        problems.add(
            f"Expected a DataFrame with the clusters {examples(clusters.categories)} as columns in "
            f"cells.obsm[{name!r}], "
            f"found {found}. Drop clusters without cells and divide each row by its sum, or delete the key."
        )
        return None
    return table.set_axis(columns, axis=1)[list(clusters.categories)]


def _read_profiles(
    problems: Problems,
    cells: AnnData,
    clusters: pd.Categorical[Any],
    reference: AnnData | None,
    reference_key: str,
    layer: str | None,
) -> tuple[list[str], np.ndarray, np.ndarray] | None:
    """Return the cell types, and the sums of expression of clusters and of types over the shared genes."""
    if reference is None:
        return None
    if reference_key not in reference.obs:
        problems.add(
            f"Expected the cell types in reference.obs[{reference_key!r}], found columns {list(reference.obs)}. "
            "Pass the column as reference_key."
        )
        return None
    name = f"reference.obs[{reference_key!r}]"
    labels = check_labels(problems, reference.obs[reference_key], name, "cell type")
    types = as_categorical(reference.obs[reference_key])
    if len(types.categories) < 2:
        problems.add(f"Expected at least two cell types in {name}, found {list(types.categories)}. Add others.")
    check_cell_type_names(problems, types.categories[~is_missing(types.categories)], name, spellings=False)
    tables = []
    for adata, title in ((cells, "cells"), (reference, "reference")):
        matrix = get_matrix(adata, layer if layer in adata.layers else None, title)
        genes = strip_versions(adata.var_names)
        check_names(problems, pd.Index([]), genes, title)
        logged = "log1p" in adata.uns and layer not in adata.layers
        # profiles (means) may have small values in all genes
        small = title == "reference" and labels.is_unique
        check_expression(problems, adata, matrix, title, logged=logged, may_be_small=small)
        tables.append((matrix, genes))
    shared = tables[0][1].intersection(tables[1][1])
    ours, theirs = (
        Genes(title, genes, adata)
        for title, (_, genes), adata in zip(("cells", "reference"), tables, (cells, reference), strict=True)
    )
    check_shared_genes(problems, ours, [theirs])
    if problems.messages:
        return None
    sums = [
        to_dense(
            indicator(pd.Series(labels), list(labels.categories)).astype(float) @ matrix[:, genes.get_indexer(shared)]
        )
        for labels, (matrix, genes) in zip((clusters, types), tables, strict=True)
    ]
    return list(types.categories), sums[0], sums[1]
