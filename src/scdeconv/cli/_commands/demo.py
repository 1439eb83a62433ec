"""``scdeconv demo``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scdeconv.cli._inputs import Input
from scdeconv.cli._options import add_seed, path
from scdeconv.cli._run import Files, Result

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

OUTPUT = Path("demo")
NAMES = (
    *("fractions.png", "measured_vs_predicted.png", "benchmark.png", "simulation.png"),
    *("accuracy.csv", "fractions.csv", "pairs.h5mu"),
)
SUMMARY = "Run a complete example and write its results to the directory demo."


def add_options(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("pairs", nargs="?", type=path, help="paired data (.h5mu); the generated cohort by default")
    add_seed(parser)


def files(args: Namespace) -> Files:
    """Return the files; the file that the demonstration reads is not written."""
    given = [] if args.pairs is None else [Input(args.pairs, "pairs")]
    outputs = [OUTPUT / name for name in NAMES]
    kept = [path for path in outputs if given and path.exists() and path.samefile(args.pairs)]
    return Files(given, [path for path in outputs if path not in kept], saves=[OUTPUT / "model"])


def run(args: Namespace) -> Result:
    """Run the demonstration."""
    from scdeconv.cli import _demo

    writers, model = _demo.compute(args.pairs, args.seed)
    return Result(
        {path: writers[path.name] for path in files(args).writes},
        saves={OUTPUT / "model": partial(model.save, overwrite=args.force)},
    )
