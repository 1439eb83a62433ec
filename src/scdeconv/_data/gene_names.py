"""Kinds of gene identifiers, and reasons why two inputs share few genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from scdeconv._data.labels import as_text
from scdeconv._data.matrix import in_memory

if TYPE_CHECKING:
    from anndata import AnnData

ENSEMBL = r"^ENS[A-Z]*G\d{6,}"
# kinds of identifiers that are no symbols; the first match counts
KINDS = {
    "Ensembl identifiers": ENSEMBL,
    "Ensembl transcripts": r"^ENS[A-Z]*T\d{6,}",
    "numbers (row numbers or Entrez identifiers)": r"^\d+$",
    "microarray probes": r"^\d+(?:_[a-z])*_at$|^ILMN_\d+$",
    "symbols with another identifier": r"\||^(?:GRCh\d+|hg\d+|mm\d+)_",
}
SYMBOLS = "symbols"
# share of the names of one kind from which the names are said to be of this kind alone (set by hand)
NEARLY_ALL = 0.9
# share of names that must match for a column of names or a transposition to be proposed (set by hand)
MATCHING_SHARE = 0.1


class Genes(NamedTuple):
    """Gene names of one input.

    Parameters
    ----------
    name
        Name of the input in messages.
    names
        Gene names, without versions.
    adata
        The input, to look for other names.
    """

    name: str
    names: pd.Index
    adata: AnnData


def strip_versions(names: pd.Index) -> pd.Index:
    """Remove the version of Ensembl identifiers: ``ENSG00000141510.17`` becomes ``ENSG00000141510``."""
    return as_text(names).str.replace(rf"({ENSEMBL})\.\d+$", r"\1", regex=True)


def is_ensembl(names: pd.Index) -> bool:
    """Return whether most names are Ensembl gene identifiers."""
    return bool(len(names)) and float(names.str.match(ENSEMBL).mean()) > 0.5


def kinds_of(names: pd.Index) -> dict[str, float]:
    """Return the share of the names of each kind, most frequent first."""
    kinds = pd.Series(SYMBOLS, index=names)
    for kind, pattern in reversed(KINDS.items()):
        kinds[as_text(names).str.contains(pattern, regex=True)] = kind
    return dict(kinds.value_counts(normalize=True))


def describe_kinds(names: pd.Index) -> str:
    """Return the kinds of identifiers as text, with shares if they are mixed."""
    shares = kinds_of(names)
    first = next(iter(shares), SYMBOLS)
    if shares.get(first, 1) >= NEARLY_ALL:
        return first
    return " and ".join(f"{share:.0%} {kind}" for kind, share in shares.items() if share > 1 - NEARLY_ALL)


def columns_that_match(adata: AnnData, names: pd.Index) -> list[str]:
    """Return the columns of ``adata.var`` of which more than 10 % are given gene names."""
    var = in_memory(adata.var)
    hits = {column: strip_versions(pd.Index(var[column])).isin(names).mean() for column in var}
    return [column for column, share in hits.items() if share > MATCHING_SHARE]


def why_few_shared(first: Genes, second: Genes) -> str:
    """Return the likely reason why two inputs share few genes, and advice, as sentences."""
    for side, other in ((first, second), (second, first)):
        hits = strip_versions(side.adata.obs_names).isin(other.names)
        # the genes of a model have no samples
        if hits.sum() > MATCHING_SHARE * hits.size:
            return f"Genes are in {side.name}.obs_names. Pass {side.name}.T."
    kinds = [describe_kinds(side.names) for side in (first, second)]
    for side, other in ((first, second), (second, first)):
        columns = [column for column in columns_that_match(side.adata, other.names) if _gains(side, other, column)]
        if columns:
            advice = f"Set {side.name}.var_names = {side.name}.var[{columns[0]!r}].astype(str)."
            return f"{_compare(first, second, kinds)}{advice}"
    if kinds[0] != kinds[1]:
        return f"{_compare(first, second, kinds)}Use the same identifiers in both."
    upper = first.names.str.upper().intersection(second.names.str.upper()).size
    if upper > 2 * first.names.intersection(second.names).size:
        return (
            "The names differ only in case, as between mouse (Actb) and human (ACTB). If both are of the same species, "
            "set var_names to upper case in both."
        )
    return "Use the same identifiers for both."


def _gains(side: Genes, other: Genes, column: str) -> bool:
    """Return whether the column has more genes of the other input than the names have."""
    named = strip_versions(pd.Index(in_memory(side.adata.var)[column]))
    return bool(named.isin(other.names).sum() > side.names.isin(other.names).sum())


def _compare(first: Genes, second: Genes, kinds: list[str]) -> str:
    if kinds[0] == kinds[1]:
        return ""
    return f"The names are {kinds[0]} in {first.name} and {kinds[1]} in {second.name}. "
