"""Gene names of bulk files: summing of transcripts to genes and translation of identifiers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd

from scdeconv._data.annotated import make_adata, subset
from scdeconv._data.checks import Problems, examples
from scdeconv._data.gene_names import ENSEMBL, is_ensembl, strip_versions
from scdeconv._data.genes import sum_duplicates
from scdeconv._data.labels import as_text
from scdeconv._data.matrix import layer_names
from scdeconv.io._tables import TRANSCRIPT, are_transcripts, check_dates, choose_names, read_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

Names: TypeAlias = "str | os.PathLike[str] | pd.Series | pd.DataFrame | Mapping[str, str]"


def to_genes(
    adata: AnnData,
    tx2gene: Names | None,
    gene_names: Names | None,
    transcripts: bool,
    notes: list[str],
    problems: Problems,
) -> AnnData:
    """Return samples × genes with translated gene names and summed duplicates; append the steps to ``notes``."""
    names = as_text(adata.var_names)
    if tx2gene is not None:
        genes = _look_up(_strip(names), tx2gene, adata.var, "tx2gene", problems)
        known = genes.notna().to_numpy()
        if not known.all():
            notes.append(f"{np.sum(~known):,} transcripts without gene removed")
        adata = _sum_genes(subset(adata, genes=known), strip_versions(pd.Index(genes[known])))
        names = adata.var_names
    elif are_transcripts(names) or (transcripts and not is_ensembl(names)):
        problems.add(
            f"Expected genes, found transcripts: {examples(names)}. Pass the gene of each transcript as tx2gene=: a "
            f"table or one of the columns {list(adata.var)}."
        )
    # StringTie joins identifier and symbol: ENSG00000000003.15|TSPAN6
    names = strip_versions(names.str.replace(rf"({ENSEMBL}(\.\d+)?)\|.*$", r"\1", regex=True))
    if gene_names is not None:
        renamed = _look_up(names, gene_names, adata.var, "gene_names", problems)
        if renamed.isna().any():
            notes.append(f"{renamed.isna().sum():,} genes without new name not renamed")
        names = pd.Index(renamed.where(renamed.notna(), names))
    check_dates(problems, names, "the bulk" if gene_names is None else "gene_names")
    problems.raise_if_any()
    if not names.is_unique:
        repeated = names[names.duplicated(keep=False)]
        notes.append(f"{len(repeated):,} genes with duplicate names summed to {repeated.nunique():,}")
    return _sum_genes(adata, names)


def _strip(names: pd.Index) -> pd.Index:
    """Return identifiers without versions and without the suffix of GENCODE after ``|``."""
    names = as_text(names).str.split("|").str[0]
    return strip_versions(names.str.replace(rf"^{TRANSCRIPT}\.\d+$", r"\1", regex=True))


def _look_up(names: pd.Index, given: Names, var: pd.DataFrame, argument: str, problems: Problems) -> pd.Series:
    """Return the new name of each identifier, NaN if there is none; report an unusable table."""
    table = _read_names(given, var, argument, problems)
    several = table.index[table.index.duplicated()].unique()
    found = table[~table.index.duplicated()].reindex(names).reset_index(drop=True)
    if len(several):
        problems.add(
            f"Expected one name per identifier in {argument}, found several for {len(several)}: {examples(several)}. "
            "Keep one row per identifier."
        )
    elif found.isna().all():
        problems.add(
            f"Expected identifiers of the file in {argument}, found none: the file has {examples(names)}, {argument} "
            f"has {examples(table.index)}. Use a table of the same identifiers."
        )
    problems.raise_if_any()
    return found


def _read_names(given: Names, var: pd.DataFrame, argument: str, problems: Problems) -> pd.Series:
    """Return the unique identifier → name pairs of a column, file, DataFrame, Series or mapping."""
    table: pd.DataFrame
    if isinstance(given, str) and given in var:
        table = var[[given]].reset_index()
    elif isinstance(given, pd.DataFrame):
        table = given if given.shape[1] > 1 else given.reset_index()
    elif isinstance(given, (str, os.PathLike)):
        if not Path(given).expanduser().exists():
            msg = (
                f"Expected {argument} as a file or as one of the columns {list(var)}, found neither: {given!r}. "
                "Check the path or the column name."
            )
            raise FileNotFoundError(msg)
        fields = read_fields(Path(given).expanduser(), problems, text=True)
        problems.raise_if_any()
        assert fields is not None
        choose_names(fields, fields.kinds(), problems)
        if len(fields.header) < 2:
            problems.add(
                f"Expected {argument} with two columns, found fewer in {given}. Separate the columns by tabs or commas."
            )
        problems.raise_if_any()
        # the first line may be data: a header that is kept as a pair matches no identifier
        table = pd.concat([pd.DataFrame([fields.header]), fields.columns])
    else:
        table = pd.Series(given, dtype=object).reset_index()
    pairs = table.iloc[:, :2].set_axis(["identifier", "name"], axis=1).dropna().astype(str)
    pairs["identifier"], pairs["name"] = _strip(pd.Index(pairs["identifier"])), pairs["name"].str.strip()
    return pairs[pairs["name"] != ""].drop_duplicates().set_index("identifier")["name"]


def _sum_genes(adata: AnnData, names: pd.Index) -> AnnData:
    """Rename the genes and sum duplicates; annotation columns keep the values of the first duplicate."""
    if names.is_unique:
        adata.var_names = names
        return adata
    matrix, unique = sum_duplicates(adata.X, names)
    layers = {name: sum_duplicates(adata.layers[name], names)[0] for name in layer_names(adata)}
    var = adata.var[~names.duplicated()].set_axis(unique, axis=0)
    return make_adata(matrix, obs=adata.obs, var=var, uns=adata.uns, obsm=dict(adata.obsm), layers=layers)
