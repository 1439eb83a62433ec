"""Deconvolution methods, one file each, all with the same face; trained by :func:`scdeconv.tl.train`.

The neural classes need torch and scvi-tools, which take seconds to import, so each class is loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from scdeconv._stats.conformal import HeldOut
from scdeconv._stats.least_squares import solve_nonnegative

from ._base import DeconvolutionModel

if TYPE_CHECKING:
    from ._bayesprism import BayesPrism
    from ._bisque import Bisque
    from ._bseqsc import BSEQsc
    from ._calibrated_nnls import CalibratedNNLS
    from ._cibersort import CIBERSORT
    from ._cibersortx import CIBERSORTx
    from ._dwls import DWLS
    from ._mean_composition import MeanComposition
    from ._music import MuSiC
    from ._nnls import NNLS
    from ._nonnegative_ridge import NonNegativeRidge
    from ._ridge import Ridge, SimulationRidge
    from ._robust_nnls import RobustNNLS
    from ._robust_regression import RobustRegression
    from ._scaden import Scaden
    from ._simplednn import SimpleDNN
    from ._weighted_ensemble import WeightedEnsemble

_MODULES = {
    "BSEQsc": "_bseqsc",
    "BayesPrism": "_bayesprism",
    "Bisque": "_bisque",
    "CalibratedNNLS": "_calibrated_nnls",
    "CIBERSORT": "_cibersort",
    "CIBERSORTx": "_cibersortx",
    "DWLS": "_dwls",
    "MeanComposition": "_mean_composition",
    "MuSiC": "_music",
    "NNLS": "_nnls",
    "NonNegativeRidge": "_nonnegative_ridge",
    "Ridge": "_ridge",
    "RobustNNLS": "_robust_nnls",
    "RobustRegression": "_robust_regression",
    "Scaden": "_scaden",
    "SimpleDNN": "_simplednn",
    "SimulationRidge": "_ridge",
    "WeightedEnsemble": "_weighted_ensemble",
}

__all__ = [
    "CIBERSORT",
    "DWLS",
    "NNLS",
    "BSEQsc",
    "BayesPrism",
    "Bisque",
    "CIBERSORTx",
    "CalibratedNNLS",
    "DeconvolutionModel",
    "HeldOut",
    "MeanComposition",
    "MuSiC",
    "NonNegativeRidge",
    "Ridge",
    "RobustNNLS",
    "RobustRegression",
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
