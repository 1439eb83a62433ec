"""Commands: read files, call the library, write files. Each returns False if it was interrupted."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from scdeconv import pp, tl
from scdeconv._data import keys
from scdeconv._data.checks import examples
from scdeconv._data.modalities import read_mudata, write_mudata
from scdeconv._data.warnings import dependency_warnings_ignored
from scdeconv.io import DESCRIPTION, is_annotated, read_annotated, read_bulk, read_fractions, read_sheet

from ._outputs import beside, claim, replacing, write_table

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData


def pair(args: Namespace) -> bool:
    """Write paired data."""
    claim([args.output], force=args.force)
    bulk = read_given_bulk(args)
    if args.samples is not None:
        sheet = read_sheet(args.samples)
        bulk.obs[list(sheet)] = take_samples(sheet, bulk, args.samples, all_of_them=True)
    if args.fractions is not None:
        measured = read_fractions(args.fractions)
        bulk.obsm[keys.MEASURED] = take_samples(measured, bulk, args.fractions, all_of_them=False)
    reference = {}
    if args.cells is not None:
        reference = {"cells": read_cells(args.cells)}
    elif args.profiles is not None and is_annotated(args.profiles):
        reference = {"profiles": read_annotated(args.profiles, keys.PROFILES)}
    elif args.profiles is not None:
        reference = {"profiles": pp.read_signature(args.profiles)}
    options = {"donor_key": args.donor_key, "cell_type_key": args.cell_type_key, **dict(args.arguments)}
    mdata = pp.pair(bulk=bulk, **reference, **options)
    with replacing(args.output) as path:
        write_mudata(mdata, path)
    return True


def train(args: Namespace) -> bool:
    """Write a trained model."""
    claim([args.output], force=args.force)
    if args.output.exists() and not (args.output / DESCRIPTION).exists():
        msg = f"Expected a saved model at {args.output} to overwrite, found other files. Use another directory."
        raise FileExistsError(msg)
    mdata = read_pairs(args.pairs)
    method = args.method or tl.default_method(mdata)
    model = tl.train(mdata, method, **{"seed": args.seed, **dict(args.arguments)})
    model.save(args.output, overwrite=args.force)
    print(f"wrote {args.output}")
    return not getattr(model, "interrupted_", False)


def predict(args: Namespace) -> bool:
    """Write fractions, bounds and quality as tables, or in the bulk as h5ad."""
    as_table = args.output.suffix != ".h5ad"
    sides = {side: beside(args.output, side) for side in keys.RESULTS} if as_table else {}
    claim([args.output, *sides.values()], force=args.force)
    model = read_model(args.model)
    bulk = read_given_bulk(args)
    arguments = {"key_added": keys.FRACTIONS, "coverage": args.coverage, **dict(args.arguments)}
    tl.predict(bulk, model, **arguments)
    key = arguments["key_added"]
    with ExitStack() as stack:
        # write all files before the first is renamed to its final name
        if as_table:
            for name, path in {key: args.output, **{f"{key}_{side}": path for side, path in sides.items()}}.items():
                if name in bulk.obsm:
                    write_table(bulk.obsm[name], stack.enter_context(replacing(path)), index_label="sample")
        else:
            stack.enter_context(dependency_warnings_ignored())
            bulk.write_h5ad(stack.enter_context(replacing(args.output)))
    for side, path in sides.items():
        # results of an earlier model must not remain
        if f"{key}_{side}" not in bulk.obsm:
            path.unlink(missing_ok=True)
    return True


def benchmark(args: Namespace) -> bool:
    """Write the table of a benchmark."""
    claim([args.output], force=args.force)
    given = {"methods": args.method, "seeds": args.seed}
    arguments = {**{name: value for name, value in given.items() if value is not None}, **dict(args.arguments)}
    table = tl.benchmark(read_pairs(args.pairs), **arguments)
    with replacing(args.output) as path:
        write_table(table, path, index=False)
    # Ctrl-C omits the last runs; the mean composition is the last one
    return {keys.BASELINE, *arguments.get("methods", ())} <= set(table["method"])


def cluster(args: Namespace) -> bool:
    """Write clustered cells, and a table of the labels."""
    labels = args.output.with_suffix(".tsv")
    claim([args.output, labels], force=args.force)
    cells = read_cells(args.cells)
    model = tl.cluster(cells, args.method, **{"seed": args.seed, **dict(args.arguments)})
    with replacing(args.output) as path, replacing(labels) as labels_path, dependency_warnings_ignored():
        cells.write_h5ad(path)
        write_table(
            cells.obs[[key for key in cells.uns[keys.UNS] if key in cells.obs]], labels_path, index_label="cell"
        )
    return not model.interrupted_


def demo(args: Namespace) -> bool:
    """Run the demonstration."""
    from . import _demo

    _demo.main(args.pairs, args.seed)
    return True


def read_given_bulk(args: Namespace) -> AnnData:
    """Read bulk with the options of the command line."""
    paths = args.bulk[0] if len(args.bulk) == 1 else args.bulk
    names = ("genes_in", "unit", "tx2gene", "gene_names", "header", "drop", "annotation")
    return read_bulk(paths, **{name: getattr(args, name) for name in names})


def read_cells(path: Path) -> AnnData:
    """Read cells from h5ad, zarr or the modality of MuData."""
    if not path.exists() or not is_annotated(path):
        msg = f"Expected cells as h5ad, h5mu or zarr, found {'another file' if path.exists() else 'no file'} at {path}."
        raise FileNotFoundError(msg)
    return read_annotated(path, keys.CELLS)


def read_pairs(path: Path) -> MuData:
    """Read paired data written by ``scdeconv pair``."""
    if not path.exists():
        msg = f"Expected paired data at {path}, found no file. Create it with scdeconv pair."
        raise FileNotFoundError(msg)
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

    if not (path / DESCRIPTION).exists():
        msg = f"Expected a model with {DESCRIPTION} in {path}, found none. Create it with scdeconv train."
        raise FileNotFoundError(msg)
    return load_model(path)


def take_samples(table: pd.DataFrame, bulk: AnnData, path: Path, *, all_of_them: bool) -> pd.DataFrame:
    """Refuse a table without the samples of the bulk; return its rows in the order of the bulk."""
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
