"""Search of hyperparameters on held-out donors."""

from __future__ import annotations

from .nested import fit_or_tune
from .search import Tuning, tune
