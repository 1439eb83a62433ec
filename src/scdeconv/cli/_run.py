"""The way of every command: check inputs and outputs, compute, write all files together, report."""

from __future__ import annotations

import json
import platform
import sys
import time
import warnings
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from scdeconv._version import __version__

from ._inputs import Input, check_inputs
from ._options import is_printed
from ._parser import command_module

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

# libraries whose version is in the summary, and their packages
LIBRARIES = {name: name for name in ("numpy", "pandas", "scipy", "anndata", "mudata", "torch")} | {
    "sklearn": "scikit-learn"
}


class Files(NamedTuple):
    """Files of a command, known before it computes.

    Parameters
    ----------
    reads
        Inputs, with what they must be.
    writes
        Outputs that are always written.
    sides
        Outputs beside them that are written if the result has them; those of an earlier run are removed otherwise.
    """

    reads: Sequence[Input] = ()
    writes: Sequence[Path] = ()
    sides: Sequence[Path] = ()


class Result(NamedTuple):
    """What a command returns.

    Parameters
    ----------
    files
        Function that writes each output file, by path. All files appear together.
    table
        Table for the standard output; ``printed`` is text in its place.
    counts
        Numbers for the summary, such as the number of samples.
    complete
        Whether the computation was not interrupted.
    """

    files: Mapping[Path, Callable[[Path], Any]] = {}
    table: pd.DataFrame | None = None
    printed: str = ""
    counts: Mapping[str, int] = {}
    complete: bool = True


def carry_out(args: Namespace) -> bool:
    """Run a command; return False if it was interrupted and its results so far were written."""
    from ._outputs import claim

    start = time.perf_counter()
    command = command_module(args.command)
    files: Files = command.files(args)
    check_inputs(files.reads)
    claim([*files.writes, *files.sides], force=getattr(args, "force", False))
    summary: dict[str, Any] = {
        "command": args.command,
        "version": __version__,
        "inputs": [str(item.path) for item in files.reads],
        "outputs": [str(path) for path in files.writes],
        "seed": getattr(args, "seed", None),
        "arguments": dict(getattr(args, "arguments", [])),
    }
    if getattr(args, "dry_run", False):
        _say_plan(files, summary, as_json=args.json)
        return True
    data_on_stdout = args.json or is_printed(args)
    with _kept_warnings() as said, redirect_stdout(_Log()) if data_on_stdout else nullcontext():
        result: Result = command.run(args)
        publish(result.files, files.sides)
    if args.json:
        table = None if result.table is None else json.loads(result.table.reset_index().to_json(orient="records"))
        summary |= {
            "outputs": list(dict.fromkeys([*summary["outputs"], *map(str, result.files)])),
            "counts": result.counts,
            "complete": result.complete,
            "warnings": said,
            "seconds": round(time.perf_counter() - start, 3),
            "versions": _versions(),
            **({} if table is None else {"result": table}),
            **({"printed": result.printed} if result.printed else {}),
        }
        print(json.dumps(summary, ensure_ascii=False))
    elif result.table is not None:
        print(_as_text(result.table), end="")
    elif result.printed:
        print(result.printed)
    return result.complete


def publish(files: Mapping[Path, Callable[[Path], Any]], sides: Sequence[Path]) -> None:
    """Write all files, then give them their names; remove files of an earlier result that this one does not have."""
    from ._outputs import replacing

    with ExitStack() as stack:
        for path, write in files.items():
            write(stack.enter_context(replacing(path)))
    for path in sides:
        if path not in files:
            path.unlink(missing_ok=True)


def _say_plan(files: Files, summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**summary, "dry_run": True}, ensure_ascii=False))
        return
    for item in files.reads:
        print(f"would read {item.path}")
    for path in files.writes:
        print(f"would write {path}")
    if files.sides:
        print(f"would write, if the result has them: {', '.join(str(path) for path in files.sides)}")


def _as_text(table: pd.DataFrame) -> str:
    """Return a table with tabs, or aligned in a terminal."""
    if sys.stdout.isatty():
        return f"{table.to_string(na_rep='', float_format='{:.4g}'.format)}\n"
    return str(table.to_csv(sep="\t", float_format="%.6g"))


@contextmanager
def _kept_warnings() -> Iterator[list[str]]:
    """Yield a list to which warnings are added when they are shown."""
    said: list[str] = []
    show = warnings.showwarning

    def show_and_keep(message: Warning | str, *rest: Any, **options: Any) -> None:
        said.append(str(message))
        show(message, *rest, **options)

    warnings.showwarning = show_and_keep
    try:
        yield said
    finally:
        warnings.showwarning = show


class _Log:
    """Writes lines to stderr with the time in front."""

    def __init__(self) -> None:
        self.line = ""

    def write(self, text: str) -> int:
        """Write the completed lines."""
        *lines, self.line = (self.line + text).split("\n")
        for line in lines:
            print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr)
        return len(text)

    def flush(self) -> None:
        """Flush stderr."""
        sys.stderr.flush()


def _versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that the command has used."""
    loaded = {name: version(package) for name, package in LIBRARIES.items() if name in sys.modules}
    return {"python": platform.python_version(), **loaded}
