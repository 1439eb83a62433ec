"""Constraints between cells from what is known about some of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data.matrix import layer_names
from scdeconv._data.validation import Problems, check_names, examples
from scdeconv._data.warnings import warn
from scdeconv._stats.links import find_anchors, link_by_label, without_contradictions

from ._constraint_inputs import read_cells, read_labels, read_markers, read_pairs, read_protein
from ._constraint_sources import link_by_distance, marker_scores
from ._constraints import Constraints

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData


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
    """Make constraints, pairs of cells that belong to one cluster or to two, from what is known of the cells.

    Any of four sources will do, and several are joined. Where they contradict each other, also through chains of
    must-links, ``pairs`` are trusted before labels, labels before markers, and markers before protein (where cannot-links
    go first, then must-links from the closest cells on). What contradicts something more trusted is left out, with a
    warning, so that the constraints returned can all be true.

    Parameters
    ----------
    cells
        Cells × genes; or MuData with them and protein levels, as CITE-seq measures. Not changed.
    labels_key
        Column of ``obs`` with labels of some cells, NaN for the others. Random pairs of labelled cells become must-links
        where they have the same label, and cannot-links where not.
    markers
        Genes that mark each cell type. A cell's score for a type is the mean z-score of the log normalised expression of
        its markers; the scores of each type are set on a scale where 0 is their 5th and 1 their 99.5th percentile. Cells
        with more than 2/3 for one type and less than 1/3 for each of the others are anchors, and serve as labelled cells.
    protein
        Modality of ``cells`` with counts of surface protein, cells × proteins; cells are matched by name. Random pairs
        become must-links where their distance (Euclidean, of centred log-ratios) is below the 0.5th percentile, and
        cannot-links where it is above the 95th.
    pairs
        Names of cells: ``{"must_link": [(cell, cell), ...], "cannot_link": [...]}``, or a DataFrame with the columns
        ``first``, ``second`` and ``link``, which is ``"must_link"`` or ``"cannot_link"``.
    n_pairs
        Number of pairs from labels, from markers and (about) from protein, each. Fewer where there are not as many.
    layer
        Layer with the counts, of cells or proteins, whichever has it; by default ``X``. Labels and pairs need no counts.
    rna
        Modality of a MuData whose cells are constrained.
    seed
        Seed of the random number generator; each source has draws of its own.

    Returns
    -------
    Constraints of the cells, with which nothing is written to ``cells``.

    Raises
    ------
    ValueError
        One report of every problem found; where ``pairs`` contradict each other; where markers or protein single out no
        cells.

    Warns
    -----
    UserWarning
        Where markers are not among the genes, no cell clearly expresses those of a type, or constraints contradict
        more trusted ones.

    Notes
    -----
    Constraints and the ways to obtain them are those of scDCC (Tian et al. 2021), which does not look for contradictions.
    The original's marker rule is one for four proteins of T cells; the one for any markers is ours. It needs markers of
    every type that is there: cells of a type without may be taken for one that shares its markers.

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
    if n_pairs < 1 or n_pairs != int(n_pairs):
        problems.add(f"Expected n_pairs to be a whole number of at least 1, found {n_pairs}. Change it.")
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
        problems.add(f"Expected layer {layer!r} in {name}, found layers {layer_names(adata)}. Name one with layer=.")
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
                f"Expected protein levels that differ between cells in cells[{protein!r}], found every pair of cells at the "
                "same distance. Leave protein= out."
            )
            raise ValueError(msg)
        sources["protein"] = positions[linked], must
    for source, (linked, _) in sources.items():
        if source != "pairs" and len(linked) < n_pairs:
            notes.append(f"only {len(linked):,} pairs from {source}, which are all")
    result = _join(sources, adata.obs_names)
    print("; ".join([f"constraints: {result.summary}", *notes]))
    return result


def _describe_anchors(anchors: np.ndarray, cell_types: list[str]) -> str:
    """Say how many anchors the markers found; with fewer than two types there is nothing to tell apart."""
    numbers = pd.Series(np.bincount(anchors[anchors >= 0], minlength=len(cell_types)), index=cell_types)
    found, without = numbers[numbers > 0], numbers.index[numbers == 0]
    if len(found) < 2:
        msg = (
            f"Expected cells that clearly express the markers of one type and no other, for at least two types, found them "
            f"for {examples(found.index) if len(found) else 'none'}. Give markers that the types do not share, and more of them."
        )
        raise ValueError(msg)
    if len(without):
        warn(f"No cell clearly expresses the markers of {examples(without)} alone: markers say nothing about them.")
    return f"{numbers.sum():,} anchors of {len(found)} types"


def _join(sources: Mapping[str, tuple[np.ndarray, np.ndarray]], cells: pd.Index) -> Constraints:
    """Join the constraints of all sources, the most trusted first, without repetitions and contradictions."""
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
        warn(f"Constraints that contradict more trusted ones are left out: {', '.join(dropped)}.")
    return Constraints(cells, linked[kept & must], linked[kept & ~must])
