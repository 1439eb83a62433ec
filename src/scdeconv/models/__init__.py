"""Deconvolution methods, one file each; trained by :func:`scdeconv.tl.train`.

The neural classes need torch and scvi-tools, which take seconds to import, so each class is loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

from scdeconv._data.paired_data import PairedData
from scdeconv._stats.conformal import HeldOut
from scdeconv._stats.least_squares import solve_nonnegative

from ._base import DeconvolutionModel
from ._cross_fitted import CrossFittedModel
from ._needs import check_needs, methods_without_reference, missing_needs
from ._record import Method
from ._registry import (
    MethodLike,
    built_in_methods,
    class_modules,
    get_record,
    load_class,
    load_model,
    records,
    register,
    resolve,
)
from ._state import Estimate, State

OTHERS = (
    "CrossFittedModel",
    "DeconvolutionModel",
    "Estimate",
    "HeldOut",
    "Method",
    "PairedData",
    "State",
    "load_model",
    "register",
)
# other imported names are private to the package
__all__ = sorted([*class_modules(), *OTHERS])


def __getattr__(name: str) -> Any:
    modules = class_modules()
    if name in modules:
        return getattr(importlib.import_module(modules[name]), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
