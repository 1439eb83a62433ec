"""The way of every command: check inputs and outputs, compute, write all files together, report."""

from __future__ import annotations

import json
import sys
import time
import warnings
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any, NamedTuple

from scdeconv._data.files import publishing
from scdeconv._process import interrupts_ignored, loaded_versions, received_interrupt
from scdeconv._version import __version__

from ._inputs import Input, input_problems
from ._options import is_printed
from ._parser import command_module

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd


class Files(NamedTuple):
    """Files of a command, known before it computes.

    Parameters
    ----------
    reads
        Inputs, with what they must be.
    writes
        Outputs that the user names.
    tables
        Tables beside the first of them that are always written.
    sides
        Tables beside it that are written if the result has them; those of an earlier run are removed otherwise.
    saves
        Folders of models.
    """

    reads: Sequence[Input] = ()
    writes: Sequence[Path] = ()
    tables: Sequence[Path] = ()
    sides: Sequence[Path] = ()
    saves: Sequence[Path] = ()


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
    saves
        Function that saves each model, by path.
    """

    files: Mapping[Path, Callable[[Path], Any]] = {}
    table: pd.DataFrame | None = None
    printed: str = ""
    counts: Mapping[str, int] = {}
    complete: bool = True
    saves: Mapping[Path, Callable[[Path], Any]] = {}


def carry_out(args: Namespace) -> bool:
    """Run a command; return False if it was interrupted and its results so far were written."""
    from ._outputs import output_problems

    start = time.perf_counter()
    command = command_module(args.command)
    files: Files = command.files(args)
    force = getattr(args, "force", False)
    problems = [*input_problems(files.reads), *output_problems(files, force=force)]
    raise_together(problems)
    summary: dict[str, Any] = {
        "command": args.command,
        "version": __version__,
        "inputs": [str(item.path) for item in files.reads],
        "outputs": [str(path) for path in (*files.saves, *files.writes, *files.tables)],
        "seed": getattr(args, "seed", None),
        "arguments": dict(getattr(args, "arguments", [])),
    }
    if getattr(args, "dry_run", False):
        _say_plan(files, summary, as_json=args.json)
        return True
    data_on_stdout = args.json or is_printed(args)
    with _kept_warnings() as said, redirect_stdout(_Log()) if data_on_stdout else nullcontext():
        result: Result = command.run(args)
        # a signal that the computation has handled
        result = result._replace(complete=result.complete and not received_interrupt())
        written = write_result(result, files, force=force)
    if args.json:
        table = None if result.table is None else json.loads(result.table.reset_index().to_json(orient="records"))
        summary |= {
            "outputs": [str(path) for path in written],
            "counts": result.counts,
            "complete": result.complete,
            "warnings": said,
            "seconds": round(time.perf_counter() - start, 3),
            "versions": loaded_versions(),
            **({} if table is None else {"result": table}),
            **({"printed": result.printed} if result.printed else {}),
        }
        print(json.dumps(summary, ensure_ascii=False))
    elif result.table is not None:
        print(_as_text(result.table), end="")
    elif result.printed:
        print(result.printed)
    return result.complete


def raise_together(problems: Sequence[str]) -> None:
    """Raise one error for all problems of the files."""
    if len(problems) == 1:
        raise OSError(problems[0])
    from scdeconv._data.checks import Problems

    collected = Problems("The files cannot be used")
    collected.messages = list(problems)
    collected.raise_if_any()


def write_result(result: Result, files: Files, *, force: bool) -> list[Path]:
    """Write all files and give them their names together; return the paths.

    The result of an interrupted computation does not replace an earlier one: it is written beside it.
    """
    from scdeconv._data.warnings import warn

    from ._outputs import free_names, is_of_earlier_run, written_to

    main = next(iter(files.writes), None)
    beside_main = [path for path in files.sides if path.exists()]
    own = [path for path in beside_main if main is not None and is_of_earlier_run(path, main)]
    new = {path: write for path, write in result.files.items() if path in own or path not in beside_main}
    for path in result.files.keys() - new.keys():
        warn(f"Expected nothing or the table of an earlier run at {path}, found another file, which is kept.")
    saves, obsolete = result.saves, [path for path in own if path not in new]
    if not result.complete and any(path.exists() for path in (*new, *saves)):
        names = dict(zip((*new, *saves), free_names([*new, *saves]), strict=True))
        new, saves = ({names[path]: write for path, write in group.items()} for group in (new, saves))
        obsolete = []
    with ExitStack() as last_step:
        with publishing(*new, obsolete=obsolete, overwrite=force) as temporary:
            for path, place, write in zip(new, temporary, new.values(), strict=True):
                with written_to(path):
                    write(place)
            last_step.enter_context(interrupts_ignored())
        for path, save in saves.items():
            save(path)
    for path in (*saves, *new):
        print(f"wrote {path}")
    for path in obsolete:
        print(f"removed {path} of an earlier run")
    return [*saves, *new]


def _say_plan(files: Files, summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**summary, "dry_run": True}, ensure_ascii=False))
        return
    for item in files.reads:
        print(f"would read {item.path}")
    for path in (*files.saves, *files.writes, *files.tables):
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
