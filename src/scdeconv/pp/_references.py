"""Reading and checking of the references of :func:`scdeconv.pp.combine_references`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata
from scdeconv._data.checks import UNKNOWN_SIZES, Problems, check_cell_type_names, examples, near_types
from scdeconv._data.inputs import read_table, set_cell_types, set_donors
from scdeconv._data.matrix import Matrix, get_matrix, in_memory, to_dense
from scdeconv._data.reference import indicator, restore_cell_sizes

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class SingleReference:
    """One reference: cells or profiles in counts per cell.

    Parameters
    ----------
    name
        Name of the reference.
    matrix
        Cells or cell types × genes.
    genes
        Names of the genes.
    names, types
        Name and cell type of each row.
    totals
        Sum over all genes of the reference, for each row.
    donors
        Donor of each cell; None for profiles.
    """

    name: str
    matrix: Matrix
    genes: pd.Index
    names: pd.Index
    types: pd.Series
    totals: np.ndarray
    donors: pd.Series | None

    @property
    def is_cells(self) -> bool:
        """Whether the rows are cells."""
        return self.donors is not None

    def type_names(self) -> list[str]:
        """Return the names of the cell types, in the order of their first rows."""
        return list(pd.unique(self.types))

    def profiles(self) -> pd.DataFrame:
        """Return the mean expression of each cell type, cell types × genes."""
        rows = indicator(self.types, self.type_names())
        means = to_dense(rows @ self.matrix) / np.asarray(rows.sum(axis=1))
        return pd.DataFrame(means, index=self.type_names(), columns=self.genes)

    def type_totals(self) -> pd.Series:
        """Return the mean total of each cell type."""
        means: pd.Series = pd.Series(self.totals).groupby(self.types.to_numpy(), sort=False).mean()
        return means[self.type_names()]

    def with_genes(self, genes: pd.Index) -> SingleReference:
        """Return the reference with these genes."""
        return replace(self, matrix=self.matrix[:, self.genes.get_indexer(genes)], genes=genes)

    def scaled(self, factors: np.ndarray, depth: float) -> SingleReference:
        """Return the reference with the genes and the totals multiplied by factors."""
        matrix = (
            self.matrix.multiply(factors[None, :]).tocsr() if hasattr(self.matrix, "tocsr") else self.matrix * factors
        )
        return replace(self, matrix=matrix, totals=self.totals * depth)

    def describe(self) -> str:
        """Return the name and the size as text."""
        rows = f"{len(self.names)} cells, " if self.is_cells else ""
        return f"{self.name} ({rows}{len(self.type_names())} types, {len(self.genes)} genes)"


def named_references(problems: Problems, references: object) -> dict[str, AnnData]:
    """Refuse other inputs than at least two references as AnnData; return them by name."""
    if isinstance(references, Mapping):
        named = {str(name): adata for name, adata in references.items()}
    elif isinstance(references, Sequence) and not isinstance(references, str):
        named = {f"ref{number}": adata for number, adata in enumerate(references, start=1)}
    else:
        problems.add(
            f"Expected references as a list of AnnData or a mapping from names to AnnData, found "
            f"{type(references).__name__}. Pass [first, second]."
        )
        return {}
    for name, adata in named.items():
        if not isinstance(adata, AnnData):
            problems.add(f"Expected {name} as AnnData, found {type(adata).__name__}. Read it with anndata.read_h5ad.")
    if len(named) < 2:
        problems.add(f"Expected at least 2 references, found {len(named)}. Pass one reference directly to pp.pair.")
    return named


def read_reference(
    problems: Problems,
    name: str,
    adata: AnnData,
    donor_key: str,
    cell_type_key: str,
    layer: str | None,
    duplicates: Literal["error", "sum"],
) -> SingleReference | None:
    """Read one reference and report its problems with its name; a table with one row for each type is profiles."""
    obs = in_memory(adata.obs)
    labels = pd.Index(obs[cell_type_key]) if cell_type_key in obs else adata.obs_names
    kind = "profiles" if donor_key not in obs and labels.is_unique else "cells"
    found = Problems(name)
    layer = layer if layer in adata.layers else None
    given = make_adata(get_matrix(adata, layer, kind), obs=obs, var=adata.var[[]].copy(), uns=_log_mark(adata, layer))
    table = read_table(found, given, kind, None, duplicates)
    donors = None
    if kind == "cells":
        set_donors(found, {"cells": table}, donor_key)
    set_cell_types(found, {kind: table}, cell_type_key)
    if kind == "cells" and not found.messages:
        donors = table.obs[keys.DONOR]
        if restore_cell_sizes(found, table, None) == UNKNOWN_SIZES:
            found.add(
                "Expected counts of the cells, found cells that were normalised to one library size. Pass layer= with the "
                "counts, or add the total counts of each cell as cells.obs['total_counts']."
            )
    for message in found.messages:
        problems.add(f"{name}: {message}")
    if found.messages:
        return None
    totals = np.asarray(table.X.sum(axis=1), dtype=float).ravel()
    matrix = table.X
    if kind == "profiles":
        # profiles may be in any unit: scale them to counts per cell, as in Reference
        sums = table.obs["total"].to_numpy(dtype=float) if "total" in table.obs else totals
        sizes = table.obs[keys.CELL_SIZE].to_numpy(dtype=float) if keys.CELL_SIZE in table.obs else sums
        matrix, totals = to_dense(matrix) * (sizes / np.where(sums > 0, sums, 1))[:, None], sizes
    types = pd.Series(table.obs[keys.CELL_TYPE].astype(str).to_numpy(), dtype=object)
    return SingleReference(name, matrix, table.var_names, table.obs_names, types, totals, donors)


def _log_mark(adata: AnnData, layer: str | None) -> dict[str, Any]:
    """Return scanpy's mark of log-transformed values if it applies to the values that are read."""
    return {"log1p": adata.uns["log1p"]} if layer is None and "log1p" in adata.uns else {}


