"""Models on disk: a directory with ``weights.npz`` (arrays) and ``model.json`` (everything else); nothing executes."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdeconv._data.validation import examples
from scdeconv._version import __version__

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

DESCRIPTION = "model.json"
WEIGHTS = "weights.npz"


def write_model(
    dir_path: str | os.PathLike[str],
    class_name: str,
    description: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    overwrite: bool,
) -> None:
    """Write a model to a directory, beside its place first, so that a failure leaves an earlier model as it was."""
    target = Path(dir_path)
    if target.exists() and not overwrite:
        msg = f"Expected no directory at {target}, found one. Pass overwrite=True or choose another."
        raise FileExistsError(msg)
    others = [item.name for item in target.iterdir()] if target.exists() else []
    others = sorted(set(others) - {DESCRIPTION, WEIGHTS})
    if others:
        msg = f"Expected nothing but a saved model in {target}, found {examples(others)}. Choose another directory."
        raise FileExistsError(msg)
    target.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        new = workplace / "new"
        new.mkdir()
        np.savez(new / WEIGHTS, **arrays)  # type: ignore[arg-type]
        content = {"class": class_name, "version": __version__, **description}
        (new / DESCRIPTION).write_text(json.dumps(content, indent=1, default=np.generic.item))
        if target.exists():
            target.rename(workplace / "old")
        try:
            new.rename(target)
        except OSError:
            (workplace / "old").rename(target)
            raise
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def read_model(dir_path: str | os.PathLike[str], class_name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the description and the arrays that :func:`write_model` wrote for a model of this class."""
    path = Path(dir_path)
    description = _describe(path)
    if description["class"] != class_name:
        msg = f"Expected a saved {class_name} in {path}, found {description['class']}. Use that class's load."
        raise ValueError(msg)
    with np.load(path / WEIGHTS, allow_pickle=False) as file:
        return description, dict(file)


def class_of_model(dir_path: str | os.PathLike[str]) -> str:
    """Return the name of the class of a saved model."""
    return str(_describe(Path(dir_path))["class"])


def _describe(path: Path) -> dict[str, Any]:
    if not (path / DESCRIPTION).exists():
        msg = f"Expected a saved model with {DESCRIPTION} in {path}, found none."
        raise FileNotFoundError(msg)
    content: dict[str, Any] = json.loads((path / DESCRIPTION).read_text())
    return content


def curves_to_plain(history: Mapping[str, pd.DataFrame] | None) -> dict[str, dict[str, list[float]]]:
    """Return losses by epoch as plain lists."""
    return {
        name: {"epoch": frame.index.tolist(), "value": frame[name].tolist()} for name, frame in (history or {}).items()
    }


def curves_from_plain(curves: Mapping[str, Mapping[str, list[float]]]) -> dict[str, pd.DataFrame] | None:
    """Return what :func:`curves_to_plain` was given."""
    return {
        name: pd.DataFrame({name: curve["value"]}, index=pd.Index(curve["epoch"], name="epoch"))
        for name, curve in curves.items()
    } or None
