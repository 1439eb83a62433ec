"""``scdeconv train``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from scdeconv.cli._inputs import Input, read_pairs
from scdeconv.cli._options import add_arguments, add_pairs, add_seed, path
from scdeconv.cli._run import Files, Result

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

SUMMARY = "Train a method on paired data."


def add_options(parser: ArgumentParser) -> None:
    """Add the options."""
    add_pairs(parser)
    parser.add_argument("--method", help="a name from scdeconv methods; the default depends on the data")
    add_seed(parser)
    add_arguments(parser, "tl.train")
    parser.add_argument("-o", "--output", type=path, required=True, metavar="FOLDER", help="the model")


def files(args: Namespace) -> Files:
    """Return the files."""
    return Files([Input(args.pairs, "pairs")], saves=[args.output])


def run(args: Namespace) -> Result:
    """Train the model."""
    from scdeconv import tl

    mdata = read_pairs(args.pairs)
    method = args.method or tl.default_method(mdata)
    model = tl.train(mdata, method, **{"seed": args.seed, **dict(args.arguments)})
    return Result(
        saves={args.output: partial(model.save, overwrite=args.force)},
        complete=not getattr(model, "interrupted_", False),
    )
