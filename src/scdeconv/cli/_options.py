"""Options that several commands share, and types of their values. Light: --help imports this."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

TABLES = (".tsv", ".csv", ".tsv.gz", ".csv.gz")
# names of the standard output
STDOUT = ("-", "/dev/stdout")


def path(text: str) -> Path:
    """Return a path; ``~`` is the home, and an empty path is refused."""
    if not text:
        msg = "expected a path, found an empty text"
        raise argparse.ArgumentTypeError(msg)
    return Path(text).expanduser()


def path_text(text: str) -> str:
    """Return a path as text, or the name of a column."""
    return str(path(text)) if text.startswith("~") else text


def add_output(
    parser: argparse.ArgumentParser, *endings: str, required: bool = True, printed: bool = False, what: str = ""
) -> None:
    """Add ``-o``: a file with one of the endings, or the standard output if the result can be printed."""

    def output(text: str) -> Path:
        if (printed and text in STDOUT) or text.endswith(endings):
            return path(text)
        msg = f"expected a name that ends with {', '.join(endings)}, found {text!r}"
        raise argparse.ArgumentTypeError(msg)

    known = " or ".join([*endings, *(["- (standard output)"] if printed else [])])
    text = f"{what}: {known}" if what else known
    parser.add_argument("-o", "--output", type=output, required=required, metavar="FILE", help=text)


def is_printed(args: argparse.Namespace) -> bool:
    """Return whether the result goes to the standard output, which then has nothing else."""
    return "output" in args and str(args.output or "-") in STDOUT


def add_common(parser: argparse.ArgumentParser, *, writes: bool = True) -> None:
    """Add the options of every command."""
    group = parser.add_argument_group("running")
    if writes:
        group.add_argument("--force", action="store_true", help="overwrite existing output")
        group.add_argument(
            "--dry-run", action="store_true", help="check the files, and say what would be read and written"
        )
    group.add_argument("--json", action="store_true", help="print a summary of the run as one JSON object on stdout")
    group.add_argument("--debug", action="store_true", help="show where an error comes from")


def add_arguments(parser: argparse.ArgumentParser, function: str) -> None:
    """Add ``--set`` for the other arguments of a function."""
    parser.add_argument(
        "--set",
        dest="arguments",
        type=_argument,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"another argument of scdeconv.{function}, in JSON: --set hidden=[256,64]; repeat for others",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add ``--seed``."""
    parser.add_argument("--seed", type=int, default=0, help="random seed (0)")


def add_pairs(parser: argparse.ArgumentParser) -> None:
    """Add the paired data."""
    parser.add_argument("pairs", type=path, help="from scdeconv pair (.h5mu or .zarr)")


def add_bulk(parser: argparse.ArgumentParser, *flags: str, **options: Any) -> None:
    """Add the files of bulk, and the options of ``read_bulk``."""
    about = "file, files or folder (scdeconv.read_bulk)"
    parser.add_argument(*flags, nargs="+", type=path, help=about, **options)
    group = parser.add_argument_group("reading bulk (scdeconv.read_bulk)")
    group.add_argument("--genes-in", choices=["rows", "columns"], help="orientation, if it is not recognised")
    group.add_argument("--unit", choices=["counts", "tpm"], default="counts", help="unit for files with both (counts)")
    group.add_argument(
        "--tx2gene", type=path_text, metavar="TABLE", help="transcript and gene: file, or column of the bulk file"
    )
    group.add_argument(
        "--gene-names", type=path_text, metavar="TABLE", help="identifier and name: file, or column of the bulk file"
    )
    group.add_argument("--header", action=argparse.BooleanOptionalAction, help="whether the first line is a header")
    group.add_argument("--drop", nargs="*", metavar="COLUMN", help="columns or rows to leave out; none: keep all")
    group.add_argument("--annotation", nargs="*", metavar="COLUMN", help="columns to keep beside the values")


def add_cells(parser: argparse._ActionsContainer, *flags: str, **options: Any) -> None:
    """Add the file of cells."""
    about = "cells: h5ad, h5mu, zarr, .h5 of 10x, MatrixMarket folder, .loom or a table of counts"
    parser.add_argument(*flags, type=path, help=about, **options)


def add_cell_annotation(parser: argparse.ArgumentParser) -> None:
    """Add the table with donors and types of the cells."""
    parser.add_argument(
        "--cell-annotation", type=path, metavar="TABLE", help="CSV, TSV or Excel: cell names, then columns of cells.obs"
    )


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
