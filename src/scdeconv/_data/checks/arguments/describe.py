"""Description of the user's objects in messages."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

# longest text of a value in a message
MAX_LENGTH = 60


def is_model(value: object) -> bool:
    """Return whether a value is a model of this package, trained or not; classes are not."""
    return not isinstance(value, type) and hasattr(type(value), "is_trained_")


def describe(value: Any) -> str:
    """Return what a value is: ``a DataFrame of 12 × 300``, ``a trained NNLS``, ``'x'``."""
    if isinstance(value, MuData):
        return f"a MuData of {', '.join(map(str, value.mod)) or 'nothing'}"
    if isinstance(value, (AnnData, pd.DataFrame)):
        return f"{_with_article(type(value).__name__)} of {value.shape[0]} × {value.shape[1]}"
    if isinstance(value, pd.Series):
        return f"a Series of {len(value)}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if is_model(value):
        return f"{'a trained' if value.is_trained_ else 'an untrained'} {type(value).__name__}"
    if isinstance(value, os.PathLike):
        return f"the path {str(value)!r}"
    if value is None or isinstance(value, (bool, int, float, complex)):
        return repr(value)
    if isinstance(value, str):
        return repr(value if len(value) <= MAX_LENGTH else f"{value[:MAX_LENGTH]}…")
    if isinstance(value, (list, tuple, set, frozenset, Mapping)):
        plain = all(isinstance(item, (str, int, float, type(None))) for item in value)
        if plain and not isinstance(value, Mapping) and len(repr(value)) <= MAX_LENGTH:
            return repr(value)
        return f"{_with_article(type(value).__name__)} of {len(value)}"
    of = f" of {len(value)}" if isinstance(value, Collection) else ""
    return f"{_with_article(type(value).__name__)}{of}"


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"
