"""Constraints between cells from labels, markers, surface protein or given pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data.checks import ANY_CELLS, Problems, check_names, checked, examples
from scdeconv._data.matrix import layer_names
from scdeconv._data.warnings import warn
from scdeconv._stats.links import find_anchors, link_by_label, without_contradictions

from .constraints import Constraints
from .inputs import read_cells, read_labels, read_markers, read_pairs, read_protein
from .sources import link_by_distance, marker_scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData


@checked(cells=ANY_CELLS)
def constraints(
    cells: AnnData | MuData,
    *,
    labels_key: str | None = None,
    markers: Mapping[str, Sequence[str]] | None = None,
    protein: str | None = None,
    pairs: pd.DataFrame | Mapping[str, Sequence[tuple[str, str]]] | None = None,
    n_pairs: int = 2000,
    layer: str | None = None,
    rna: str = "rna",
    seed: int = 0,
) -> Constraints:
    """Make must-link and cannot-link constraints between cells for semi-supervised clustering.

    A must-link is a pair of cells of the same cluster. A cannot-link is a pair of cells of different clusters. There
    are four sources, which can be combined. In order of decreasing priority, these are ``pairs``, labels, markers and
    protein (cannot-links before must-links, and must-links in order of distance). A constraint that contradicts
    constraints of higher priority, directly or through chains of must-links, is removed with a warning. The returned
    constraints are consistent.

    Parameters
    ----------
    cells
        Cells × genes, or MuData with RNA and protein modalities (CITE-seq). Not changed.
    labels_key
        Column of ``obs`` with labels of some cells and NaN for all other cells. Random pairs of labelled cells are
        must-links if their labels are equal, else cannot-links.
    markers
        Marker genes of each cell type. The score of a cell for a type is the mean z-score of the log-normalised
        expression of its markers. Scores are scaled so that the 5th percentile is 0 and the 99.5th percentile is 1.
        Cells with a score above 2/3 for one type and below 1/3 for all other types are anchors. Anchors are used as
        labelled cells.
    protein
        Modality of ``cells`` with surface-protein counts, cells × proteins. Cells are matched by name. Random pairs are
        must-links if their distance (Euclidean, of centred log-ratios) is below the 0.5th percentile, and cannot-links
        if it is above the 95th percentile.
    pairs
        Pairs of cell names: ``{"must_link": [(cell, cell), ...], "cannot_link": [...]}``, or a DataFrame with the
        columns ``first``, ``second`` and ``link`` (``"must_link"`` or ``"cannot_link"``).
    n_pairs
        Maximum number of pairs from labels and from markers, and approximate number of pairs from protein.
    layer
        Layer with the counts of cells or proteins. Default: ``X``. Labels and pairs do not need counts.
    rna
        Modality of a MuData with the cells to constrain.
    seed
        Seed of the random number generator. Each source has its own random stream.

    Returns
    -------
    Constraints of the cells.

    Raises
    ------
    ValueError
        If the inputs have problems (all are listed), if ``pairs`` contradict each other, or if markers or protein do
        not separate any cells.

    Warns
    -----
    UserWarning
        If markers are not among the genes, if no cell is an anchor of a type, or if constraints contradict constraints
        of higher priority.

    Notes
    -----
    Constraints and sources follow scDCC (Tian et al. 2021), which does not check for contradictions. The marker rule of
    scDCC is for four proteins of T cells. The rule for general markers is from this package. It needs markers of all
    types in the data: cells of a type without markers can become anchors of a type with shared markers.

    Examples
    --------
    >>> import scdeconv
    >>> cells, _ = scdeconv.datasets.paired_cohort(n_donors=4, n_genes=200, cells_per_donor=(50, 60))
    >>> cells.obs["known"] = cells.obs["cell_type"].where(cells.obs["donor"] == cells.obs["donor"].iloc[0])
    >>> scdeconv.pp.constraints(cells, labels_key="known", n_pairs=300)  # doctest: +ELLIPSIS
    constraints: ... cannot-link among ... cells; consistent
    Constraints: ...
    """
    problems = Problems("Constraints cannot be made")
    if labels_key is None and markers is None and protein is None and pairs is None:
        problems.add("Expected labels_key, markers, protein or pairs, found none of them. Pass at least one.")
    adata, name = read_cells(problems, cells, rna)
    problems.raise_if_any()
    check_names(problems, adata.obs_names, pd.Index([]), name)
    problems.raise_if_any()

    given = None if pairs is None else read_pairs(problems, pairs, adata.obs_names, name)
    codes = None if labels_key is None else read_labels(problems, adata, name, labels_key)
    marked = None if markers is None else read_markers(problems, adata, name, markers, layer)
    levels = None if protein is None else read_protein(problems, cells, protein, adata.obs_names, layer)
    read = [adata] * (markers is not None) + ([cells[protein]] if levels is not None else [])
    if layer is not None and read and not any(layer in table.layers for table in read):
        problems.add(
            f"Expected layer {layer!r} in {name}, found layers {layer_names(adata)}. Pass one of them as layer=."
        )
    problems.raise_if_any()

    of_labels, of_markers, of_protein = np.random.default_rng(seed).spawn(3)
    sources, notes = {}, []
    if given is not None:
        sources["pairs"] = given
    if codes is not None:
        sources["labels"] = link_by_label(codes, n_pairs, of_labels)
    if markers is not None and marked is not None:
        anchors = find_anchors(marker_scores(*marked))
        notes.append(_describe_anchors(anchors, list(markers)))
        sources["markers"] = link_by_label(anchors, n_pairs, of_markers)
    if levels is not None:
        matrix, positions = levels
        linked, must = link_by_distance(matrix, n_pairs, of_protein)
        if not len(linked):
            msg = (
                f"Expected protein levels that differ between cells in cells[{protein!r}], found the same distance for "
                "all pairs of cells. Omit protein=."
            )
            raise ValueError(msg)
        sources["protein"] = positions[linked], must
    for source, (linked, _) in sources.items():
        if source != "pairs" and len(linked) < n_pairs:
            notes.append(f"only {len(linked):,} pairs available from {source}")
    result = _join(sources, adata.obs_names)
    print("; ".join([f"constraints: {result.summary}", *notes]))
    return result


def _describe_anchors(anchors: np.ndarray, cell_types: list[str]) -> str:
    """Return the number of anchors as text; raise ``ValueError`` if fewer than two types have anchors."""
    numbers = pd.Series(np.bincount(anchors[anchors >= 0], minlength=len(cell_types)), index=cell_types)
    found, without = numbers[numbers > 0], numbers.index[numbers == 0]
    if len(found) < 2:
        msg = (
            f"Expected anchor cells (with markers of only one type) of at least two types, found anchors of "
            f"{examples(found.index) if len(found) else 'none'}. Pass more markers that the types do not share."
        )
        raise ValueError(msg)
    if len(without):
        warn(
            f"Expected anchor cells of every type in markers, found none of {examples(without)}. "
            "Markers give no constraints of these types."
        )
    return f"{numbers.sum():,} anchors of {len(found)} types"


def _join(sources: Mapping[str, tuple[np.ndarray, np.ndarray]], cells: pd.Index) -> Constraints:
    """Return the constraints of all sources without duplicates and contradictions; earlier sources have priority."""
    linked = np.sort(np.concatenate([pairs for pairs, _ in sources.values()]), axis=1)
    must = np.concatenate([must for _, must in sources.values()])
    source = np.repeat(list(sources), [len(must) for _, must in sources.values()])
    first = np.sort(np.unique(np.column_stack([linked, must]), axis=0, return_index=True)[1])
    linked, must, source = linked[first], must[first], source[first]
    kept = without_contradictions(linked, must)
    if not kept.all():
        dropped = [
            f"{n:,} of {(source == name).sum():,} from {name}"
            for name in sources
            if (n := (~kept & (source == name)).sum())
        ]
        warn(
            f"Expected consistent constraints, found contradictions. Constraints of lower priority are removed: "
            f"{', '.join(dropped)}."
        )
    return Constraints(cells, linked[kept & must], linked[kept & ~must])
