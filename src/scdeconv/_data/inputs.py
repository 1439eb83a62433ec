"""Reading and checking what the user hands to :func:`scdeconv.pp.pair`."""

from __future__ import annotations

import re
from functools import reduce
from typing import TYPE_CHECKING, Literal

import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata
from scdeconv._data.genes import columns_that_match, is_ensembl, strip_versions, sum_duplicates
from scdeconv._data.labels import as_text, plain_table
from scdeconv._data.matrix import get_matrix, in_memory, take_columns
from scdeconv._data.validation import (
    Problems,
    check_cell_type_names,
    check_expression,
    check_fractions,
    check_names,
    examples,
)
from scdeconv._data.warnings import warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData


def read_table(
    problems: Problems, adata: AnnData, name: str, layer: str | None, duplicates: Literal["error", "sum"]
) -> AnnData:
    """Return a slim AnnData of our own (matrix, obs, gene names without versions) and report what is wrong with it."""
    layer = layer if layer in adata.layers else None
    # of bulk and profiles there are never more than fit into memory
    matrix = get_matrix(adata, layer, name, lazy=name == "cells")
    var_names = strip_versions(adata.var_names)
    if duplicates == "sum" and not var_names.is_unique:
        matrix, var_names = sum_duplicates(matrix, var_names)
    table = make_adata(matrix, obs=plain_table(in_memory(adata.obs).copy()), var=pd.DataFrame(index=var_names))
    check_names(problems, table.obs_names, table.var_names, name)
    # a mean per cell may be small in every gene, so for profiles only scanpy's own mark says that it was logged
    logged, may_be_small = is_logged(adata, layer), name == "profiles"
    check_expression(problems, table, matrix, name, logged=logged, may_be_small=may_be_small)
    return table


def is_logged(adata: AnnData, layer: str | None) -> bool:
    """Say whether scanpy has marked the values that are read as log-transformed."""
    return "log1p" in adata.uns and (layer is None or layer not in adata.layers)


def take_genes(table: AnnData, genes: pd.Index) -> AnnData:
    """Return a copy of some genes of our own AnnData; lazy values stay lazy."""
    matrix = take_columns(table.X, table.var_names.get_indexer(genes))
    return make_adata(matrix, obs=table.obs, var=pd.DataFrame(index=genes))


def check_genes(problems: Problems, genes_of: Mapping[str, pd.Index], originals: Mapping[str, AnnData]) -> None:
    """Report gene names that cannot be matched, with the likely reason."""
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
            hint = f"Give {ensembl} gene symbols or {symbols} Ensembl identifiers"
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
                f"Expected shared genes, found names that differ only in case: {sides}. Are both of the same species? "
                "If so, set var_names to upper case on both."
            )
        else:
            problems.add(f"Expected shared genes, found none: {sides}. Use the same identifiers for both.")
    if all(map(len, shared.values())) and not len(reduce(pd.Index.intersection, shared.values())):
        sides = "; ".join(f"{name} {examples(names)}" for name, names in shared.items())
        problems.add(
            f"Expected genes shared by {', '.join(genes_of)}, found none that all have; bulk shares with {sides}. "
            "Use the same genes for all."
        )


def set_donors(problems: Problems, tables: Mapping[str, AnnData], donor_key: str) -> None:
    """Write ``obs["donor"]``; where bulk or pseudobulk have no such column, their ``obs_names`` are the donors."""
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
                f"Expected a donor for every row of {name}, found {int(donors.isna().sum())} without: "
                f"{examples(obs.index[donors.isna()])}. Remove those rows."
            )
        obs[keys.DONOR] = as_text(donors)
        repeated = obs[keys.DONOR][obs[keys.DONOR].duplicated()].unique()
        if name == "pseudobulk" and len(repeated):
            problems.add(
                f"Expected one row for each donor in pseudobulk, found {len(repeated)} donors with more: "
                f"{examples(repeated)}. Add up the rows of a donor."
            )


