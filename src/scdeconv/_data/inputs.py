"""Reading and checking of the inputs of :func:`scdeconv.pp.pair`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata, subset
from scdeconv._data.checks import (
    Problems,
    check_cell_type_names,
    check_expression,
    check_labels,
    check_names,
    check_positive_sizes,
    columns_of_donors,
    examples,
)
from scdeconv._data.gene_names import strip_versions
from scdeconv._data.genes import sum_duplicates
from scdeconv._data.labels import as_categorical, as_text, is_missing, plain_table
from scdeconv._data.matrix import get_matrix, in_memory, is_lazy, take_columns
from scdeconv._data.units import LOG, to_linear, unit_of
from scdeconv._data.warnings import warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
        check_labels(problems, given.cat.remove_unused_categories(), name, "cell type")
        types = as_categorical(given)
        obs[keys.CELL_TYPE] = types
        named = types.categories[~is_missing(types.categories)]
        _refuse_rest(problems, check_cell_type_names(problems, named, name, spellings=False), name)
    if "profiles" not in tables:
        return
    obs = tables["profiles"].obs
    given = obs[cell_type_key] if cell_type_key in obs else pd.Series(obs.index, index=obs.index)
    obs[keys.CELL_TYPE] = as_text(check_cell_type_names(problems, given, "profiles")).to_numpy()
    _refuse_rest(problems, obs[keys.CELL_TYPE], "profiles")
    for column in (keys.CELL_SIZE, "total"):
        if column in obs:
            check_positive_sizes(problems, obs[column], obs[keys.CELL_TYPE], f"profiles.obs[{column!r}]")


def _refuse_rest(problems: Problems, cell_types: Iterable[str], name: str) -> None:
    """Refuse a cell type of the reference with the name of the unmeasured rest."""
    if keys.UNMEASURED in {*cell_types}:
        problems.add(
            f"Expected cell types in {name}, found {keys.UNMEASURED!r}, the name of the part of bulk samples that was not "
            "measured. Rename the type, e.g. to 'other', or remove its cells."
        )
