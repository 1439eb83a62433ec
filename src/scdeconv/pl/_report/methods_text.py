"""Sentences about an estimate: the summary at the top, and the methods paragraph for a paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdeconv._version import __version__

from .citations import cited_in
from .numbers import listed, number

if TYPE_CHECKING:
    from .citations import Citations
    from .estimate import Estimate

TRAINING = {
    "paired": "It was trained on bulk samples with known composition of the same donors ({}).",
    "reference": "It fits each sample by the cell-type profiles of a reference ({}).",
    "simulated": "It was trained on bulk samples that were simulated from single cells ({}).",
}
# references of the ways in which prediction intervals are made
INTERVALS = {"out-of-fold errors": ("Vovk2015", "Dunn2023")}


def summary(estimate: Estimate) -> str:
    """Return two sentences: what was done, and how far it can be trusted."""
    n_samples, n_types = estimate.fractions.shape
    trained = _trained_on(estimate)
    done = (
        f"The fractions of {n_types} cell types in {n_samples} bulk samples were estimated{_by_method(estimate)}"
        f"{f', trained on {trained}' if trained else ''}."
    )
    flagged = int((estimate.flags_of_samples() != "").sum())
    reading = f"{flagged} of {n_samples} samples are flagged" if flagged else "no sample is flagged"
    if estimate.held_out is None:
        return f"{done} The error on held-out donors is not known; {reading}."
    rmse, of_mean = _errors(estimate)
    verdict = "" if rmse < of_mean else ", so the model is not better than the mean composition"
    return (
        f"{done} On held-out donors the root mean squared error is {number(rmse)}, that of the mean composition is "
        f"{number(of_mean)}{verdict}; {reading}."
    )


def methods_paragraph(estimate: Estimate, citations: Citations) -> str:
    """Return the text for the methods section of a paper."""
    record, method = estimate.record, estimate.method
    n_samples, n_types = estimate.fractions.shape
    kind = "RNA" if record.get("fraction_kind") == "rna" else "cells"
    text = [
        f"The cell-type composition of {n_samples} bulk samples was estimated with scdeconv "
        f"{record.get('version', __version__)}{citations.cite('scdeconv')}{_by_method(estimate)}"
        f"{citations.cite(*cited_in(method.reference)) if method else ''}."
    ]
    trained = _trained_on(estimate)
    if method is not None and trained:
        text.append(TRAINING[method.family].format(trained))
    parameters = listed(record.get("parameters", {}))
    n_genes = record.get("n_genes")
    text.append(
        f"Fractions of {n_types} cell types are shares of {kind}"
        f"{f', estimated from {n_genes} genes' if n_genes else ''}"
        f"{f', with {parameters}' if parameters else ''}."
    )
    n_held_out = len(record.get("out_of_fold", ()))
    if n_held_out:
        text.append(
            f"{n_held_out} samples were training samples; their fractions are from models trained without their donors."
        )
    if "known" in record:
        text.append(f"Measured fractions of {', '.join(map(str, record['known'].columns))} were given.")
    coverage, made_from = record.get("coverage"), record.get("intervals")
    if coverage is not None:
        text.append(
            f"Prediction intervals with a coverage of {coverage:.0%} were computed{f' from {made_from}' if made_from else ''}"
            f"{citations.cite(*INTERVALS.get(str(made_from), ()))}."
        )
    if estimate.held_out is not None:
        rmse, of_mean = _errors(estimate)
        text.append(
            f"On {record['n_held_out_donors']} held-out donors, the root mean squared error over all cell types was "
            f"{number(rmse)}. The mean composition of the other donors had {number(of_mean)}."
        )
    if record.get("seed") is not None:
        text.append(f"The random seed was {record['seed']}.")
    return " ".join(text)


def _by_method(estimate: Estimate) -> str:
    method = estimate.method
    if method is None:
        name = estimate.record.get("method")
        return "" if name is None else f" with the method {name}"
    return f" with the method {method.key} ({method.summary})"


def _trained_on(estimate: Estimate) -> str:
    """Return the training data: the part of the model's summary before the details of the fit."""
    return str(estimate.record.get("trained_on", "")).split(";", maxsplit=1)[0]


def _errors(estimate: Estimate) -> tuple[float, float]:
    """Return the error over all entries, and that of the mean composition."""
    assert estimate.held_out is not None
    rmse, of_mean = estimate.held_out.loc[["all entries"], ["rmse", "rmse_mean_composition"]].to_numpy()[0]
    return float(rmse), float(of_mean)
