"""Reading and checking of the inputs of :func:`scdeconv.pp.pair`."""

from __future__ import annotations

import re
from functools import reduce
from typing import TYPE_CHECKING, Literal

import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata
from scdeconv._data.checks import (
    Problems,
    check_cell_type_names,
    check_expression,
    check_fractions,
    check_names,
    examples,
)
from scdeconv._data.genes import columns_that_match, is_ensembl, strip_versions, sum_duplicates
from scdeconv._data.labels import as_text, plain_table
from scdeconv._data.matrix import get_matrix, in_memory, take_columns
from scdeconv._data.units import LOG, to_linear, unit_of
from scdeconv._data.warnings import warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData


def read_table(
    problems: Problems,
    adata: AnnData,
    name: str,
    layer: str | None,
    duplicates: Literal["error", "sum"],
    *,
    array: bool = False,
) -> AnnData:
    """Return a minimal AnnData (matrix, obs, gene names without versions) and report its problems.

    With ``array``, log2 intensities of bulk are exponentiated.
    """
    layer = layer if layer in adata.layers else None
    # only cells may exceed the memory
    matrix = get_matrix(adata, layer, name, lazy=name == "cells")
    may_be_logged = array and name == "bulk"
    var_names = strip_versions(adata.var_names)
    if duplicates == "sum" and not var_names.is_unique:
        matrix, var_names = sum_duplicates(matrix, var_names)
    table = make_adata(matrix, obs=plain_table(in_memory(adata.obs).copy()), var=pd.DataFrame(index=var_names))
    check_names(problems, table.obs_names, table.var_names, name)
    # mean counts per cell can all be small: only scanpy's log1p mark identifies log-transformed profiles
    logged, may_be_small = is_logged(adata, layer), name == "profiles"
    check_expression(
        problems, table, matrix, name, logged=logged, may_be_small=may_be_small, may_be_logged=may_be_logged
    )
    if may_be_logged:
        table.X = to_linear(matrix)
    return table


def is_logged(adata: AnnData, layer: str | None) -> bool:
    """Return whether scanpy marked the selected values as log-transformed."""
    return "log1p" in adata.uns and (layer is None or layer not in adata.layers)


def is_logged_array(adata: AnnData, layer: str | None) -> bool:
    """Return whether the selected values of array intensities are log2 values."""
    return unit_of(get_matrix(adata, layer if layer in adata.layers else None, "bulk")) == LOG


def take_genes(table: AnnData, genes: pd.Index) -> AnnData:
    """Return a copy of a table of :func:`read_table` with the given genes; a lazy matrix stays lazy."""
    matrix = take_columns(table.X, table.var_names.get_indexer(genes))
    return make_adata(matrix, obs=table.obs, var=pd.DataFrame(index=genes))


def check_genes(problems: Problems, genes_of: Mapping[str, pd.Index], originals: Mapping[str, AnnData]) -> None:
    """Report inputs without shared gene names, with the likely reason."""
    genes = genes_of["bulk"]
    shared = {name: genes.intersection(names) for name, names in genes_of.items() if name != "bulk"}
    for name in shared:
        if len(shared[name]):
            continue
        others = genes_of[name]
        sides = f"bulk has {len(genes)} ({examples(genes)}), {name} has {len(others)} ({examples(others)})"
        if strip_versions(originals["bulk"].obs_names).isin(others).mean() > 0.1:
            problems.add(f"Expected bulk as samples × genes, found genes in bulk.obs_names: {sides}. Pass bulk.T.")
        elif is_ensembl(genes) != is_ensembl(others):
            ensembl, symbols = ("bulk", name) if is_ensembl(genes) else (name, "bulk")
            hint = f"Use gene symbols in {ensembl} or Ensembl identifiers in {symbols}"
            for side, other in ((ensembl, symbols), (symbols, ensembl)):
                columns = columns_that_match(originals[side], genes_of[other])
                if columns:
                    hint = f"Set {side}.var_names = {side}.var[{columns[0]!r}].astype(str)"
                    break
            problems.add(
                f"Expected the same gene identifiers, found Ensembl identifiers in {ensembl} and symbols in {symbols}: "
                f"{sides}. {hint}."
            )
        elif genes.str.upper().intersection(others.str.upper()).size:
            problems.add(
                f"Expected shared genes, found names that differ only in case: {sides}. "
                "If both are of the same species, set var_names to upper case in both."
            )
        else:
            problems.add(f"Expected shared genes, found none: {sides}. Use the same identifiers for both.")
    if all(map(len, shared.values())) and not len(reduce(pd.Index.intersection, shared.values())):
        sides = "; ".join(f"{name} {examples(names)}" for name, names in shared.items())
        problems.add(
            f"Expected genes shared by {', '.join(genes_of)}, found no common gene. Bulk shares these genes with each: "
            f"{sides}. Use the same genes in all inputs."
        )


