"""Search of hyperparameters on held-out donors."""

from __future__ import annotations

from .search import Tuning, tune
