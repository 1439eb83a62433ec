"""Complete example: pairs, augmentation, gene selection, training, held-out donors, table and figures.

``scdeconv demo [path.h5mu]`` uses the generated cohort if there is no path.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from scdeconv import datasets, metrics, pl, pp, tl
from scdeconv._data import keys
from scdeconv._data.modalities import read_mudata, write_mudata

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mudata import MuData

# leave-one-donor-out would take several minutes on a laptop
MAX_FOLDS = 8


def read_pairs(path: Path | None, seed: int) -> MuData:
    """Return paired data: a generated cohort, or the modalities ``bulk`` and ``sc`` (or ``profiles``) of a file."""
    if path is None:
        return pp.pair(*datasets.paired_cohort(seed=seed))
    if not path.exists():
        msg = f"Expected a .h5mu file at {path}, found none. Call make demo DATA=path/to/pairs.h5mu."
        raise FileNotFoundError(msg)
    given = read_mudata(path)
    if keys.BULK not in given.mod or not {keys.CELLS, keys.PROFILES} & set(given.mod):
        msg = f"Expected modalities 'bulk' and 'sc' (or 'profiles') in {path}, found {list(given.mod)}."
        raise ValueError(msg)
    if keys.CELLS in given.mod:
        return pp.pair(given[keys.CELLS], given[keys.BULK])
    pseudobulk = given[keys.PSEUDOBULK] if keys.PSEUDOBULK in given.mod else None
    return pp.pair(bulk=given[keys.BULK], profiles=given[keys.PROFILES], pseudobulk=pseudobulk)


def accuracy_table(benchmark: pd.DataFrame) -> pd.DataFrame:
    """Return RMSE and CCC per cell type and method, averaged over seeds."""
    order = pd.MultiIndex.from_product([["rmse", "ccc"], benchmark["method"].unique()])
    means = benchmark.pivot_table(index="cell_type", columns="method", values=["rmse", "ccc"], sort=False)
    return means.reindex(columns=order).round(4)


def compute(path: Path | None, seed: int) -> tuple[dict[str, Callable[[Path], Any]], Any]:
    """Run the example; return functions that write its files, by name, and the model."""
    import matplotlib as mpl

    mpl.use("Agg")
    mdata = read_pairs(path, seed)
    bulk = mdata[keys.BULK]
    if keys.MEASURED_CELLS in bulk.obsm:
        pp.augment(mdata, n_aug=100, aug_ratio=0.8, seed=seed)
    pp.select_genes(mdata)

    folds = min(MAX_FOLDS, len(pp.paired_donors(mdata)))
    print(f"predicting each paired donor with a model trained without it ({folds} folds) ...")
    table = tl.benchmark(mdata, cv=folds, seeds=[seed, seed + 1, seed + 2])
    held_out = tl.cross_validate(mdata, tl.default_method(mdata), cv=folds, seed=seed)
    print(accuracy_table(table).to_string(na_rep=""))

    model = tl.train(mdata, seed=seed)
    tl.predict(bulk, model)
    pp.simulate(mdata, calibration=pp.calibrate(mdata), seed=seed)
    # out-of-fold predictions for the paired donors
    bulk.obsm[keys.FRACTIONS].loc[held_out.index] = held_out
    bulk.obs["estimate"] = "donor without cells"
    bulk.obs.loc[held_out.index, "estimate"] = "held-out donor"

    figures = {
        "fractions": pl.fractions(bulk, groupby="estimate"),
        "measured_vs_predicted": pl.measured_vs_predicted(bulk)[0],
        "benchmark": pl.benchmark(table),
        "simulation": pl.simulation(mdata),
    }
    accuracy = metrics.table(bulk.obsm[keys.MEASURED].loc[held_out.index], held_out)
    fractions = bulk.obsm[keys.FRACTIONS].assign(estimate=bulk.obs["estimate"])
    return {
        **{f"{name}.png": partial(axes.figure.savefig, dpi=150, bbox_inches="tight") for name, axes in figures.items()},
        "accuracy.csv": accuracy.to_csv,
        "fractions.csv": fractions.to_csv,
        "pairs.h5mu": partial(write_mudata, mdata),
    }, model
