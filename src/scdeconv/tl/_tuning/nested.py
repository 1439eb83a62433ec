"""A model with given arguments, or tuned on its training data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scdeconv.tl._train import fit_method

from .search import tune as tune_method

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mudata import MuData

    from scdeconv.models import DeconvolutionModel, MethodLike


def fit_or_tune(
    training: MuData,
    method: MethodLike,
    arguments: Mapping[str, Any],
    tune: Mapping[str, Any] | None,
    seed: int,
    **kwargs: Any,
) -> DeconvolutionModel:
    """Return a model trained with ``arguments``, or the model of :func:`scdeconv.tl.tune` with ``tune`` and ``kwargs``."""
    if tune is None:
        return fit_method(training, method, dict(arguments))
    tuning = tune_method(training, method, seed=seed, **tune, **kwargs)
    if tuning.interrupted:
        raise KeyboardInterrupt
    return tuning.model
