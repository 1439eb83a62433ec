"""``scdeconv demo``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdeconv.cli._options import add_seed, path
from scdeconv.cli._run import Files, Result

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

SUMMARY = "Run a complete example and write its results to the directory demo."


def add_options(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("pairs", nargs="?", type=path, help="paired data (.h5mu); the generated cohort by default")
    add_seed(parser)


def files(args: Namespace) -> Files:
    """Return no files: the demonstration checks its own."""
    return Files()


def run(args: Namespace) -> Result:
    """Run the demonstration."""
    from scdeconv.cli import _demo

    _demo.main(args.pairs, args.seed)
    return Result()
