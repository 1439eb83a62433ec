"""Error of CalibratedMAP with each constant halved and doubled: writes docs/benchmarks/map_constants.md.

    python benchmarks/map_constants.py

Every paired donor is held out in turn on the retina pairs (ours to read in ../shared) and on two generated cohorts.
"""

from __future__ import annotations

import contextlib
import sys

import pandas as pd
from held_out_donors import quietly, retina
from report import PAGES, markdown_table, provenance, use_shared_data, write_page

from scdeconv import datasets, metrics, pp, tl

# constant: what it is, and whether it can be below 1
CONSTANTS = {
    "LEVEL": "level below which log expression is linear, in units of the mean share",
    "INFLATION": "inflation of the prior covariance",
    "PROFILE_ERROR": "standard deviation of profile errors (log)",
    "OFFSET": "standard deviation of the factor of all genes (log)",
    "SIZE_SD": "standard deviation of log cell sizes",
    "FLOOR": "floor of fractions",
}


@contextlib.contextmanager
def scaled(name: str, factor: float):
    """Multiply a constant in every module of scdeconv that has it."""
    modules = [module for key, module in sys.modules.items() if key.startswith("scdeconv.") and name in vars(module)]
    # the ridge has a floor of its own
    modules = [module for module in modules if not module.__name__.endswith("ridge")]
    before = [getattr(module, name) for module in modules]
    try:
        for module, value in zip(modules, before, strict=True):
            setattr(module, name, value * factor)
        yield before[0]
    finally:
        for module, value in zip(modules, before, strict=True):
            setattr(module, name, value)


def error(mdata) -> float:
    """Return the RMSE on held-out donors."""
    predicted = tl.cross_validate(mdata, "calibrated_map")
    return metrics.rmse(mdata["bulk"].obsm["measured_fractions"].loc[predicted.index], predicted)


def main() -> None:
    """Make the table."""
    use_shared_data()
    data = {"retina, 14 donors": retina()}
    for seed in (0, 1):
        cohort = datasets.paired_cohort(n_donors=20, n_genes=1000, cells_per_donor=(100, 300), seed=seed)
        data[f"generated cohort {seed}, 20 donors"] = quietly(pp.pair, *cohort)
    rows = {"as they are": {"value": "", **{name: f"{error(mdata):.4f}" for name, mdata in data.items()}}}
    for name, meaning in CONSTANTS.items():
        for factor in (0.5, 2.0):
            with scaled(name, factor) as value:
                found = {key: f"{error(mdata):.4f}" for key, mdata in data.items()}
            rows[f"`{name}`, {meaning}" + (" × 0.5" if factor < 1 else " × 2")] = {"value": f"{value:g}", **found}
    table = pd.DataFrame(rows).T.rename_axis("constant")
    parts = [
        "# Constants of CalibratedMAP",
        "RMSE on held-out donors (leave-one-donor-out) with one constant at half and at twice its value. The constants are "
        "the same for all data. A constant whose line hardly changes was not worth tuning.",
        markdown_table(table),
        provenance(
            "retina pairs of scdeconv.datasets.retina_pairs, cohorts of scdeconv.datasets.paired_cohort", [0, 1]
        ),
    ]
    write_page(PAGES / "map_constants.md", parts)


if __name__ == "__main__":
    main()
