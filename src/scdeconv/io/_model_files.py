"""Model files: a directory with ``weights.npz`` (arrays) and ``model.json`` (all other state), without pickled code."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from scdeconv._data.checks import examples
from scdeconv._data.files import clear_leftovers, is_hidden, publishing, resolved
from scdeconv._data.warnings import warn
from scdeconv._version import __version__

from ._plain import to_plain

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Mapping

DESCRIPTION = "model.json"
WEIGHTS = "weights.npz"
# increased with each incompatible change of the files; format 1 had no number
FORMAT_VERSION = 3
# a process that saves over a model again and again changes it during each read
READ_ATTEMPTS = 20
SAVE_AGAIN = "Copy both model files again, or train and save the model again."


def write_model(
    dir_path: str | os.PathLike[str], class_name: str, parts: Mapping[str, Any], *, overwrite: bool
) -> None:
    """Write a model; its two files are published together, so that a failure keeps an earlier model.

    Parameters
    ----------
    dir_path
        Directory of the model.
    class_name
        Class of the model.
    parts
        Parts of the model by name: plain values, arrays and dataclasses of them.
    overwrite
        Replace a saved model.

    Raises
    ------
    FileExistsError
        If the directory exists and ``overwrite`` is False, or if it contains other files.
    """
    target = resolved(dir_path)
    check_model_target(target, overwrite=overwrite)
    arrays: dict[str, np.ndarray] = {}
    content = {name: to_plain(part, name, arrays) for name, part in parts.items()}
    description = {
        "class": class_name,
        "format": FORMAT_VERSION,
        "version": __version__,
        **content,
        "arrays": {name: _kind(array) for name, array in arrays.items()},
    }
    if not target.exists():
        try:
            with publishing(target) as (new,):
                new.mkdir()
                _write_files(arrays, description, new / WEIGHTS, new / DESCRIPTION)
        except FileExistsError:
            # another process saved a model meanwhile
            if not overwrite:
                raise
        else:
            return
    with publishing(target / WEIGHTS, target / DESCRIPTION) as new_files:
        _write_files(arrays, description, *new_files)


def check_model_target(target: Path, *, overwrite: bool) -> None:
    """Raise ``FileExistsError`` if a model cannot be written to a directory."""
    files = [path for path in (target, *target.parents) if path.is_file()]
    if files:
        msg = f"Expected a directory for the model at {target}, found the file {files[0]}. Choose another directory."
        raise FileExistsError(msg)
    if not target.exists():
        return
    clear_leftovers(target)
    if not overwrite:
        msg = f"Expected no directory at {target}, found one. Pass overwrite=True or choose another directory."
        raise FileExistsError(msg)
    others = sorted(
        item.name for item in target.iterdir() if item.name not in (DESCRIPTION, WEIGHTS) and not is_hidden(item.name)
    )
    if others:
        msg = (
            f"Expected only a saved model in {target}, found other files: {examples(others)}. Choose another directory."
        )
        raise FileExistsError(msg)


def _write_files(
    arrays: Mapping[str, np.ndarray], description: Mapping[str, Any], weights: Path, description_file: Path
) -> None:
    np.savez(weights, **arrays)  # type: ignore[arg-type]
    content = {**description, "weights_sha256": _hash_of_file(weights)}
    content["sha256"] = _hash_of(content)
    description_file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_model(
    dir_path: str | os.PathLike[str], class_name: str, parts: Collection[str]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the parts of a saved model as plain values, and its arrays.

    Raises
    ------
    FileNotFoundError
        If there is no model.
    ValueError
        If the model is of another class or format, or if its files were changed or do not match.
    """
    path = Path(dir_path)
    for _ in range(READ_ATTEMPTS):
        before = _content_of(path / DESCRIPTION)
        try:
            return _read_once(path, class_name, parts)
        except (ValueError, OSError):
            # another process may have saved a model between the reads of the two files
            if _content_of(path / DESCRIPTION) == before:
                raise
    return _read_once(path, class_name, parts)


