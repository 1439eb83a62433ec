"""What anndata and mudata warn of on their own account."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def dependency_deprecations_ignored() -> Iterator[None]:
    """Ignore deprecations while code of anndata or mudata runs.

    anndata 0.13 and mudata 0.4 call parts of pandas that pandas 3.1 deprecates whenever an AnnData is made or subset and
    a MuData is made or written (``mode.chained_assignment``, ``future.infer_string``, ``inplace``). The caller can do
    nothing about it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield
