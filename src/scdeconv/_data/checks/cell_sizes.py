"""Checks of the sizes and the expression of cell types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .problems import Problems, examples

if TYPE_CHECKING:
    from collections.abc import Iterable


def check_positive_sizes(problems: Problems, sizes: Iterable[object], cell_types: Iterable[str], name: str) -> None:
    """Refuse cell sizes that are zero, negative, infinite, NaN or no numbers.

    Parameters
    ----------
    problems
        Collected problems.
    sizes
        Size of each cell type.
    cell_types
        Names of the types.
    name
        Name of the sizes in messages.
    """
    given = pd.Series(list(sizes), index=list(cell_types), dtype=object)
    values = pd.to_numeric(given, errors="coerce").astype(float)
    wrong = given[~(np.isfinite(values) & (values > 0))]
    if len(wrong):
        found = examples(f"{cell_type}: {size}" for cell_type, size in wrong.items())
        problems.add(f"Expected positive numbers in {name}, found {len(wrong)} others: {found}. Correct or drop them.")


def check_expressed(problems: Problems, totals: np.ndarray, cell_types: Iterable[str], genes: str) -> None:
    """Refuse cell types without expression in the used genes: no method can tell their share.

    Parameters
    ----------
    problems
        Collected problems.
    totals
        Sum of the profile of each type over the used genes.
    cell_types
        Names of the types.
    genes
        Name of the genes in messages.
    """
    without = [name for name, total in zip(cell_types, np.asarray(totals).ravel(), strict=True) if not total > 0]
    if without:
        problems.add(
            f"Expected expression of every cell type in the {genes}, found none of {examples(without)}. Remove these "
            "types, or use more genes."
        )