def _read_once(path: Path, class_name: str, parts: Collection[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    description = read_description(path)
    if description["class"] != class_name:
        msg = (
            f"Expected a saved {class_name} in {path}, found {description['class']}. Call {description['class']}.load."
        )
        raise ValueError(msg)
    if _numbers_of(description.get("version")) > _numbers_of(__version__):
        warn(
            f"Expected a model of scdeconv {__version__} or older in {path}, found one of {description['version']}. Its "
            "format is known, but predictions may differ. Update scdeconv."
        )
    if not (path / WEIGHTS).is_file():
        msg = f"Expected a saved model with {WEIGHTS} in {path}, found none. {SAVE_AGAIN}"
        raise FileNotFoundError(msg)
    expected = {"class", "format", "version", *parts, "arrays", "weights_sha256"}
    if set(description) != expected:
        msg = (
            f"Expected the fields {sorted(expected)} in {path / DESCRIPTION}, found {sorted(description)}. {SAVE_AGAIN}"
        )
        raise ValueError(msg)
    with (path / WEIGHTS).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != description["weights_sha256"]:
            msg = f"Expected a {WEIGHTS} that matches {DESCRIPTION} in {path}, found another file. {SAVE_AGAIN}"
            raise ValueError(msg)
        file.seek(0)
        arrays = _read_arrays(file, path / WEIGHTS)
    found, listed = {name: _kind(array) for name, array in arrays.items()}, description["arrays"]
    if not isinstance(listed, dict):
        msg = f"Expected a list of arrays in {path / DESCRIPTION}, found {type(listed).__name__}. {SAVE_AGAIN}"
        raise ValueError(msg)
    if found != listed:
        different = sorted(name for name in found | listed if found.get(name) != listed.get(name))
        msg = (
            f"Expected the arrays listed in {DESCRIPTION} in {path}, found differences in {examples(different)}. "
            f"{SAVE_AGAIN}"
        )
        raise ValueError(msg)
    return description, arrays


def _content_of(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _read_arrays(file: BinaryIO, path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the file by name; pickled arrays are refused."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    # damaged archives raise different errors in zipfile, zlib and NumPy
    except Exception as error:
        msg = f"Expected arrays of numbers or text in {path}, found an unreadable file: {error}. {SAVE_AGAIN}"
        raise ValueError(msg) from error


def read_description(dir_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of ``model.json`` after checks of its format and hash."""
    path = Path(dir_path) / DESCRIPTION
    if not path.is_file():
        msg = f"Expected a saved model with {DESCRIPTION} in {dir_path}, found none. Check the path."
        raise FileNotFoundError(msg)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        msg = f"Expected a model description in {path}, found invalid JSON: {error}. {SAVE_AGAIN}"
        raise ValueError(msg) from None
    if not isinstance(content, dict) or not isinstance(content.get("class"), str):
        msg = f"Expected a model description in {path}, found other JSON. {SAVE_AGAIN}"
        raise ValueError(msg)
    saved_as = content.get("format", 1)
    if saved_as != FORMAT_VERSION:
        newer = isinstance(saved_as, int) and saved_as > FORMAT_VERSION
        advice = "Update scdeconv" if newer else "Train and save the model again with this version"
        msg = (
            f"Expected a model of format {FORMAT_VERSION} in {dir_path}, found format {saved_as}, written by scdeconv "
            f"{content.get('version')}. {advice}."
        )
        raise ValueError(msg)
    expected = content.pop("sha256", None)
    if _hash_of(content) != expected:
        msg = f"Expected an unchanged {path}, found a modified file. {SAVE_AGAIN}"
        raise ValueError(msg)
    return content


def _numbers_of(version: Any) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(version))[:3]]


def _kind(array: np.ndarray) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": array.dtype.str}


def _hash_of(description: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _hash_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
