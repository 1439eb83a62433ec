"""Training on one cohort and test on another one."""

from __future__ import annotations

from .score import prepare_cohorts, score_other_cohort, validate
