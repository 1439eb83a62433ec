"""Input files of the commands: cheap checks before the computation, and readers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from scdeconv._data import keys
from scdeconv._data.progress import log_step

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData


class Input(NamedTuple):
    """A file that a command reads, and what it must be: a key of ``CHECKS``."""

    path: Path
    kind: str = "table"


def input_problems(inputs: Sequence[Input]) -> list[str]:
    """Return a message for each input that is missing or of another kind."""
    found = [CHECKS[item.kind](item.path) for item in inputs]
    return [message for message in found if message]


def _missing_table(path: Path) -> str | None:
    if path.is_file() or path.is_fifo():
        return None
    found = "a directory" if path.is_dir() else "no file"
    return f"Expected a table at {path}, found {found}. Check the path."


def _missing_file(path: Path) -> str | None:
    return None if path.exists() else f"Expected a file or folder at {path}, found none. Check the path."


def _missing_cells(path: Path) -> str | None:
    from scdeconv.io import missing_cells

    return missing_cells(path)


def _missing_pairs(path: Path) -> str | None:
    if not path.exists():
        return f"Expected paired data at {path}, found no file. Create it with scdeconv pair."
    if path.is_dir():
        known = (path / "mod").is_dir()
    else:
        import h5py

        known = h5py.is_hdf5(path)
        if known:
            with h5py.File(path) as file:
                known = "mod" in file
    return (
        None
        if known
        else f"Expected paired data (.h5mu or .zarr) at {path}, found another file. Create it with scdeconv pair."
    )


def _missing_model(path: Path) -> str | None:
    from scdeconv.io import DESCRIPTION

    if (path / DESCRIPTION).exists():
        return None
    return f"Expected a model with {DESCRIPTION} in {path}, found none. Create it with scdeconv train."


CHECKS = {
    "table": _missing_table,
    "file": _missing_file,
    "cells": _missing_cells,
    "pairs": _missing_pairs,
    "model": _missing_model,
}


def bulk_inputs(args: Namespace) -> list[Input]:
    """Return the files of bulk, and the tables of genes that are files."""
    named = [Path(table) for table in (args.tx2gene, args.gene_names) if table is not None]
    return [*(Input(path, "file") for path in args.bulk), *(Input(path) for path in named if path.exists())]


def read_given_bulk(args: Namespace) -> AnnData:
    """Read bulk with the options of the command line."""
    from scdeconv.io import read_bulk

    paths = args.bulk[0] if len(args.bulk) == 1 else args.bulk
    log_step(f"reading {', '.join(map(str, args.bulk))}")
    names = ("genes_in", "unit", "tx2gene", "gene_names", "header", "drop", "annotation")
    return read_bulk(paths, **{name: getattr(args, name) for name in names})


def read_given_cells(args: Namespace) -> AnnData:
    """Read cells with the options of the command line."""
    from scdeconv.io import read_cells

    log_step(f"reading {args.cells}")
    return read_cells(args.cells, cell_annotation=args.cell_annotation)


def read_pairs(path: Path) -> MuData:
    """Read paired data written by ``scdeconv pair``."""
    from scdeconv._data.modalities import read_mudata

    log_step(f"reading {path}")
    mdata = read_mudata(path)
    if keys.BULK not in mdata.mod or keys.MEASURED not in mdata[keys.BULK].obsm:
        msg = (
            f"Expected the modality 'bulk' with measured fractions in {path}, found {list(mdata.mod)}. Create it with scdeconv "
            "pair."
        )
        raise ValueError(msg)
    return mdata


def read_model(path: Path) -> Any:
    """Load a model of any class."""
    from scdeconv.models import load_model

    log_step(f"reading {path}")
    return load_model(path)


def read_profiles(path: Path) -> AnnData:
    """Read profiles from AnnData, or from a table as a signature."""
    from scdeconv import pp
    from scdeconv.io import is_annotated, read_annotated

    log_step(f"reading {path}")
    return read_annotated(path, keys.PROFILES) if is_annotated(path) else pp.read_signature(path)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table that a command wrote."""
    import pandas as pd

    separator = "\t" if ".tsv" in path.suffixes else ","
    return pd.read_csv(path, sep=separator, keep_default_na=False, na_values=[""])


