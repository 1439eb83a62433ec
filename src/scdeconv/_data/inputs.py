"""Reading and checking of the inputs of :func:`scdeconv.pp.pair`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata, subset
from scdeconv._data.checks import (
    Problems,
    check_cell_sizes,
    check_cell_type_names,
    check_expression,
    check_fractions,
    check_labels,
    check_names,
    columns_of_donors,
    examples,
    near_types,
)
from scdeconv._data.gene_names import strip_versions
from scdeconv._data.genes import sum_duplicates
from scdeconv._data.labels import as_labels, as_text, is_missing, plain_table
from scdeconv._data.matrix import get_matrix, in_memory, is_lazy, take_columns
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
        problems,
        table,
        matrix,
        name,
        logged=logged,
        may_be_small=may_be_small,
        may_be_logged=may_be_logged,
        may_be_empty=name in ("bulk", "cells"),
    )
    if may_be_logged:
        table.X = to_linear(matrix)
    return table


def leave_out_empty_cells(problems: Problems, tables: dict[str, AnnData]) -> None:
    """Remove cells without counts, with a warning; donors without other cells are no pairs. Lazy cells are not read."""
    cells = tables.get("cells")
    if cells is None or is_lazy(cells.X) or problems.messages:
        return
    empty = np.asarray(cells.X.sum(axis=1)).ravel() == 0
    if empty.all():
        problems.add("Expected cells with counts, found zeros only. Pass the layer with counts.")
    elif empty.any():
        tables["cells"] = subset(cells, ~empty)
        lost = cells.obs[keys.DONOR][~cells.obs[keys.DONOR].isin(tables["cells"].obs[keys.DONOR])].unique()
        donors = f" Donors without other cells are no pairs: {examples(lost)}." if len(lost) else ""
        warn(
            f"{int(empty.sum())} of {cells.n_obs} cells have no counts and are left out: "
            f"{examples(cells.obs_names[empty])}.{donors}"
        )


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


def set_donors(problems: Problems, tables: Mapping[str, AnnData], donor_key: str) -> dict[str, str]:
    """Write ``obs["donor"]``; bulk and pseudobulk without the column use ``obs_names`` as donors.

    Returns
    -------
    Where the donors of each input come from, as text.
    """
    sources = {}
    for name in ("bulk", "pseudobulk", "cells"):
        if name not in tables:
            continue
        obs = tables[name].obs
        sources[name] = f"{name}.obs[{donor_key!r}]"
        if donor_key in obs:
            donors = obs[donor_key]
        elif name == "cells":
            others = columns_of_donors(obs, tables["bulk"].obs[keys.DONOR]) if "bulk" in tables else {}
            hint = "".join(
                f" Column {column!r} has donors of bulk ({examples(found)})." for column, found in others.items()
            )
            problems.add(
                f"Expected the donor of each cell in cells.obs[{donor_key!r}], found columns {list(obs.columns)}."
                f"{hint} Name the column with donor_key=."
            )
            continue
        else:
            donors = pd.Series(obs.index, index=obs.index)
            sources[name] = f"{name}.obs_names, because {name}.obs has no column {donor_key!r}"
        obs[keys.DONOR] = as_text(check_labels(problems, donors, sources[name].split(",")[0], "donor"))
        repeated = obs[keys.DONOR][obs[keys.DONOR].duplicated()].unique()
        if name == "pseudobulk" and len(repeated):
            problems.add(
                f"Expected one row per donor in pseudobulk, found {len(repeated)} donors with several rows: "
                f"{examples(repeated)}. Sum the rows of each donor."
            )
    return sources


def set_cell_types(problems: Problems, tables: Mapping[str, AnnData], cell_type_key: str) -> None:
    """Write ``obs["cell_type"]`` of the cells (categorical) and of the profiles (text); check sizes of profiles."""
    if "cells" in tables:
        obs = tables["cells"].obs
        name = f"cells.obs[{cell_type_key!r}]"
        if cell_type_key not in obs:
            problems.add(
                f"Expected the type of each cell in {name}, found columns {list(obs.columns)}. "
                "Name the column with cell_type_key=."
            )
            return
        given = obs[cell_type_key].astype("category")
        empty = given.cat.categories.difference(given.unique())
        if len(empty):
            problems.note(f"{len(empty)} types without cells left out: {examples(empty)}")
        given = given.cat.remove_unused_categories()
        labels = check_labels(problems, given, name, "cell type")
        order = as_text(as_labels(pd.Index(given.cat.categories))).unique()
        obs[keys.CELL_TYPE] = pd.Categorical(labels, categories=pd.Index(order, dtype=str))
        check_cell_type_names(problems, order[~is_missing(order)], name, spellings=False)
        return
    obs = tables["profiles"].obs
    given = obs[cell_type_key] if cell_type_key in obs else pd.Series(obs.index, index=obs.index)
    obs[keys.CELL_TYPE] = as_text(check_cell_type_names(problems, given, "profiles")).to_numpy()
    for column in (keys.CELL_SIZE, "total"):
        if column in obs:
            check_cell_sizes(problems, obs[column], obs[keys.CELL_TYPE], f"profiles.obs[{column!r}]")


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
        fractions = fractions.set_axis(as_text(check_cell_type_names(problems, fractions.columns, name)), axis=1)
    source = "cells" if "cells" in tables else "profiles"
    if len(problems.messages) > before or keys.CELL_TYPE not in tables[source].obs:
        return None
    labels = tables[source].obs[keys.CELL_TYPE]
    cell_types = list(labels.cat.categories if labels.dtype == "category" else labels)
    unknown = fractions.columns.difference(cell_types)
    if len(unknown):
        near = near_types(fractions.columns, cell_types)
        nearly = f" Names that nearly match: {examples(f'{ours} = {theirs}' for ours, theirs in near.items())}."
        problems.add(
            f"Expected only cell types of the {source} in {name}, found {len(unknown)} other types: "
            f"{examples(unknown)}. The {source} have {examples(cell_types, n=len(cell_types))}.{nearly if near else ''} "
            f"Rename the columns{f' with .rename(columns={near})' if near else ''}, or drop them and divide each row by "
            "its sum."
        )
        return None
    unmeasured = [cell_type for cell_type in cell_types if cell_type not in fractions.columns]
    if unmeasured and fractions.notna().any(axis=None):
        problems.add(
            f"Expected a column of {name} for every cell type of the {source}, found none measured of "
            f"{examples(unmeasured)}. Add a column of zeros if the type is absent from all samples, or remove it from "
            f"the {source}."
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
    if isinstance(table, pd.DataFrame):
        # cells without counts are left out
        table = table[cells.obs_names.isin(tables["cells"].obs_names)]
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
    table = table.set_axis(as_text(check_cell_type_names(problems, table.columns, name)), axis=1)
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
