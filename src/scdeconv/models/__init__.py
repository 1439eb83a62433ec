"""Deconvolution methods, one file each, all with the same face; trained by :func:`scdeconv.tl.train`.

The neural classes need torch and scvi-tools, which take seconds to import, so each class is loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._base import DeconvolutionModel
from ._intervals import HeldOut

if TYPE_CHECKING:
    from ._bisque import Bisque
    from ._calibrated_nnls import CalibratedNNLS
    from ._mean_composition import MeanComposition
    from ._nnls import NNLS
    from ._ridge import Ridge, SimulationRidge
    from ._scaden import Scaden
    from ._simplednn import SimpleDNN
    from ._weighted_ensemble import WeightedEnsemble

_MODULES = {
    "Bisque": "_bisque",
    "CalibratedNNLS": "_calibrated_nnls",
    "MeanComposition": "_mean_composition",
    "NNLS": "_nnls",
    "Ridge": "_ridge",
    "Scaden": "_scaden",
    "SimpleDNN": "_simplednn",
    "SimulationRidge": "_ridge",
    "WeightedEnsemble": "_weighted_ensemble",
}

__all__ = [
    "NNLS",
    "Bisque",
    "CalibratedNNLS",
    "DeconvolutionModel",
    "HeldOut",
    "MeanComposition",
    "Ridge",
    "Scaden",
    "SimpleDNN",
    "SimulationRidge",
    "WeightedEnsemble",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
