"""Weights of uncertain samples in tl.compare_fractions, if their errors are right and wrong; write docs/benchmarks/weights_of_samples.md."""

from __future__ import annotations

import argparse
from unittest.mock import patch

import numpy as np
import pandas as pd
from report import PAGES, markdown_table, mean_and_range, provenance, write_page

from scdeconv._stats.group_tests import variance_components
from scdeconv._stats.group_tests.cluster_robust import LinearModel

LIMITS = (np.inf, 3.0, 2.0, 1.5, 1.0)
# share of the stated standard error that the samples really have
SCENARIOS = {"right": 1.0, "half as large": 0.5, "not there": 0.0}
SPREAD = 0.3


def significant(limit: float, real: float, effect: float, n_samples: int, repeats: int, seed: int) -> float:
    """Return the share of p-values below 0.05 of two groups of equal size whose samples have stated errors."""
    rng = np.random.default_rng(seed)
    second = np.repeat([0.0, 1.0], n_samples // 2)
    model = LinearModel(
        np.column_stack([np.ones(n_samples), second]), np.array([1]), np.arange(n_samples), has_intercepts=False
    )
    found = 0
    with patch.object(variance_components, "MAX_WEIGHT", limit):
        for _ in range(repeats):
            # standard errors of log-ratios from 0.03 to 0.6
            stated = rng.uniform(0.03, 0.6, n_samples)
            noise = rng.normal(0, SPREAD, n_samples) + real * stated * rng.normal(size=n_samples)
            found += model.test(effect * second + noise, stated**2).p_value[0] < 0.05
    return found / repeats


def main(seeds: list[int], repeats: int) -> None:
    tables = {}
    for n_samples in (12, 40):
        rows = {}
        for name, real in SCENARIOS.items():
            # a difference that is found in about half of the data
            for effect, of_effect in ((0.0, "no difference"), (1.7 / np.sqrt(n_samples), "a difference")):
                rows[f"errors {name}, {of_effect}"] = {
                    "no limit" if limit == np.inf else f"{limit:g} × mean": mean_and_range(
                        pd.Series([significant(limit, real, effect, n_samples, repeats, seed) for seed in seeds]), 3
                    )
                    for limit in LIMITS
                }
        tables[n_samples] = pd.DataFrame(rows).T.rename_axis("share of p < 0.05")
    parts = [
        "# Weights of uncertain samples",
        "`tl.compare_fractions` weighs a sample by the reciprocal of its variance: the variance between samples plus that of its "
        "prediction interval. If the intervals are wrong (estimates that are shrunk vary less than their errors), a few samples "
        "with narrow intervals have most of the weight, and the test finds too much. Therefore the largest weight is limited to "
        "twice the mean weight. Columns are limits; with a limit of 1, all weights are equal. Normal data with a standard deviation "
        f"of {SPREAD:g} and stated standard errors between 0.03 and 0.6, {repeats} data sets for each seed; mean and range over the seeds.",
        *(f"## {n // 2} against {n // 2} samples\n\n{markdown_table(table)}" for n, table in tables.items()),
        provenance("generated", seeds),
    ]
    write_page(PAGES / "weights_of_samples.md", parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--repeats", type=int, default=300)
    options = parser.parse_args()
    main(options.seeds, options.repeats)
