"""``scdeconv tune``."""

from __future__ import annotations

import json
import shlex
from functools import partial
from typing import TYPE_CHECKING, Any

from scdeconv.cli._inputs import Input, read_pairs
from scdeconv.cli._options import TABLES, add_arguments, add_output, add_pairs, add_seed, is_printed, path
from scdeconv.cli._run import Files, Result

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

SUMMARY = "Search for the best arguments of a method, and print them as options of scdeconv train."


def add_options(parser: ArgumentParser) -> None:
    """Add the options."""
    add_pairs(parser)
    parser.add_argument("--method", help="a name from scdeconv methods; the default depends on the data")
    parser.add_argument(
        "--search", dest="space", type=_choices, action="append", metavar="NAME=LIST",
        help="argument and its choices in JSON: --search n_genes=[50,100]; repeat for others; default: that of the method",
    )  # fmt: skip
    parser.add_argument(
        "--trials", type=int, default=50, metavar="N", help="finished trials, also those in --study (50)"
    )
    parser.add_argument("--study", type=path, metavar="FILE", help="SQLite file that keeps the trials, to continue")
    add_seed(parser)
    add_arguments(parser, "tl.tune")
    add_output(parser, *TABLES, required=False, what="table of the trials")


def files(args: Namespace) -> Files:
    """Return the files."""
    return Files([Input(args.pairs, "pairs")], [] if is_printed(args) else [args.output])


def run(args: Namespace) -> Result:
    """Return the trials and the best arguments."""
    from scdeconv import tl
    from scdeconv.cli._outputs import write_table

    mdata = read_pairs(args.pairs)
    method = args.method or tl.default_method(mdata)
    arguments = {"n_trials": args.trials, "study": args.study, "seed": args.seed, **dict(args.arguments)}
    if args.space:
        arguments["search_space"] = dict(args.space)
    tuning = tl.tune(mdata, method, **arguments)
    print(tuning)
    # the plot of the trials needs the baseline
    trials = tuning.trials.assign(rmse_mean_composition=tuning.baseline)
    written = {} if is_printed(args) else {args.output: partial(write_table, trials)}
    best = {name: value for name, value in tuning.best_params.items() if value is not None}
    return Result(
        written,
        printed=" ".join(
            ["--method", tuning.method, *(f"--set {shlex.quote(_option(*item))}" for item in best.items())]
        ),
        counts={"trials": len(tuning.trials)},
        complete=not tuning.interrupted,
    )


def _option(name: str, value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    return f"{name}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"


def _choices(text: str) -> tuple[str, list[Any]]:
    name, _, value = text.partition("=")
    try:
        choices = json.loads(value)
    except json.JSONDecodeError:
        choices = None
    if not name.isidentifier() or not isinstance(choices, list):
        import argparse

        msg = f"expected NAME=[CHOICE,CHOICE], found {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return name, choices
