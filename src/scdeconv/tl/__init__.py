"""Training, prediction and evaluation on held-out donors."""

from __future__ import annotations

from ._benchmark import benchmark, cross_validate
from ._cluster import cluster
from ._cohorts import validate
from ._convert import convert_fractions
from ._evaluate import evaluate
from ._expression import expression
from ._groups import compare_fractions, differential_expression, group_expression
from ._merge_types import merge_types
from ._methods import methods
from ._name_clusters import name_clusters
from ._predict import predict, record_of
from ._reference_fit import reference_fit
from ._train import default_method, train
from ._tuning import Tuning, tune

# other imports above are internal
__all__ = [
    "Tuning",
    "benchmark",
    "cluster",
    "compare_fractions",
    "convert_fractions",
    "cross_validate",
    "default_method",
    "differential_expression",
    "evaluate",
    "group_expression",
    "expression",
    "merge_types",
    "methods",
    "name_clusters",
    "predict",
    "reference_fit",
    "train",
    "tune",
    "validate",
]
