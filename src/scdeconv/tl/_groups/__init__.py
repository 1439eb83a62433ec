"""Comparison of samples by columns of ``obs``: groups, continuous variables and covariates."""

from __future__ import annotations

from .compare_fractions import compare_fractions
from .differential_expression import differential_expression
from .group_expression import group_expression
