"""Latent-space arithmetic of scGen, and checks of its labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data.checks import Problems

from ._base import check_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData


def perturbation_effect(latent: np.ndarray, cell_types: np.ndarray, perturbed: np.ndarray) -> np.ndarray:
    """Return the mean difference between perturbed and control cells, with the same weight for each cell type.

    Parameters
    ----------
    latent
        Cells × dimensions.
    cell_types
        Type of each cell. Every type has perturbed and control cells.
    perturbed
        Whether each cell is perturbed.
    """
    effects = []
    for cell_type in np.unique(cell_types):
        members = cell_types == cell_type
        after, before = (latent[members & chosen].mean(axis=0, dtype=float) for chosen in (perturbed, ~perturbed))
        effects.append(after - before)
    return np.mean(effects, axis=0)


def align_batches(latent: np.ndarray, cell_types: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """Shift the cells of each type in each batch to the mean of the batch with most cells of the type.

    Parameters
    ----------
    latent
        Cells × dimensions.
    cell_types, batches
        Type and batch of each cell. Cells of a type that is in one batch only are not shifted.
    """
    aligned = latent.astype(float)
    for cell_type in np.unique(cell_types):
        members = cell_types == cell_type
        names, sizes = np.unique(batches[members], return_counts=True)
        means = {name: latent[members & (batches == name)].mean(axis=0, dtype=float) for name in names}
        for name in names:
            aligned[members & (batches == name)] += means[names[sizes.argmax()]] - means[name]
    return aligned


def expected_counts(log_expression: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Return log1p expression (cells × genes) on the linear scale, normalised to the total of each cell."""
    linear = np.expm1(np.maximum(log_expression, 0))
    sums = linear.sum(axis=1)
    return linear * (totals / np.where(sums > 0, sums, 1)).astype(linear.dtype)[:, None]


def read_labels(adata: AnnData, keys: Mapping[str, str | None]) -> tuple[np.ndarray, np.ndarray]:
    """Return the condition or batch, and the cell type, of each cell.

    Parameters
    ----------
    adata
        The cells.
    keys
        Columns of ``obs``: ``batch_key`` and ``cell_type_key``.

    Raises
    ------
    ValueError
        If a key is None, or a column is missing or incomplete.
    """
    missing = [name for name, key in keys.items() if key is None]
    if missing:
        msg = (
            f"Expected {' and '.join(missing)} in setup_anndata, found none. Call "
            f"ScGen.setup_anndata(adata, {', '.join(f'{name}=...' for name in keys)}) and create a new model."
        )
        raise ValueError(msg)
    problems = Problems("The labels of the cells cannot be read")
    check_columns(problems, adata, keys)
    problems.raise_if_any()
    batches, cell_types = (adata.obs[keys[name]].astype(str).to_numpy() for name in ("batch_key", "cell_type_key"))
    return batches, cell_types


def choose_cells(
    conditions: np.ndarray,
    cell_types: np.ndarray,
    *,
    control: str,
    perturbed: str,
    cell_type: str,
    keys: Mapping[str, str | None],
) -> tuple[np.ndarray, np.ndarray]:
    """Return masks of the control cells of a type, and of the cells of other types in both conditions.

    Parameters
    ----------
    conditions, cell_types
        Condition and cell type of each cell.
    control, perturbed, cell_type
        The two conditions, and the type to predict.
    keys
        Columns of ``obs``, for messages: ``batch_key``, ``cell_type_key``.

    Raises
    ------
    ValueError
        If a condition or the type does not occur, or either mask would be empty.
    """
    problems = Problems("The perturbation cannot be predicted")
    for name, values, key in (
        (control, conditions, keys["batch_key"]),
        (perturbed, conditions, keys["batch_key"]),
        (cell_type, cell_types, keys["cell_type_key"]),
    ):
        if name not in values:
            problems.add(f"Expected one of {np.unique(values).tolist()} of obs[{key!r}], found {name!r}.")
    if control == perturbed:
        problems.add(f"Expected two conditions, found {control!r} twice.")
    problems.raise_if_any()
    start = (cell_types == cell_type) & (conditions == control)
    if not start.any():
        problems.add(f"Expected control cells of {cell_type!r} in {control!r}, found none. Choose another cell type.")
    in_both = set(cell_types[conditions == control]) & set(cell_types[conditions == perturbed]) - {cell_type}
    if not in_both:
        problems.add(
            f"Expected other cell types than {cell_type!r} with cells in {control!r} and in {perturbed!r}, found none. "
            "Add cells of other types in both conditions."
        )
    problems.raise_if_any()
    return start, np.isin(cell_types, list(in_both)) & np.isin(conditions, [control, perturbed])


def check_batches(batches: np.ndarray, cell_types: np.ndarray, key: str | None) -> None:
    """Raise ``ValueError`` unless a cell type has cells in two batches; ``key``: column of ``obs``, for the message."""
    names = np.unique(batches).tolist()
    if len(names) == 1:
        msg = f"Expected at least two batches in obs[{key!r}], found {names}."
        raise ValueError(msg)
    if pd.Series(batches).groupby(cell_types).nunique().max() == 1:
        msg = (
            f"Expected a cell type with cells in at least two of the batches {names}, found none. Use the same cell "
            "type names in all batches."
        )
        raise ValueError(msg)
