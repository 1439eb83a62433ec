"""``scdeconv simulate``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from scdeconv._data import keys
from scdeconv.cli._inputs import Input, read_pairs
from scdeconv.cli._options import TABLES, add_arguments, add_output, add_pairs, add_seed
from scdeconv.cli._run import Files, Result

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from pathlib import Path

SUMMARY = "Simulate bulk with known fractions from paired data."


def add_options(parser: ArgumentParser) -> None:
    """Add the options."""
    add_pairs(parser)
    parser.add_argument("--samples", type=int, default=1000, metavar="N", help="number of samples (1000)")
    parser.add_argument(
        "--calibrated", action="store_true", help="like the real bulk of the pairs (pp.calibrate), not sums of cells"
    )
    add_seed(parser)
    add_arguments(parser, "pp.simulate")
    add_output(parser, *TABLES, ".h5ad")


def files(args: Namespace) -> Files:
    """Return the files."""
    return Files([Input(args.pairs, "pairs")], [args.output], _table_of_fractions(args.output))


def _table_of_fractions(output: Path) -> list[Path]:
    from scdeconv.cli._outputs import beside

    return [] if output.suffix == ".h5ad" else [beside(output, "fractions")]


def run(args: Namespace) -> Result:
    """Return the expression, genes × samples, and its fractions, samples × cell types."""
    from scdeconv import pp
    from scdeconv._data.warnings import dependency_warnings_ignored
    from scdeconv.cli._outputs import write_table

    mdata = read_pairs(args.pairs)
    calibration: Any = pp.calibrate(mdata) if args.calibrated else False
    arguments = {"n_samples": args.samples, "calibration": calibration, "seed": args.seed, **dict(args.arguments)}
    pp.simulate(mdata, **arguments)
    simulated = mdata[keys.SIMULATED]
    counts = {"samples": simulated.n_obs, "genes": simulated.n_vars}

    def write(path: Path) -> None:
        with dependency_warnings_ignored():
            simulated.write_h5ad(path)

    if args.output.suffix == ".h5ad":
        return Result({args.output: write}, counts=counts)
    (beside,) = _table_of_fractions(args.output)
    return Result(
        {
            args.output: partial(write_table, simulated.to_df().T, index_label="gene"),
            beside: partial(write_table, simulated.obsm[keys.MEASURED], index_label="sample"),
        },
        counts=counts,
    )