def check_types(
    problems: Problems, parts: Sequence[SingleReference], types: Mapping[str, Any] | None
) -> list[SingleReference]:
    """Refuse maps of unknown types, names that nearly match and references without a common type; return renamed parts."""
    maps = _maps(problems, parts, types)
    renamed = [
        replace(part, types=part.types.map(lambda old, new=maps[part.name]: new.get(old, old))) for part in parts
    ]
    for part in renamed:
        new = set(maps[part.name].values())
        check_cell_type_names(problems, [name for name in part.type_names() if name in new], "types")
    known: list[str] = []
    for part in renamed:
        mine, kept = part.type_names(), {name for of in maps.values() for name, new in of.items() if name == new}
        near = near_types([name for name in mine if name not in kept], [name for name in known if name not in kept])
        if known and near:
            pairs = examples(f"{ours} = {theirs}" for ours, theirs in near.items())
            apart = {name: name for name in near}
            problems.add(
                f"Expected the same names of cell types in all references, found names in {part.name} that nearly match: "
                f"{pairs}. If they are the same, pass types={near}, else types={apart} to keep them apart."
            )
        elif known and not {*mine} & {*known}:
            problems.add(
                f"Expected a cell type of {part.name} that an earlier reference has, found none: {part.name} has "
                f"{examples(mine, n=8)}, the earlier references {examples(known, n=8)}. Match them with types=."
            )
        known += [name for name in mine if name not in known]
    return renamed


def _maps(
    problems: Problems, parts: Sequence[SingleReference], types: Mapping[str, Any] | None
) -> dict[str, dict[str, str]]:
    """Return the new names of the types of each reference; report names that no reference has."""
    maps: dict[str, dict[str, str]] = {part.name: {} for part in parts}
    names = {part.name: part.type_names() for part in parts}
    for given, new in (types or {}).items():
        if isinstance(new, Mapping):
            if given not in maps:
                problems.add(f"Expected names of references {list(maps)} in types, found {given!r}. Correct it.")
                continue
            _report_unknown(problems, new, names[given], given)
            maps[given] |= {str(old): str(name) for old, name in new.items()}
            continue
        _report_unknown(problems, [given], [name for of in names.values() for name in of], "the references")
        for name in maps:
            maps[name].setdefault(str(given), str(new))
    return maps


def _report_unknown(problems: Problems, given: Iterable[Any], known: Iterable[str], name: str) -> None:
    known = list(dict.fromkeys(known))
    unknown = [old for old in given if str(old) not in known]
    if unknown:
        problems.add(
            f"Expected cell types of {name} in types, found {examples(unknown)}. The types are "
            f"{examples(known, n=len(known))}."
        )
