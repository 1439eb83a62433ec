"""Training, prediction and honest evaluation."""

from __future__ import annotations

from ._benchmark import benchmark, cross_validate
from ._methods import methods
from ._predict import evaluate, predict
from ._train import train

__all__ = ["benchmark", "cross_validate", "evaluate", "methods", "predict", "train"]
