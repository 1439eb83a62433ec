"""Write what tests/test_stacks.py reads: paired data, models with their predictions, and a tuning study.

Run it on each stack of dependencies whose files all others are to read:

    python tests/data/stacks/make.py tests/data/stacks/pandas-2     # make test's environment
    python tests/data/stacks/make.py tests/data/stacks/pandas-3     # the newest releases
"""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from optuna.distributions import FloatDistribution

import scdeconv
from scdeconv._data.modalities import write_mudata

METHODS = {
    "nnls": {},
    "robust_nnls": {},
    "music": {},
    "bayesprism": {"outlier_share": 1},
    "ridge": {},
    "calibrated_nnls": {},
    "simplednn": {"n_members": 2, "simulate": 50, "hidden": (8, 4), "max_epochs": 3},
}
SPACE = {"penalty": FloatDistribution(1e-3, 1e3, log=True)}
N_TRIALS = 3


def main(folder: Path) -> None:
    """Write all files into a folder, which is made."""
    folder.mkdir(parents=True)
    cells, bulk = scdeconv.datasets.paired_cohort(
        n_donors=6, n_bulk_only=2, n_reference_only=0, n_genes=60, n_cell_types=4, cells_per_donor=(60, 80), seed=0
    )
    # text, whole numbers, truth values and gaps come in differently on each stack
    bulk.obs["sex"] = ["female", "male"] * 4
    bulk.obs["age"] = [50.0, 61.5, 47.0, float("nan"), 39.0, 70.0, 58.0, 66.0]
    bulk.obs["group"] = ["a", None, "b", "b", "a", None, "a", "b"]
    mdata = scdeconv.pp.pair(cells, bulk)
    scdeconv.pp.select_genes(mdata, 45)
    scdeconv.pp.calibrate(mdata)
    for method, arguments in METHODS.items():
        model = scdeconv.tl.train(mdata, method, **arguments)
        model.save(folder / method)
        model.predict(bulk).to_csv(folder / f"{method}.csv", float_format="%.9g")
    scdeconv.tl.predict(mdata["bulk"], model, coverage=0.5)
    write_mudata(mdata, folder / "pairs.h5mu")
    bulk.write_h5ad(folder / "bulk.h5ad")
    scdeconv.tl.tune(mdata, "nonnegative_ridge", SPACE, n_trials=N_TRIALS, study=folder / "study.sqlite")
    names = ("numpy", "pandas", "scipy", "anndata", "mudata", "scanpy", "scvi-tools", "torch", "optuna")
    versions = {"python": platform.python_version(), **{name: version(name) for name in names}}
    (folder / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
