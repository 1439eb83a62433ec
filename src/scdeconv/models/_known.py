"""Known fractions of samples to predict: their use in an estimate, and warnings about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv._data.checks import SUM_TOLERANCE, examples
from scdeconv._data.fractions import align_known
from scdeconv._data.warnings import warn
from scdeconv._stats.known_parts import KnownParts, error_of_parts

from ._usable import to_all_rows

if TYPE_CHECKING:
    import pandas as pd

    from ._base import DeconvolutionModel
    from ._state import Estimate, State

# difference between a known value and its estimate, in standard deviations, that is reported; set by hand
LARGE_DISAGREEMENT = 4.0


def known_parts(
    model: DeconvolutionModel, samples: pd.Index, known: pd.DataFrame | None, known_se: pd.DataFrame | None
) -> KnownParts:
    """Return the known parts of all samples to predict with a model; raise ``ValueError`` for tables with problems.

    Parameters
    ----------
    model
        Trained model.
    samples
        Samples to predict.
    known, known_se
        Known fractions and their standard errors, as for :meth:`scdeconv.models.DeconvolutionModel.estimate`.
    """
    levels = model.training_.levels or {}
    values, se, of = align_known(known, known_se, samples, model.cell_types_, levels)
    if known is not None and model.fraction_kind == "rna":
        warn(
            f"Expected a method that estimates cell fractions together with known, found {model.method!r}, which estimates "
            "RNA fractions. Pass known as RNA fractions, or use a method of cell fractions."
        )
    return KnownParts(values.to_numpy(dtype=float), se.to_numpy(dtype=float), of, error_of_parts(model.held_out_, of))


def use_known(
    state: State,
    expression: np.ndarray,
    usable: np.ndarray,
    estimate: Estimate,
    fractions: np.ndarray,
    held_out: np.ndarray,
    parts: KnownParts,
    samples: pd.Index,
) -> tuple[Estimate, np.ndarray]:
    """Return the estimate of the usable samples and the fractions of all samples with the known parts.

    Parameters
    ----------
    state, expression
        Learned state, and expression of the usable samples.
    usable
        Mask of the samples with reads.
    estimate
        Estimate of the usable samples without known parts.
    fractions
        Fractions of all samples without known parts, with out-of-fold predictions.
    held_out
        Mask of the samples with out-of-fold predictions. They are rescaled: models without their donor are not stored.
    parts, samples
        Known parts and names of all samples.
    """
    if not (parts.known.any() and usable.any()):
        return estimate, fractions
    far = (np.nan_to_num(parts.disagreement(fractions)) > LARGE_DISAGREEMENT).any(axis=1)
    if far.any():
        warn(
            f"Expected known fractions near the estimates without them, found differences of more than "
            f"{LARGE_DISAGREEMENT:g} standard deviations in {int(far.sum())} samples: {examples(samples[far])}. Check "
            "sample names and units of known."
        )
    equal = parts.shared_equally(fractions, SUM_TOLERANCE)
    if equal.any():
        warn(
            f"Expected estimates above 0 of types that are not known, found 0 of all of them in {int(equal.sum())} "
            f"samples: {examples(samples[equal])}. These types share the rest equally. Use another method for these samples."
        )
    exact = parts.compromise(fractions)
    fitted = parts.take(usable).compromise(estimate.fractions)
    given = state.estimate_given(expression, fitted, estimate)
    return given, np.where(held_out[:, None], exact.rescale(fractions), to_all_rows(given.fractions, usable))
