"""Tests of the log-ratio of each cell type to the types that do not change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import false_discovery_control

from scdeconv._stats.rounding import ratio

from .cluster_robust import LinearModel, Tests

# half a cell of 1,000 is added to each type: the posterior mean of a count under the prior of Jeffreys
PSEUDO_FRACTION = 0.5e-3
# false discovery rate at which a type is left out of the reference
ERROR_RATE = 0.05


@dataclass(frozen=True)
class Comparison:
    """Tests of all cell types.

    Parameters
    ----------
    tests
        Tests of each cell type.
    in_reference
        Whether a type is in the reference.
    error_share
        Share of the variance of the log-ratios that known errors have.
    p_value
        Test that no type differs.
    """

    tests: list[Tests]
    in_reference: np.ndarray
    error_share: np.ndarray
    p_value: float


def logs_of_fractions(fractions: np.ndarray) -> np.ndarray:
    """Return logarithms of fractions (samples × cell types) after adding half a cell of 1,000 to each type."""
    return np.log((fractions + PSEUDO_FRACTION) / (1 + PSEUDO_FRACTION * fractions.shape[1]))


def errors_of_logs(fractions: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Return the variance of the error of each logarithm (samples × cell types).

    Parameters
    ----------
    fractions
        Samples × cell types.
    variances
        Variance of the error of each fraction, samples × cell types.

    Notes
    -----
    The delta method at the mean fraction of the type. At the fraction of the sample, low estimates would have the lowest
    weights, and weighted means would be too high.
    """
    return variances / (fractions.mean(axis=0) + PSEUDO_FRACTION) ** 2


def compare_log_ratios(logs: np.ndarray, errors: np.ndarray, model: LinearModel) -> Comparison:
    """Test the log-ratio of each cell type to the geometric mean of the reference types.

    At first, all types are in the reference, and the log-ratios are centred. The type with the largest difference from the
    median type is then left out as long as its false discovery rate is at most 5 %, and all types are tested again. Thus
    the change of one type is not a change of the others in the opposite direction. More than half of the types stay.

    Parameters
    ----------
    logs
        Logarithms of fractions, samples × cell types.
    errors
        Variance of the error of each logarithm.
    model
        Design of the samples.
    """
    inside = np.ones(logs.shape[1], dtype=bool)
    tests, shares = _test_each(logs, errors, model, inside)
    overall = combine_p_values(np.array([test.joint_p_value for test in tests]))
    while inside.sum() - 1 > logs.shape[1] / 2:
        distance = _distances_from_median(tests, inside)
        farthest = int(np.argmax(np.where(inside & np.isfinite(distance), distance, -1)))
        if not adjust_p_values(np.array([test.joint_p_value for test in tests]))[farthest] <= ERROR_RATE:
            break
        inside[farthest] = False
        tests, shares = _test_each(logs, errors, model, inside)
    return Comparison(tests, inside, shares, overall)


def adjust_p_values(p_values: np.ndarray) -> np.ndarray:
    """Return the false discovery rates of Benjamini and Hochberg; NaN stays NaN."""
    adjusted, known = np.full(p_values.shape, np.nan), np.isfinite(p_values)
    if known.any():
        adjusted[known] = false_discovery_control(p_values[known])
    return adjusted


def combine_p_values(p_values: np.ndarray) -> float:
    """Return one p-value of dependent tests, by the Cauchy combination of Liu and Xie (2020)."""
    known = p_values[np.isfinite(p_values)]
    if not known.size:
        return np.nan
    # tan(pi (0.5 - p)) without loss of digits at small p
    return float(0.5 - np.arctan(np.mean(1 / np.tan(np.pi * known.clip(1e-300, 1 - 1e-15)))) / np.pi)


def _test_each(
    logs: np.ndarray, errors: np.ndarray, model: LinearModel, inside: np.ndarray
) -> tuple[list[Tests], np.ndarray]:
    """Return the tests of the log-ratios to the types inside the reference, and the share of known errors."""
    ratios, n_inside = logs - logs[:, inside].mean(axis=1, keepdims=True), inside.sum()
    # variance of the difference between a type and the mean, which contains the type if it is inside
    of_ratios = errors * (1 - 2 * inside / n_inside) + errors[:, inside].sum(axis=1, keepdims=True) / n_inside**2
    tests = [model.test(ratio, error) for ratio, error in zip(ratios.T, of_ratios.T, strict=True)]
    means = of_ratios.mean(axis=0)
    return tests, ratio(means, means + [test.variance for test in tests])


def _distances_from_median(tests: list[Tests], inside: np.ndarray) -> np.ndarray:
    """Return how far the effects of each type are from those of the median type inside the reference, in standard errors.

    The squares are summed over all pairs of groups: the result must not depend on which group is the first.
    """
    effects = np.array([[0, *test.effect] for test in tests])
    covariances = np.array([np.pad(test.covariance, (1, 0)) for test in tests])
    first, second = np.triu_indices(effects.shape[1], 1)
    differences = effects[:, second] - effects[:, first]
    variances = covariances[:, first, first] + covariances[:, second, second] - 2 * covariances[:, first, second]
    return ratio((differences - np.median(differences[inside], axis=0)) ** 2, variances).sum(axis=1)
