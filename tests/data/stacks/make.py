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

import pandas as pd
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
    "bisque": {},
    "ensemble": {},
    "simplednn": {"n_members": 2, "hidden": (8, 4), "max_epochs": 3},
    "residual_dnn": {
        "base": "ridge",
        "simulate": 100,
        "n_members": 2,
        "hidden": (8, 4),
        "max_epochs": 20,
        "learning_rate": 0.01,
    },
    "calibrated_map": {},
}
CLUSTERING = {
    "DESC": ({"hidden": (4,)}, {"max_epochs": 3}),
    "ScDeepCluster": ({"n_clusters": 4, "n_latent": 3, "hidden": (8,)}, {"pretrain_epochs": 3, "max_epochs": 2}),
    "Scvis": ({"n_pcs": 5}, {"max_epochs": 3}),
    "ScGen": ({"n_latent": 3, "n_hidden": 8}, {"max_epochs": 3}),
}
SPACE = {"penalty": FloatDistribution(1e-3, 1e3, log=True)}
N_TRIALS = 3


def main(folder: Path) -> None:
    """Write all files into a folder, which is made."""
    folder.mkdir(parents=True)
    cells, bulk = scdeconv.datasets.paired_cohort(
        n_donors=6, n_bulk_only=2, n_reference_only=0, n_genes=60, n_cell_types=4, cells_per_donor=(60, 80), seed=0
    )
    # text, integers, booleans and missing values are stored differently on each stack
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
    for name, (architecture, training) in CLUSTERING.items():
        cls = getattr(scdeconv.clustering, name)
        cells = mdata["sc"].copy()
        cls.setup_anndata(cells)
        model = cls(cells, **architecture)
        model.train(**training)
        model.save(folder / name)
        latent = pd.DataFrame(model.get_latent_representation(mdata["sc"][:20]), index=cells.obs_names[:20])
        latent.to_csv(folder / f"{name}.csv", float_format="%.9g")
    write_mudata(mdata, folder / "pairs.h5mu")
    bulk.write_h5ad(folder / "bulk.h5ad")
    scdeconv.tl.tune(mdata, "nonnegative_ridge", SPACE, n_trials=N_TRIALS, study=folder / "study.sqlite")
    names = ("numpy", "pandas", "scipy", "anndata", "mudata", "scanpy", "scvi-tools", "torch", "optuna")
    versions = {"python": platform.python_version(), **{name: version(name) for name in names}}
    (folder / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
