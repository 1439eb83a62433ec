"""Models of unlabelled single cells: clustering and embeddings; used by :func:`scdeconv.tl.cluster`.

Each class is imported when first used, because torch and scvi-tools take seconds to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._base import CellModel
    from ._clustering_model import ClusteringModel
    from ._desc import DESC
    from ._scdcc import ScDCC
    from ._scdeepcluster import ScDeepCluster
    from ._scgen import ScGen
    from ._scvis import Scvis

_MODULES = {
    "CellModel": "_base",
    "ClusteringModel": "_clustering_model",
    "DESC": "_desc",
    "ScDCC": "_scdcc",
    "ScDeepCluster": "_scdeepcluster",
    "ScGen": "_scgen",
    "Scvis": "_scvis",
}

__all__ = ["DESC", "CellModel", "ClusteringModel", "ScDCC", "ScDeepCluster", "ScGen", "Scvis"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