def read_estimate(path: Path) -> AnnData:
    """Return samples with their fractions, bounds and quality, from the files of ``scdeconv predict`` or another table."""
    from scdeconv._data.annotated import make_adata
    from scdeconv.io import is_annotated, read_annotated, read_fractions

    from ._outputs import beside

    log_step(f"reading {path}")
    if is_annotated(path):
        return read_annotated(path, keys.BULK)
    tables = {keys.FRACTIONS: read_fractions(path)}
    for side in keys.RESULTS:
        other = beside(path, side)
        if other.exists():
            name = f"{keys.FRACTIONS}_{side}"
            tables[name] = _read_quality(other) if side == "quality" else read_fractions(other)
    samples = tables[keys.FRACTIONS].index
    for name, table in tables.items():
        if not table.index.is_unique or set(table.index) != set(samples):
            msg = (
                f"Expected the {len(samples)} samples of {path} once in each of its tables, found others in {name}. "
                "Predict again."
            )
            raise ValueError(msg)
    adata = make_adata(obs=tables[keys.FRACTIONS].iloc[:, :0])
    for name, table in tables.items():
        adata.obsm[name] = table.loc[samples]
    return adata


def _read_quality(path: Path) -> pd.DataFrame:
    table = read_table(path)
    first = table.columns[0]
    return table.set_index(table.pop(first).astype(str).rename(None))


def with_measured(adata: AnnData, path: Path) -> AnnData:
    """Return the samples of an estimate with the measured fractions of a table, AnnData or paired data."""
    from scdeconv._data.annotated import subset
    from scdeconv._data.checks import examples
    from scdeconv.io import is_annotated, read_annotated, read_fractions

    log_step(f"reading {path}")
    if is_annotated(path):
        other = read_annotated(path, keys.BULK)
        if keys.MEASURED not in other.obsm:
            msg = f"Expected {keys.MEASURED!r} in obsm of {path}, found {sorted(other.obsm)}. Pass measured fractions."
            raise ValueError(msg)
        measured = other.obsm[keys.MEASURED].dropna(how="all")
    else:
        measured = read_fractions(path)
    known = adata.obs_names.isin(measured.index)
    if not measured.index.is_unique or not known.any():
        found = "none" if measured.index.is_unique else f"{examples(measured.index[measured.index.duplicated()])} twice"
        msg = (
            f"Expected the estimated samples ({examples(adata.obs_names)}) in {path}, found {found}; it has "
            f"{examples(measured.index)}. Use the same names in both."
        )
        raise ValueError(msg)
    if not known.all() or known.sum() < len(measured):
        print(
            f"{known.sum()} samples have an estimate and measured fractions; {len(known) - known.sum()} have only an "
            f"estimate, {len(measured) - known.sum()} only measured fractions"
        )
    adata = subset(adata, known)
    adata.obsm[keys.MEASURED] = measured.loc[adata.obs_names]
    return adata


def take_samples(table: pd.DataFrame, bulk: AnnData, path: Path, *, all_of_them: bool) -> pd.DataFrame:
    """Refuse a table without the samples of the bulk; return its rows in the order of the bulk."""
    from scdeconv._data.checks import examples

    if bulk.obs_names.isin(table.columns).all() and not bulk.obs_names.isin(table.index).any():
        msg = f"Expected samples in the first column of {path}, found them in the first line. Transpose the table."
        raise ValueError(msg)
    missing = bulk.obs_names.difference(table.index)
    if not table.index.is_unique or (len(missing) if all_of_them else len(missing) == bulk.n_obs):
        found = f"{len(missing)} missing: {examples(missing)}" if table.index.is_unique else "some twice"
        msg = (
            f"Expected the {bulk.n_obs} samples of the bulk in the first column of {path}, found {found}. Correct the "
            "names."
        )
        raise ValueError(msg)
    return table.reindex(bulk.obs_names)
