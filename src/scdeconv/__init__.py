"""Estimate cell-type fractions of bulk RNA-seq with methods trained on matched bulk and single-cell samples."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import clustering, datasets, io, metrics, models, pl, pp, tl
    from .io import read_bulk, read_cells
    from .models import load_model

__all__ = [
    *("clustering", "datasets", "io", "load_model", "metrics", "models", "pl", "pp", "read_bulk", "read_cells", "tl")
]


def __getattr__(name: str) -> Any:
    # lazy import: torch, scvi-tools and scanpy take seconds to load
    if name in ("read_bulk", "read_cells"):
        return getattr(importlib.import_module(f"{__name__}.io"), name)
    if name == "load_model":
        return importlib.import_module(f"{__name__}.models").load_model
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
