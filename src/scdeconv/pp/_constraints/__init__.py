"""Constraints for clustering of cells."""

from __future__ import annotations

from .constraints import Constraints
from .inputs import read_markers
from .make import constraints
