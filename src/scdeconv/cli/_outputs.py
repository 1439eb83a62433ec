"""Output files of the commands: checks before the computation, names, and tables."""

from __future__ import annotations

import atexit
import csv
import gzip
import hashlib
import os
import re
import sys
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from scdeconv._data.checks import examples
from scdeconv._data.files import resolved, try_writing
from scdeconv.io import check_model_target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pandas as pd

    from ._run import Files

MAX_NAME_BYTES = 255


def output_problems(files: Files, *, force: bool) -> Iterator[str]:
    """Yield what would keep a command from writing its outputs.

    Parameters
    ----------
    files
        Files of the command.
    force
        Overwrite the named outputs, and tables of an earlier run beside them.
    """
    there: list[str] = []
    possible: dict[Path, Path] = {}
    for path in (*files.saves, *files.writes, *files.tables, *files.sides):
        # a path component that is a file, or a loop of links
        try:
            target = resolved(path)
            problem = _problem_of_place(path, target, files)
            if target in possible:
                problem = f"Expected different files, found one behind {path} and {possible[target]}. Remove a link."
        except OSError as error:
            problem = _not_writable(path, error)
        if problem:
            yield problem
            continue
        possible[target] = path
        if target.exists() and not force:
            there.append(str(path))
        elif path in files.tables and target.exists() and not is_of_earlier_run(path, files.writes[0]):
            yield (
                f"Expected nothing or the table of an earlier run at {path}, found another file. --force overwrites "
                "only what -o names and what an earlier run wrote beside it. Move the file, or choose another -o."
            )
    yield from (_not_writable(possible[target], error) for target, error in try_writing(list(possible)).items())
    if there:
        yield f"Expected no existing output, found {examples(there)}. Add --force to overwrite it."


def _problem_of_place(path: Path, target: Path, files: Files) -> str | None:
    """Return why no file or model can be at a place."""
    parents = [parent for parent in target.parents if parent.is_file()]
    stores = [parent for parent in target.parents if _is_one_result(parent)]
    if path.name in ("", ".."):
        return f"Expected a name in -o, found {str(path)!r}. Name a new folder in it."
    if any(_is_same(target, item.path) for item in files.reads):
        return f"Expected an output beside the inputs, found the input {path} in -o. Choose another name."
    if parents:
        return f"Expected a directory at {parents[0]}, found a file. Choose another folder for {path}."
    if stores:
        return f"Expected {path} outside saved models and zarr, found it in {stores[0]}. Choose another folder."
    if path in files.saves:
        try:
            check_model_target(target, overwrite=True)
        except FileExistsError as error:
            return str(error)
    elif target.is_dir():
        return f"Expected a file or nothing at {path}, found a directory. Choose another name."
    elif target.exists() and not target.is_file():
        return f"Expected a file or nothing at {path}, found a device or pipe. Choose another name."
    return None


def _not_writable(path: Path, error: OSError) -> str:
    return f"Expected to write {path}, found: {error.strerror}. Choose another name or folder, or free disk space."


def _is_one_result(folder: Path) -> bool:
    """Return whether a folder is a saved model or a zarr store."""
    return any(
        all((folder / name).is_file() for name in names)
        for names in (("model.json", "weights.npz"), (".zgroup",), ("zarr.json",))
    )


def _is_same(target: Path, read: Path) -> bool:
    # an input may be missing, and is then reported on its own
    with suppress(OSError):
        return target.samefile(read)
    return False


def is_of_earlier_run(side: Path, main: Path) -> bool:
    """Return whether a table beside an output is of the same run: it has a row for each of its samples or cells."""
    try:
        rows = _first_column(side)
        return bool(rows) and rows in _names_of(main)
    except (OSError, EOFError, KeyError, ValueError, csv.Error):
        return False


def _names_of(main: Path) -> list[list[str]]:
    """Return the names of the rows, and those of the columns, of an output."""
    if main.suffix == ".h5ad":
        import h5py

        with h5py.File(main) as file:
            names = file["obs"][file["obs"].attrs["_index"]]
            return [[name.decode() for name in names[:]]]
    with _opened(main) as lines:
        header = next(csv.reader(lines, delimiter=_separator(main)), [])
    return [_first_column(main), header[1:]]


def _first_column(path: Path) -> list[str]:
    with _opened(path) as lines:
        return [row[0] for row in csv.reader(lines, delimiter=_separator(path)) if row][1:]


def _opened(path: Path) -> Any:
    return (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="")


@contextmanager
def written_to(path: Path) -> Iterator[None]:
    """Raise one short error if a file cannot be written; HDF5 explains a full disk in many lines, also when it closes."""
    shown = sys.unraisablehook, sys.excepthook
    sys.unraisablehook, sys.excepthook = (lambda _: None), (lambda *_: None)
    try:
        yield
    except (OSError, RuntimeError) as error:
        code = getattr(error, "errno", None)
        if code is None:
            code = next(map(int, re.findall(r"errno = (\d+)", str(error))), None)
            if code is None:
                raise
            # close the file now, without messages; at the end of the process, HDF5 would crash
            traceback.clear_frames(error.__traceback__)
            atexit.register(_end_process)
        msg = f"Expected to write {path}, found: {os.strerror(code)}. Earlier output is unchanged. Free disk space."
        raise OSError(msg) from error
    finally:
        sys.unraisablehook, sys.excepthook = shown


def _end_process() -> None:
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(1)


def beside(path: Path, side: str) -> Path:
    """Return 'fractions_lower.tsv.gz' for 'fractions.tsv.gz'. Names that are too long are shortened, with a hash."""
    name = path.name.removesuffix(".gz")
    ending = f".{name.rpartition('.')[2]}" if "." in name else ""
    stem = name.removesuffix(ending)
    tail = f"_{side}{ending}{path.name.removeprefix(name)}"
    if len(f"{stem}{tail}".encode()) > MAX_NAME_BYTES:
        tail = f"-{hashlib.sha256(stem.encode()).hexdigest()[:8]}{tail}"
        stem = stem.encode()[: MAX_NAME_BYTES - len(tail.encode())].decode(errors="ignore")
    return path.with_name(f"{stem}{tail}")


def free_names(paths: Sequence[Path], side: str = "interrupted") -> list[Path]:
    """Return names beside the paths at which nothing is."""
    number, names = 1, [beside(path, side) for path in paths]
    while any(name.exists() for name in names):
        number += 1
        names = [beside(path, f"{side}{number}") for path in paths]
    return names


def _separator(path: Path) -> str:
    return "\t" if ".tsv" in path.suffixes else ","


def write_table(table: pd.DataFrame, path: Path, **options: Any) -> None:
    """Write a table with six digits: tabs for .tsv, commas for .csv, gzip for .gz."""
    table.to_csv(path, sep=_separator(path), float_format="%.6g", **options)