def set_cell_types(problems: Problems, tables: Mapping[str, AnnData], cell_type_key: str) -> None:
    """Write ``obs["cell_type"]`` of the cells (categorical) and of the profiles."""
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
                f"Expected a cell type for every cell, found {int(labels.isna().sum())} cells without: "
                f"{examples(obs.index[labels.isna()])}. Remove those cells."
            )
        labels = as_text(labels).astype("category") if labels.dtype != "category" else labels
        empty = labels.cat.categories.difference(labels.unique())
        if len(empty):
            problems.add(
                f"Expected cells of every type, found {len(empty)} types without in cells.obs[{cell_type_key!r}]: "
                f"{examples(empty)}. "
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
    """Return the fractions that the bulk brought along, with a column for every cell type of the reference."""
    if fractions_key not in bulk.obsm:
        if "profiles" in tables:
            warn(
                f"bulk.obsm[{fractions_key!r}] is not there, so no donor is paired: only methods that need no pairs "
                "can be trained."
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
            f"Expected only cell types of the {source} in {name}, found {len(unknown)} others: {examples(unknown)}; they have "
            f"{examples(cell_types, n=len(cell_types))}. Rename the columns, or drop them and divide each row by its sum."
        )
        return None
    known = fractions.notna().all(axis=1)
    full = fractions.reindex(columns=cell_types, fill_value=0.0).astype(float)
    # rounding in the source leaves sums of 0.999; the truth sums to one
    full = full.div(full.sum(axis=1).where(known), axis=0)
    return full


def cell_probabilities(
    problems: Problems, cells: AnnData | None, key: str, tables: Mapping[str, AnnData]
) -> pd.DataFrame | None:
    """Return how probable each type is for each cell, with the cell types as columns; rows sum to 1."""
    if cells is None:
        problems.add(f"Expected cells beside probabilities_key={key!r}, found none. Leave it out, or pass cells.")
        return None
    name = f"cells.obsm[{key!r}]"
    if key not in cells.obsm:
        problems.add(
            f"Expected the probabilities of each cell's types in {name}, found keys {sorted(cells.obsm)}. "
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
            f"{examples(table.index[missing])}. Remove those cells."
        )
    check_fractions(problems, table[~missing], name)
    table = table.rename(columns=str)
    if keys.CELL_TYPE in tables["cells"].obs:
        cell_types = list(tables["cells"].obs[keys.CELL_TYPE].cat.categories)
        if set(table) != set(cell_types) or not table.columns.is_unique:
            problems.add(
                f"Expected the cell types {examples(cell_types, n=len(cell_types))} as the columns of {name}, found "
                f"{examples(table, n=table.shape[1])}. Make the types the most probable ones, or name both by "
                "tl.name_clusters."
            )
            return None
        table = table[cell_types]
    return table if problems.messages else table.astype(float).div(table.sum(axis=1), axis=0)


def _tokens(donor: str) -> tuple[str, ...]:
    """Split a donor into words and numbers, without what people spell differently: case, separators, leading zeros."""
    return tuple(part.lstrip("0") or "0" for part in re.findall(r"[^\W\d_]+|\d+", donor.lower()))


def _extends(whole: tuple[str, ...], part: tuple[str, ...]) -> bool:
    """Say whether ``whole`` is ``part`` with a prefix or suffix; a single word or number is no evidence."""
    return 1 < len(part) < len(whole) and part in (whole[: len(part)], whole[-len(part) :])


def check_donor_names(problems: Problems, bulk_donors: pd.Index, other_donors: pd.Index, name: str) -> None:
    """Report donors of the two sides that nearly match (case, separators, zeros, a prefix) but are not the same."""
    lonely = {donor: _tokens(donor) for donor in bulk_donors.difference(other_donors)}
    spelled = {_tokens(donor): donor for donor in other_donors.difference(bulk_donors)}
    near = {donor: spelled[tokens] for donor, tokens in lonely.items() if tokens in spelled}
    if not near and len(lonely) == len(bulk_donors):
        # nothing matches: one side may carry a prefix or suffix such as "bulk_"
        near = {
            donor: other
            for donor, tokens in lonely.items()
            for other_tokens, other in spelled.items()
            if _extends(tokens, other_tokens) or _extends(other_tokens, tokens)
        }
    if near:
        problems.add(
            f"Expected donors to have the same names, found {len(near)} that nearly match ({len(bulk_donors)} donors in "
            f"bulk, {len(other_donors)} in {name}): bulk {examples(near)}; {name} {examples(near.values())}. "
            "Rename one side."
        )
