"""Deconvolution methods, one file each, all with the same face; trained by :func:`scdeconv.tl.train`.

The neural classes need torch and scvi-tools, which take seconds to import, so each class is loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._base import DeconvolutionModel

if TYPE_CHECKING:
    from ._mean_composition import MeanComposition
    from ._nnls import NNLS
    from ._scaden import Scaden
    from ._simplednn import SimpleDNN

_MODULES = {"MeanComposition": "_mean_composition", "NNLS": "_nnls", "Scaden": "_scaden", "SimpleDNN": "_simplednn"}

__all__ = ["NNLS", "DeconvolutionModel", "MeanComposition", "Scaden", "SimpleDNN"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