def set_donors(problems: Problems, tables: Mapping[str, AnnData], donor_key: str) -> None:
    """Write ``obs["donor"]``; bulk and pseudobulk without the column use ``obs_names`` as donors."""
    for name in ("bulk", "pseudobulk", "cells"):
        if name not in tables:
            continue
        obs = tables[name].obs
        if donor_key in obs:
            donors = obs[donor_key]
        elif name == "cells":
            problems.add(
                f"Expected the donor of each cell in cells.obs[{donor_key!r}], found columns {list(obs.columns)}. "
                "Name the column with donor_key=."
            )
            continue
        else:
            donors = pd.Series(obs.index, index=obs.index)
        if donors.isna().any():
            problems.add(
                f"Expected a donor for every row of {name}, found {int(donors.isna().sum())} rows without donor: "
                f"{examples(obs.index[donors.isna()])}. Remove these rows."
            )
        obs[keys.DONOR] = as_text(donors)
        repeated = obs[keys.DONOR][obs[keys.DONOR].duplicated()].unique()
        if name == "pseudobulk" and len(repeated):
            problems.add(
                f"Expected one row per donor in pseudobulk, found {len(repeated)} donors with several rows: "
                f"{examples(repeated)}. Sum the rows of each donor."
            )


def set_cell_types(problems: Problems, tables: Mapping[str, AnnData], cell_type_key: str) -> None:
    """Write ``obs["cell_type"]`` of the cells (categorical) and of the profiles (text)."""
    if "cells" in tables:
        obs = tables["cells"].obs
        if cell_type_key not in obs:
            problems.add(
                f"Expected the type of each cell in cells.obs[{cell_type_key!r}], found columns {list(obs.columns)}. "
                "Name the column with cell_type_key=."
            )
            return
        labels = obs[cell_type_key]
        if labels.isna().any():
            problems.add(
                f"Expected a cell type for every cell, found {int(labels.isna().sum())} cells without cell type: "
                f"{examples(obs.index[labels.isna()])}. Remove these cells."
            )
        labels = as_text(labels).astype("category") if labels.dtype != "category" else labels
        empty = labels.cat.categories.difference(labels.unique())
        if len(empty):
            problems.add(
                f"Expected cells of every type in cells.obs[{cell_type_key!r}], found {len(empty)} types without "
                f"cells: {examples(empty)}. "
                "Call .cat.remove_unused_categories() on the column."
            )
        obs[keys.CELL_TYPE] = labels.cat.rename_categories(str)
        check_cell_type_names(problems, obs[keys.CELL_TYPE].cat.categories, f"cells.obs[{cell_type_key!r}]")
        return
    obs = tables["profiles"].obs
    labels = obs[cell_type_key] if cell_type_key in obs else pd.Series(obs.index, index=obs.index)
    obs[keys.CELL_TYPE] = as_text(labels)
    check_cell_type_names(problems, obs[keys.CELL_TYPE], "profiles")


