"""Arguments of the commands."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from scdeconv._version import __version__

TABLES = (".tsv", ".csv", ".tsv.gz", ".csv.gz")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="scdeconv", description="Cell-type fractions of bulk RNA-seq.")
    parser.add_argument("--version", action="version", version=f"scdeconv {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    shared, seeded, bulk = _shared_options(), _seed_option(), _bulk_options()

    def add(name: str, function: str, summary: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        text = f"{summary} Other arguments of scdeconv.{function}: --set NAME=VALUE."
        return commands.add_parser(name, help=summary, description=text, parents=[*parents, shared])

    pair = add("pair", "pp.pair", "Pair bulk with the single cells of the same donors.", bulk)
    pair.add_argument("--bulk", nargs="+", required=True, metavar="FILE", help="file, files or folder (read_bulk)")
    reference = pair.add_mutually_exclusive_group()
    reference.add_argument("--cells", type=Path, help="cells × genes: h5ad, zarr, or h5mu (modality sc)")
    reference.add_argument(
        "--profiles",
        type=Path,
        help="instead of cells: cell-type profiles, h5ad, zarr or text; without both: --fractions",
    )
    pair.add_argument(
        "--samples", type=Path, help="CSV, TSV or Excel: samples, then columns for bulk.obs such as donor"
    )
    pair.add_argument("--fractions", type=Path, help="CSV, TSV or Excel of measured fractions, samples × cell types")
    pair.add_argument("--donor-key", default="donor", help="column of obs with the donor (donor)")
    pair.add_argument("--cell-type-key", default="cell_type", help="column of obs with the cell type (cell_type)")
    _add_output(pair, ".h5mu")

    train = add("train", "tl.train", "Train a method on paired data.", seeded)
    train.add_argument("pairs", type=Path, help="from scdeconv pair (.h5mu or .zarr)")
    train.add_argument("--method", help="a name from scdeconv.tl.methods(); the default depends on the data")
    train.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="the model")

    predict = add("predict", "tl.predict", "Estimate the composition of bulk samples.", bulk)
    predict.add_argument("model", type=Path, help="from scdeconv train")
    predict.add_argument("bulk", nargs="+", metavar="bulk", help="file, files or folder (read_bulk)")
    predict.add_argument("--coverage", type=float, help="also write prediction intervals with this coverage")
    _add_output(predict, *TABLES, ".h5ad")

    benchmark = add("benchmark", "tl.benchmark", "Compare methods on held-out donors.")
    benchmark.add_argument("pairs", type=Path, help="from scdeconv pair (.h5mu or .zarr)")
    benchmark.add_argument("--method", action="append", metavar="NAME", help="from scdeconv.tl.methods(); repeat")
    benchmark.add_argument("--seed", type=int, action="append", metavar="N", help="repeat; a run for each (0, 1, 2)")
    _add_output(benchmark, *TABLES)

    cluster = add("cluster", "tl.cluster", "Cluster unlabelled cells.", seeded)
    cluster.add_argument("cells", type=Path, help="cells × genes, counts: h5ad, zarr, or h5mu (modality sc)")
    cluster.add_argument("--method", default="desc", help="desc (default), scdeepcluster or scdcc")
    _add_output(cluster, ".h5ad")

    summary = "Run a complete example and write its results to the directory demo."
    demo = commands.add_parser("demo", help=summary, description=summary, parents=[seeded])
    demo.add_argument("pairs", nargs="?", type=Path, help="paired data (.h5mu); the generated cohort by default")
    demo.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser


def _shared_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--set",
        dest="arguments",
        type=_argument,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument of the function, in JSON: --set hidden=[256,64]; repeat for others",
    )
    options.add_argument("--force", action="store_true", help="overwrite existing output")
    options.add_argument("--debug", action="store_true", help="show where an error comes from")
    return options


def _seed_option() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--seed", type=int, default=0, help="random seed (0)")
    return options


def _bulk_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    group = options.add_argument_group("reading bulk (scdeconv.read_bulk)")
    group.add_argument("--genes-in", choices=["rows", "columns"], help="orientation, if it is not recognised")
    group.add_argument("--unit", choices=["counts", "tpm"], default="counts", help="unit for files with both (counts)")
    group.add_argument("--tx2gene", metavar="TABLE", help="transcript and gene: file, or column of the bulk file")
    group.add_argument("--gene-names", metavar="TABLE", help="identifier and name: file, or column of the bulk file")
    group.add_argument("--header", action=argparse.BooleanOptionalAction, help="whether the first line is a header")
    group.add_argument("--drop", nargs="*", metavar="COLUMN", help="columns or rows to leave out; none: keep all")
    group.add_argument("--annotation", nargs="*", metavar="COLUMN", help="columns to keep beside the values")
    return options


def _add_output(parser: argparse.ArgumentParser, *endings: str) -> None:
    def output(text: str) -> Path:
        if not text.endswith(endings):
            msg = f"expected a name that ends with {', '.join(endings)}, found {text!r}"
            raise argparse.ArgumentTypeError(msg)
        return Path(text)

    parser.add_argument("-o", "--output", type=output, required=True, metavar="FILE", help=" or ".join(endings))


def _argument(text: str) -> tuple[str, Any]:
    """Return name and value of an argument; values that are no JSON are text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        msg = f"expected NAME=VALUE, found {text!r}"
        raise argparse.ArgumentTypeError(msg)
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
