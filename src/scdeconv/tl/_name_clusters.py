"""Give clusters of cells the names of cell types, by markers or by a labelled reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scdeconv._data import keys
from scdeconv._data.genes import strip_versions
from scdeconv._data.matrix import Matrix, get_matrix, layer_names, to_dense
from scdeconv._data.reference import indicator
from scdeconv._data.validation import (
    Problems,
    check_cell_type_names,
    check_expression,
    check_key,
    check_names,
    examples,
)
from scdeconv._stats.markers import choose, score_by_reference
from scdeconv._stats.rounding import deviations_from_mean
from scdeconv._version import __version__
from scdeconv.pp import read_markers

if TYPE_CHECKING:
    from collections.abc import Sequence

UNKNOWN = "unknown"
# the fewest genes in which a reference can be compared
FEWEST_GENES = 20
# what the best score of a cluster must be at least, and by how much it must lead: mean z-scores, and correlations
MARKERS_LEAST, MARKERS_LEAD = 0.3, 0.3
REFERENCE_LEAST, REFERENCE_LEAD = 0.3, 0.1


def score_by_markers(matrix: Matrix, clusters: np.ndarray, markers: Sequence[np.ndarray]) -> np.ndarray:
    """Return, clusters × types, the mean z-score over clusters of the log-normalised expression of a type's markers.

    The z-score of a gene is multiplied by the share of its variance between clusters that is not the sampling noise of
    their means: the markers of a type that is not there differ between clusters, too, but by noise only.

    Parameters
    ----------
    matrix
        Counts, cells × genes.
    clusters
        Number of the cluster of each cell, from 0, none without cells.
    markers
        Columns of the markers of each type.
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
    """Give each cluster the name of a cell type, by markers or by a labelled reference.

    Clusters with the same name become one cell type. A cluster without a convincing name is called ``"unknown"``: such as
    a mixture of two types, or a type that is not on offer. But where a close relative of it is, as CD8 for CD4 T cells,
    the cluster gets the name of the relative, with a lower score than others: the record holds them.

    Parameters
    ----------
    cells
        Cells × genes, counts, with ``obs[key]``.
    key
        Column of ``obs`` with the clusters, from :func:`scdeconv.tl.cluster` or any other method.
    markers
        Genes of each cell type. The score of a type is the mean over its markers of the cluster's mean log-normalised
        expression, as z-score over the clusters, in which sampling noise is discounted. A name needs a score of 0.3 and a
        lead of 0.3 before the second best: several markers for each type make both reliable, about ten where there are
        only two or three clusters.
    reference
        Instead of markers: cells, or profiles with one row for each type, on a linear scale, with ``obs[reference_key]``.
        The score is the correlation of the cluster's log expression, less the mean of all clusters, with the type's, less
        the mean of all types, over the genes that differ most between the types, 50 for each. A name needs a correlation
        of 0.3 and a lead of 0.1.
    reference_key
        Column of ``reference.obs`` with the cell types.
    key_added
        Key to write to; what it held before is replaced.
    layer
        Layer to read instead of ``X``, in whichever of cells and reference has it.

    Writes
    ------
    ``cells.obs[key_added]``
        The cell type of each cell, categorical: the types in the order of the markers or of the reference, those without
        clusters left out, ``"unknown"`` last.
    ``cells.obsm[f"{key_added}_probabilities"]``
        Where there is ``obsm[f"{key}_probabilities"]``: the probabilities of the clusters of a name added up, DataFrame
        cells × cell types.
    ``cells.uns["scdeconv"][key_added]``
        What was done: ``clusters`` and their ``names``, and ``scores``, clusters × ``cell_types``.

    Raises
    ------
    ValueError
        Where ``key_added`` is empty or has a ``/``.
        One report of every problem found in the inputs, before anything is written.

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
    check_key(key_added)
    problems = Problems("The clusters cannot be named")
    if (markers is None) == (reference is None):
        given = "neither" if markers is None else "both"
        problems.add(f"Expected either markers or a reference, found {given}. Pass one of them.")
    if key == key_added:
        problems.add(f"Expected another key for the names than {key!r} of the clusters. Change key_added=.")
    clusters = _read_clusters(problems, cells, key)
    probabilities = _read_probabilities(problems, cells, key, clusters)
    if layer is not None and not any(layer in adata.layers for adata in (cells, reference) if adata is not None):
        problems.add(f"Expected layer {layer!r}, found layers {layer_names(cells)} in cells. Name another, or none.")
    if markers is not None:
        how, least, lead = "markers", MARKERS_LEAST, MARKERS_LEAD
        found: Any = read_markers(problems, cells, "cells", markers, layer)
        cell_types = [str(name) for name in markers] if isinstance(markers, Mapping) else []
        check_cell_type_names(problems, cell_types, "markers")
        problems.raise_if_any()
        scores = score_by_markers(found[0], clusters.codes, found[1])
    else:
        how, least, lead = "reference", REFERENCE_LEAST, REFERENCE_LEAD
        found = _read_profiles(problems, cells, clusters, reference, reference_key, layer)
        problems.raise_if_any()
        cell_types, *sums = found
        scores = score_by_reference(*sums)

    chosen = choose(scores, least, lead)
    names = np.array([*cell_types, UNKNOWN])[chosen]
    # "unknown" may be a type of the reference, too
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
    """Return the clusters that have cells, as text; none where there is a problem."""
    if key not in cells.obs:
        problems.add(
            f"Expected clusters in cells.obs[{key!r}], found columns {list(cells.obs)}. Call tl.cluster first."
        )
        return pd.Categorical([])
    labels = cells.obs[key]
    if labels.isna().any():
        problems.add(
            f"Expected a cluster for every cell in cells.obs[{key!r}], found {int(labels.isna().sum())} cells without: "
            f"{examples(labels.index[labels.isna()])}. Remove those cells."
        )
        return pd.Categorical([])
    clusters = pd.Categorical(labels).remove_unused_categories().rename_categories(str)
    if len(clusters.categories) < 2:
        problems.add(f"Expected at least two clusters in cells.obs[{key!r}], found {list(clusters.categories)}.")
    return clusters


def _read_probabilities(
    problems: Problems, cells: AnnData, key: str, clusters: pd.Categorical[Any]
) -> pd.DataFrame | None:
    """Return how much each cell belongs to each cluster, where that is known."""
    name = f"{key}_probabilities"
    if name not in cells.obsm or not len(clusters):
        return None
    table = cells.obsm[name]
    columns = [str(column) for column in table] if isinstance(table, pd.DataFrame) else None
    if columns is None or sorted(columns) != sorted(clusters.categories):
        found = f"the columns {examples(columns)}" if columns is not None else type(table).__name__
        problems.add(
            f"Expected the clusters {examples(clusters.categories)} as the columns of a DataFrame in cells.obsm[{name!r}], "
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
    """Return the cell types, and the summed expression of the clusters and of the types in the genes of both."""
    if reference is None:
        return None
    if not isinstance(reference, AnnData):
        problems.add(f"Expected reference as AnnData, found {type(reference).__name__}. Wrap it: AnnData(reference).")
        return None
    if reference_key not in reference.obs:
        problems.add(
            f"Expected the cell types in reference.obs[{reference_key!r}], found columns {list(reference.obs)}. "
            "Name the column with reference_key=."
        )
        return None
    labels = reference.obs[reference_key]
    types = pd.Categorical(labels).remove_unused_categories().rename_categories(str)
    name = f"reference.obs[{reference_key!r}]"
    if labels.isna().any():
        problems.add(f"Expected a type in every row of {name}, found {int(labels.isna().sum())} without. Remove them.")
    if len(types.categories) < 2:
        problems.add(f"Expected at least two cell types in {name}, found {list(types.categories)}. Add others.")
    check_cell_type_names(problems, types.categories, name)
    tables = []
    for adata, title in ((cells, "cells"), (reference, "reference")):
        matrix = get_matrix(adata, layer if layer in adata.layers else None, title)
        genes = strip_versions(adata.var_names)
        check_names(problems, pd.Index([]), genes, title)
        logged = "log1p" in adata.uns and layer not in adata.layers
        # the mean of a type may be small in every gene
        small = title == "reference" and labels.is_unique
        check_expression(problems, adata, matrix, title, logged=logged, may_be_small=small)
        tables.append((matrix, genes))
    shared = tables[0][1].intersection(tables[1][1])
    if len(shared) < FEWEST_GENES:
        problems.add(
            f"Expected at least {FEWEST_GENES} shared genes, found {len(shared)}: cells have {examples(tables[0][1])}; "
            f"reference has {examples(tables[1][1])}. Use the same gene names in both."
        )
    if problems.messages:
        return None
    sums = [
        to_dense(
            indicator(pd.Series(labels), list(labels.categories)).astype(float) @ matrix[:, genes.get_indexer(shared)]
        )
        for labels, (matrix, genes) in zip((clusters, types), tables, strict=True)
    ]
    return list(types.categories), sums[0], sums[1]