def given_fractions(
    problems: Problems, bulk: AnnData, fractions_key: str, tables: Mapping[str, AnnData]
) -> pd.DataFrame | None:
    """Return the fractions in ``bulk.obsm``, with one column for every cell type of the reference."""
    if fractions_key not in bulk.obsm:
        if "profiles" in tables:
            warn(
                f"Expected measured fractions in bulk.obsm[{fractions_key!r}], found none, so no donor is paired. "
                "Train a reference-based method."
            )
        return None
    fractions = in_memory(bulk.obsm[fractions_key])
    name = f"bulk.obsm[{fractions_key!r}]"
    before = len(problems.messages)
    check_fractions(problems, fractions, name)
    if isinstance(fractions, pd.DataFrame):
        check_cell_type_names(problems, fractions.columns, name)
    source = "cells" if "cells" in tables else "profiles"
    if len(problems.messages) > before or keys.CELL_TYPE not in tables[source].obs:
        return None
    labels = tables[source].obs[keys.CELL_TYPE]
    cell_types = list(labels.cat.categories if labels.dtype == "category" else labels)
    unknown = fractions.columns.difference(cell_types)
    if len(unknown):
        problems.add(
            f"Expected only cell types of the {source} in {name}, found {len(unknown)} other types: "
            f"{examples(unknown)}. The {source} have {examples(cell_types, n=len(cell_types))}. Rename the columns, or "
            "drop them and divide each row by its sum."
        )
        return None
    known = fractions.notna().all(axis=1)
    full = fractions.reindex(columns=cell_types, fill_value=0.0).astype(float)
    # rounded input fractions sum to about 1, e.g. 0.999
    full = full.div(full.sum(axis=1).where(known), axis=0)
    return full


def cell_probabilities(
    problems: Problems, cells: AnnData | None, key: str, tables: Mapping[str, AnnData]
) -> pd.DataFrame | None:
    """Return the cell-type probabilities, cells × cell types, rows sum to 1."""
    if cells is None:
        problems.add(
            f"Expected cells together with probabilities_key={key!r}, found none. Pass cells or omit probabilities_key."
        )
        return None
    name = f"cells.obsm[{key!r}]"
    if key not in cells.obsm:
        problems.add(
            f"Expected cell-type probabilities in {name}, found keys {sorted(cells.obsm)}. "
            "Name the key with probabilities_key=."
        )
        return None
    table = in_memory(cells.obsm[key])
    if not isinstance(table, pd.DataFrame):
        check_fractions(problems, table, name)
        return None
    missing = table.isna().any(axis=1)
    if missing.any():
        problems.add(
            f"Expected probabilities of every cell in {name}, found {int(missing.sum())} cells with NaN: "
            f"{examples(table.index[missing])}. Remove these cells."
        )
    check_fractions(problems, table[~missing], name)
    table = table.rename(columns=str)
    if keys.CELL_TYPE in tables["cells"].obs:
        cell_types = list(tables["cells"].obs[keys.CELL_TYPE].cat.categories)
        if set(table) != set(cell_types) or not table.columns.is_unique:
            problems.add(
                f"Expected the cell types {examples(cell_types, n=len(cell_types))} as the columns of {name}, found "
                f"{examples(table, n=table.shape[1])}. Set the cell types to the most probable types, or rename both "
                "with tl.name_clusters."
            )
            return None
        table = table[cell_types]
    return table if problems.messages else table.astype(float).div(table.sum(axis=1), axis=0)


def _tokens(donor: str) -> tuple[str, ...]:
    """Split a donor name into lower-case words and numbers, without separators and leading zeros."""
    return tuple(part.lstrip("0") or "0" for part in re.findall(r"[^\W\d_]+|\d+", donor.lower()))


def _extends(whole: tuple[str, ...], part: tuple[str, ...]) -> bool:
    """Return whether ``whole`` is ``part`` plus a prefix or suffix; ``part`` needs at least two tokens."""
    return 1 < len(part) < len(whole) and part in (whole[: len(part)], whole[-len(part) :])


def check_donor_names(problems: Problems, bulk_donors: pd.Index, other_donors: pd.Index, name: str) -> None:
    """Report donor names that differ only in case, separators, leading zeros, a prefix or a suffix."""
    lonely = {donor: _tokens(donor) for donor in bulk_donors.difference(other_donors)}
    spelled = {_tokens(donor): donor for donor in other_donors.difference(bulk_donors)}
    near = {donor: spelled[tokens] for donor, tokens in lonely.items() if tokens in spelled}
    if not near and len(lonely) == len(bulk_donors):
        # no match at all: one side may have a prefix or suffix such as "bulk_"
        near = {
            donor: other
            for donor, tokens in lonely.items()
            for other_tokens, other in spelled.items()
            if _extends(tokens, other_tokens) or _extends(other_tokens, tokens)
        }
    if near:
        problems.add(
            f"Expected identical donor names in bulk and {name}, found {len(near)} that nearly match "
            f"({len(bulk_donors)} donors in bulk, {len(other_donors)} in {name}): bulk {examples(near)}; "
            f"{name} {examples(near.values())}. Rename the donors in one of them."
        )
