"""What the commands do: read files, call the library, write files. Each returns whether it ran to its end."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd

from scdeconv import pp, tl
from scdeconv._data import keys
from scdeconv._data.modalities import read_mudata, write_mudata
from scdeconv._data.validation import examples
from scdeconv._data.warnings import dependency_warnings_ignored
from scdeconv.io import DESCRIPTION, is_annotated, read_annotated, read_bulk

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData


def pair(args: Namespace) -> bool:
    """Write paired data."""
    claim([args.output], force=args.force)
    bulk = read_given_bulk(args)
    if args.samples is not None:
        sheet = pd.read_csv(args.samples, sep=None, engine="python", dtype=str, index_col=0)
        bulk.obs[list(sheet)] = take_samples(sheet, bulk, args.samples, all_of_them=True)
    if args.fractions is not None:
        # names such as 007 are no numbers
        measured = pd.read_csv(args.fractions, sep=None, engine="python", converters={0: str}, index_col=0)
        bulk.obsm[keys.MEASURED] = take_samples(measured, bulk, args.fractions, all_of_them=False)
    if args.cells is not None:
        reference = {"cells": read_cells(args.cells)}
    elif is_annotated(args.profiles):
        reference = {"profiles": read_annotated(args.profiles, keys.PROFILES)}
    else:
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
        msg = f"Expected a saved model at {args.output} to be replaced, found something else. Choose another folder."
        raise FileExistsError(msg)
    mdata = read_pairs(args.pairs)
    method = args.method or tl.default_method(mdata)
    model = tl.train(mdata, method, **{"seed": args.seed, **dict(args.arguments)})
    model.save(args.output, overwrite=args.force)
    print(f"wrote {args.output}")
    return not getattr(model, "interrupted_", False)


def predict(args: Namespace) -> bool:
    """Write fractions, as a table with those of intervals and quality beside it, or with the bulk as h5ad."""
    as_table = args.output.suffix != ".h5ad"
    sides = {side: beside(args.output, side) for side in ("lower", "upper", "quality")} if as_table else {}
    claim([args.output, *sides.values()], force=args.force)
    model = read_model(args.model)
    bulk = read_given_bulk(args)
    arguments = {"key_added": keys.FRACTIONS, "coverage": args.coverage, **dict(args.arguments)}
    tl.predict(bulk, model, **arguments)
    key = arguments["key_added"]
    with ExitStack() as stack:
        # all are written before the first is put into its place
        if as_table:
            for name, path in {key: args.output, **{f"{key}_{side}": path for side, path in sides.items()}}.items():
                if name in bulk.obsm:
                    write_table(bulk.obsm[name], stack.enter_context(replacing(path)), index_label="sample")
        else:
            stack.enter_context(dependency_warnings_ignored())
            bulk.write_h5ad(stack.enter_context(replacing(args.output)))
    for side, path in sides.items():
        # those of an earlier model would be taken for this one's
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
    # Ctrl-C leaves out the last runs, and the mean composition comes last
    return {keys.BASELINE, *arguments.get("methods", ())} <= set(table["method"])


def cluster(args: Namespace) -> bool:
    """Write clustered cells, and the labels as a table beside them."""
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
    return read_bulk(paths, genes_in=args.genes_in, unit=args.unit, tx2gene=args.tx2gene, gene_names=args.gene_names)


def read_cells(path: Path) -> AnnData:
    """Read cells from h5ad, zarr or the modality of MuData."""
    if not path.exists() or not is_annotated(path):
        msg = f"Expected cells as h5ad, h5mu or zarr, found {'another file' if path.exists() else 'no file'} at {path}."
        raise FileNotFoundError(msg)
    return read_annotated(path, keys.CELLS)


def read_pairs(path: Path) -> MuData:
    """Read what ``scdeconv pair`` wrote."""
    if not path.exists():
        msg = f"Expected paired data at {path}, found no file. Make it with scdeconv pair."
        raise FileNotFoundError(msg)
    mdata = read_mudata(path)
    if not {keys.BULK, keys.PROFILES} <= set(mdata.mod):
        msg = (
            f"Expected modalities 'bulk' and 'profiles' in {path}, found {list(mdata.mod)}. Make it with scdeconv pair."
        )
        raise ValueError(msg)
    return mdata


def read_model(path: Path) -> Any:
    """Load a model of whichever class was saved."""
    from scdeconv.models import load_model

    if not (path / DESCRIPTION).exists():
        msg = f"Expected a model with {DESCRIPTION} in {path}, found none. Make it with scdeconv train."
        raise FileNotFoundError(msg)
    return load_model(path)


def take_samples(table: pd.DataFrame, bulk: AnnData, path: Path, *, all_of_them: bool) -> pd.DataFrame:
    """Return the rows of a table that belong to the samples of the bulk, in their order."""
    missing = bulk.obs_names.difference(table.index)
    if not table.index.is_unique or (len(missing) if all_of_them else len(missing) == bulk.n_obs):
        found = f"{len(missing)} missing: {examples(missing)}" if table.index.is_unique else "some twice"
        msg = f"Expected the {bulk.n_obs} samples of the bulk in the first column of {path}, found {found}."
        raise ValueError(msg)
    return table.reindex(bulk.obs_names)


def claim(paths: Sequence[Path], *, force: bool) -> None:
    """Refuse output that is there, before anything is computed."""
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        msg = f"Expected no output yet, found {examples(there)}. Add --force to replace it."
        raise FileExistsError(msg)


def beside(path: Path, side: str) -> Path:
    """Return 'fractions_lower.tsv.gz' for 'fractions.tsv.gz'."""
    ending = ".gz" if path.suffix == ".gz" else ""
    table = path.with_name(path.name.removesuffix(".gz"))
    return table.with_name(f"{table.stem}_{side}{table.suffix}{ending}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield another name to write to, and rename the file when it is complete: a failure leaves the old file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield new
        new.replace(path)
        print(f"wrote {path}")
    finally:
        new.unlink(missing_ok=True)


def write_table(table: pd.DataFrame, path: Path, **options: Any) -> None:
    """Write tabs to .tsv and commas to .csv, six digits, gzipped where the name ends so."""
    table.to_csv(path, sep="\t" if ".tsv" in path.suffixes else ",", float_format="%.6g", **options)
