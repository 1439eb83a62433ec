"""``scdeconv plot``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from scdeconv._data import keys
from scdeconv.cli._inputs import (
    Input,
    read_estimate,
    read_model,
    read_pairs,
    read_profiles,
    read_table,
    with_measured,
)
from scdeconv.cli._options import add_arguments, add_output, path
from scdeconv.cli._run import Files, Result

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable
    from pathlib import Path

SUMMARY = "Draw the results of other commands as PNG, SVG or PDF."


def _estimate(estimated: Path, measured: Path | None = None) -> Any:
    adata = read_estimate(estimated)
    return adata if measured is None else with_measured(adata, measured)


def _tuning(table: Path) -> Any:
    from scdeconv import tl

    trials = read_table(table).set_index("trial")
    baseline = float(trials.pop("rmse_mean_composition").iloc[0])
    return tl.Tuning("", trials, {}, None, baseline)  # type: ignore[arg-type]


def _history(model: Path) -> Any:
    history = read_model(model).history
    if not history:
        msg = f"Expected a model with a history of its training in {model}, found none. Only networks have one."
        raise ValueError(msg)
    return history


def _simulation(pairs: Path, simulated: Path) -> Any:
    from scdeconv._data.modalities import add_modality
    from scdeconv.io import read_annotated

    mdata = read_pairs(pairs)
    add_modality(mdata, keys.SIMULATED, read_annotated(simulated, keys.SIMULATED))
    return mdata


def _cells(cells: Path) -> Any:
    from scdeconv.io import read_annotated

    return read_annotated(cells, keys.CELLS)


# reader of the files of each plot, what the files are, and the least number of them
KINDS: dict[str, tuple[Callable[..., Any], tuple[tuple[str, str], ...], int]] = {
    "fractions": (_estimate, (("fractions", "file"),), 1),
    "intervals": (_estimate, (("fractions", "file"), ("measured fractions", "file")), 1),
    "measured_vs_predicted": (_estimate, (("fractions", "file"), ("measured fractions", "file")), 1),
    "bland_altman": (_estimate, (("fractions", "file"), ("measured fractions", "file")), 1),
    "benchmark": (read_table, (("table of scdeconv benchmark", "table"),), 1),
    "tuning": (_tuning, (("table of scdeconv tune", "table"),), 1),
    "history": (_history, (("model", "model"),), 1),
    "signature": (read_profiles, (("signature", "file"),), 1),
    "simulation": (_simulation, (("pairs", "pairs"), ("simulated bulk, h5ad", "file")), 2),
    "clusters": (_cells, (("cells of scdeconv cluster, h5ad", "file"),), 1),
}


def add_options(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("kind", choices=KINDS, metavar="kind", help=", ".join(KINDS))
    about = "; ".join(f"{kind}: {', '.join(name for name, _ in wanted)}" for kind, (_, wanted, _) in KINDS.items())
    parser.add_argument("files", nargs="+", type=path, metavar="file", help=about)
    parser.add_argument("--dpi", type=int, default=150, help="resolution of PNG (150)")
    add_arguments(parser, "pl.<kind>")
    add_output(parser, ".png", ".svg", ".pdf")


def files(args: Namespace) -> Files:
    """Return the files."""
    _, wanted, least = KINDS[args.kind]
    if not least <= len(args.files) <= len(wanted):
        names = ", ".join(name for name, _ in wanted)
        args.wrong_usage(f"plot {args.kind}: expected {names}, found {len(args.files)} files")
    reads = [Input(path, kind) for path, (_, kind) in zip(args.files, wanted, strict=False)]
    return Files(reads, [args.output])


def run(args: Namespace) -> Result:
    """Draw the figure."""
    import matplotlib as mpl

    mpl.use("Agg")
    from scdeconv import pl

    read = KINDS[args.kind][0]
    drawn = getattr(pl, args.kind)(read(*args.files), **dict(args.arguments))
    figure = (drawn.flat[0] if hasattr(drawn, "flat") else drawn).figure
    return Result({args.output: partial(pl.save_figure, figure, form=args.output.suffix[1:], dpi=args.dpi)})
