"""Checks of the genes that inputs share."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import pandas as pd

from scdeconv._data.gene_names import Genes, why_few_shared
from scdeconv._data.warnings import warn

from .problems import Problems, examples

if TYPE_CHECKING:
    from collections.abc import Sequence

# shares of the genes of the smaller input. Inputs with the same identifiers share 70 to 100 % (public pairs of arrays,
# targeted panels and sequencing); names of different kinds or species share less than 10 % by accident. Half of the
# names of another kind give 50 %.
MIN_SHARED, MOSTLY_SHARED = 0.2, 2 / 3
# fewer shared genes are an accident unless they are half of the smaller input
MIN_SHARED_GENES = 20


def is_few(n_shared: int, n_smaller: int) -> bool:
    """Return whether the number of shared genes is below the floor."""
    share = n_shared / max(n_smaller, 1)
    return share < MIN_SHARED or (n_shared < MIN_SHARED_GENES and share < 0.5)


def check_shared_genes(problems: Problems, first: Genes, others: Sequence[Genes]) -> None:
    """Refuse inputs that share less than 20 % of the smaller input's genes, or fewer than 20 genes if these are less than half.

    Warn below two thirds. The likely reason is given: other identifiers, another case (mouse and human), a transposed
    table.

    Parameters
    ----------
    problems
        Collected problems.
    first
        Genes of the bulk, or of the cells.
    others
        Genes of the inputs that are compared with it.
    """
    few = False
    for other in others:
        shared, smaller = first.names.intersection(other.names), min(first, other, key=lambda side: len(side.names))
        if not len(smaller.names) or len(shared) >= MOSTLY_SHARED * len(smaller.names):
            continue
        sides = "; ".join(f"{side.name} has {len(side.names)} ({examples(side.names)})" for side in (first, other))
        message = (
            f"Expected the same genes in {first.name} and {other.name}, found {len(shared)} shared "
            f"({len(shared) / len(smaller.names):.0%} of the genes of {smaller.name}): {sides}. "
            f"{why_few_shared(first, other)}"
        )
        if is_few(len(shared), len(smaller.names)):
            few = True
            problems.add(message)
        else:
            warn(f"{message} Only the shared genes are used.")
    if len(others) > 1 and not few:
        _check_common_genes(problems, first, others)


def _check_common_genes(problems: Problems, first: Genes, others: Sequence[Genes]) -> None:
    """Refuse three inputs that share genes in pairs only."""
    shared = {other.name: first.names.intersection(other.names) for other in others}
    common: pd.Index = reduce(pd.Index.intersection, shared.values())
    n_smallest = min(len(names) for names in shared.values())
    if is_few(len(common), n_smallest):
        names = ", ".join([first.name, *shared])
        sides = "; ".join(f"{name} {examples(genes)}" for name, genes in shared.items())
        found = f"{len(common)} ({len(common) / max(n_smallest, 1):.0%})" if len(common) else "no common gene"
        problems.add(
            f"Expected genes shared by {names}, found {found}. {first.name.capitalize()} shares these genes with each: "
            f"{sides}. Use the same genes in all inputs."
        )
