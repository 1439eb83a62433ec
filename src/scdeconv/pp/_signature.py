"""Signatures: cell-type profiles over marker genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import subset
from scdeconv._data.checks import Problems, check_paired, checked, examples
from scdeconv._data.matrix import to_dense
from scdeconv._data.modalities import check_reference
from scdeconv._data.reference import Reference
from scdeconv._stats.markers import (
    GENES_PER_TYPE,
    best_depth,
    best_per_type,
    condition_number,
    marker_ratio,
    moderated_scores,
)
from scdeconv.io import make_signature
from scdeconv.pp._fold_change import fold_change_scores

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

Criterion = Literal["ratio", "fold_change", "moderated"]
# false discovery rates of the markers: value of CIBERSORTx, and 0.05 (set by hand)
FOLD_CHANGE_FDR, MODERATED_FDR = 0.01, 0.05
# minimum number of cells per type for criterion="fold_change", as in CIBERSORTx
MIN_CELLS_PER_TYPE = 3


def _check_profiles(problems: Problems, profiles: np.ndarray, cell_types: list[str]) -> None:
    """Report cell types without expression and cell types with equal profiles."""
    length = np.linalg.norm(profiles, axis=1, keepdims=True)
    empty = [name for name, norm in zip(cell_types, length[:, 0], strict=True) if not norm > 0]
    if empty:
        problems.add(f"Expected expression of every cell type, found none of {examples(empty)}. Remove these types.")
        return
    if len(cell_types) < 2:
        problems.add(f"Expected at least 2 cell types, found {cell_types}. Add cell types to the reference.")
        return
    cosine = np.tril((profiles / length) @ (profiles / length).T, -1)
    for second, first in np.argwhere(cosine > 1 - 1e-10):
        problems.add(
            f"Expected cell types with different profiles, found the same profile of {cell_types[first]!r} and "
            f"{cell_types[second]!r} (condition number {condition_number(profiles / length):.2g}). Merge the two types."
        )


@checked()
def signature(
    mdata: MuData,
    n_genes: int | None = None,
    *,
    criterion: Criterion = "ratio",
    replicates: int = 5,
    sampling: float = 0.5,
    fraction: float = 0.0,
    genes_per_type: tuple[int, int] = (300, 500),
    min_cells: int = 10,
    seed: int = 0,
) -> AnnData:
    """Make a signature: the cell-type profiles over their marker genes.

    Write a signature with ``signature.write_h5ad``, plot it with :func:`scdeconv.pl.signature`, and pass it to
    :func:`scdeconv.pp.pair` as ``profiles`` or to :func:`scdeconv.tl.train` as ``signature``. It uses the cells of all
    donors. For evaluation on held-out donors, remove them first with :func:`scdeconv.pp.hold_out`.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. Not changed.
    n_genes
        Number of genes, about the same for each type. Default: 50 per type, or with ``"fold_change"`` the optimum
        within ``genes_per_type``. The result has fewer genes if there are fewer markers.
    criterion
        ``"ratio"``: ratio of a gene's share of RNA in the highest to the second-highest type (Mean Ratio; Huuki-Myers
        et al. 2025). It needs profiles only.

        ``"fold_change"``: method of CIBERSORTx for single cells (Newman et al. 2019). Pseudo-replicates of each type
        are tested against those of all other types (two-sided Welch test of log2(CPM + 1), Benjamini-Hochberg q <
        0.01). Markers are ranked by fold change.

        ``"moderated"``: moderated t-test (Smyth 2004) on log2 CPM of pseudobulks of each donor and type, with donor
        effects if they are estimable. A marker is higher than in every other type (one-sided q < 0.05). Markers are
        ranked by the minimum t over the other types. Only this criterion accounts for the variance between donors.
    replicates, sampling
        With ``"fold_change"``: number of pseudo-replicates per type, and share of the type's cells in each.
    fraction
        With ``"fold_change"``: minimum share of a type's cells that express its markers. CIBERSORTx uses 0.75 for
        full-length protocols. The default is 0 because of the sparsity of droplet-based data.
    genes_per_type
        With ``"fold_change"`` and without ``n_genes``: minimum and maximum number of markers per type. The number with
        the lowest condition number of the signature is chosen.
    min_cells
        With ``"moderated"``: minimum number of cells of a pseudobulk.
    seed
        Seed of the pseudo-replicates.

    Returns
    -------
    AnnData, cell types × genes

    - ``X``: mean counts per cell, float;
    - ``obs["cell_type"]``; ``obs["cell_size_umi"]`` and ``obs["total"]``: both the mean counts per cell over all genes;
      ``obs["n_cells"]`` if known;
    - ``var["marker_of"]``: the type with the highest score of the gene;
      ``var["score"]``: log2 of the ratio or of the fold change, or the moderated t;
    - ``uns["scdeconv"]["signature"]``: the used arguments, the number of genes and the 2-norm condition number of the
      profiles per RNA. It bounds the amplification of relative bulk errors in the fractions.

    Raises
    ------
    KeyError
        If there are no profiles.
    ValueError
        If the inputs have problems; all are listed: arguments out of range, missing cells for the criterion, types with
        the same profile, types with fewer than 3 cells (``"fold_change"``) or fewer than 2 donors (``"moderated"``).
        Also if a type has no marker.

    Warns
    -----
    UserWarning
        If the condition number is above 100.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> signature = scdeconv.pp.signature(mdata, 70)
    >>> signature.shape
    (7, 70)
    >>> model = scdeconv.tl.train(mdata, "nnls", signature=signature)
    nnls: 7 profiles, 70 genes
    """
    check_reference(mdata, "pp.signature")
    check_paired(mdata)
    given = mdata[keys.PROFILES]
    cell_types = list(given.obs[keys.CELL_TYPE])
    profiles = to_dense(given.X)
    low, high = genes_per_type
    problems = Problems("The signature cannot be made")
    if n_genes is not None and n_genes < len(cell_types):
        problems.add(f"Expected n_genes of at least 1 for each cell type, found {n_genes}. Change the argument.")
    _check_profiles(problems, profiles, cell_types)
    if criterion != "ratio" and keys.CELLS not in mdata.mod:
        problems.add(
            f"Expected cells for criterion={criterion!r}, found profiles only. Pass cells to pp.pair, or use 'ratio'."
        )
    elif criterion == "fold_change":
        few = [name for name, n in zip(cell_types, given.obs["n_cells"], strict=True) if n < MIN_CELLS_PER_TYPE]
        if few:
            problems.add(
                f"Expected at least {MIN_CELLS_PER_TYPE} cells of every type for criterion='fold_change', found fewer "
                f"of {examples(few)}. Merge them with other types, remove them, or use 'ratio'."
            )
    elif criterion == "moderated":
        sums = subset(mdata[keys.SUMS], (mdata[keys.SUMS].obs["n_cells"] >= min_cells).to_numpy())
        n_donors = sums.obs[keys.CELL_TYPE].value_counts()
        few = [name for name in cell_types if n_donors.get(name, 0) < 2]
        if few:
            problems.add(
                f"Expected at least 2 donors with {min_cells} cells of every type for criterion='moderated', found "
                f"fewer of {examples(few)}. Lower min_cells, merge them with other types, or use 'ratio'."
            )
    problems.raise_if_any()

    record: dict[str, Any] = {"criterion": criterion}
    if criterion == "ratio":
        kinds, ratio = marker_ratio(profiles)
        scores = np.where((kinds == np.arange(len(cell_types))[:, None]) & (ratio > 0), ratio, -np.inf)
    elif criterion == "fold_change":
        cells = mdata[keys.CELLS]
        options: Any = {"replicates": replicates, "sampling": sampling, "fraction": fraction, "seed": seed}
        labels = cells.obs[keys.CELL_TYPE].cat.set_categories(cell_types)
        totals = cells.obs["total"].to_numpy(dtype=float)
        scores = fold_change_scores(cells.X, totals, labels, **options, q_value=FOLD_CHANGE_FDR)
        record |= options
    else:
        kind = pd.Index(cell_types).get_indexer(sums.obs[keys.CELL_TYPE])
        totals, donor = sums.obs["total"].to_numpy(dtype=float), pd.factorize(sums.obs[keys.DONOR])[0]
        scores, by_donor = moderated_scores(to_dense(sums.X), totals, kind, donor, MODERATED_FDR)
        record |= {"min_cells": min_cells, "donor_effects": by_donor}
    without = [name for name, row in zip(cell_types, scores, strict=True) if not np.isfinite(row).any()]
    if without:
        msg = (
            f"Expected a marker of every cell type by criterion={criterion!r}, found none of {examples(without)}. "
            "Merge them with similar types, or use another criterion."
        )
        raise ValueError(msg)

    best, score = scores.argmax(axis=0), scores.max(axis=0)
    chosen = np.isfinite(score)
    if criterion == "fold_change" and n_genes is None:
        per_rna = profiles / given.obs[keys.CELL_SIZE].to_numpy(dtype=float)[:, None]
        record["genes_per_type"], chosen = best_depth(scores, per_rna, range(low, high + 1))
    else:
        wanted = GENES_PER_TYPE * len(cell_types) if n_genes is None else n_genes
        chosen[chosen] = best_per_type(best[chosen], score[chosen], wanted)
    genes = given.var_names[chosen]
    means, size = Reference(mdata, genes).profiles()
    obs = pd.DataFrame({keys.CELL_SIZE: size}, index=pd.Index(cell_types, dtype=str))
    if "n_cells" in given.obs:
        obs["n_cells"] = given.obs["n_cells"].to_numpy()
    return make_signature(
        means, obs, pd.DataFrame({"marker_of": best, "score": score}, given.var_names)[chosen], record
    )
