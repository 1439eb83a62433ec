"""Compare the predictions of all methods at an earlier commit and now on three data sets.

    python benchmarks/compare_commits.py 5e0cb27

The earlier commit is checked out in a temporary worktree and run with the installed packages. The retina pairs and the
blood samples of Hoek are read from ../shared if available.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
# arguments for short training; all others are the defaults
ARGUMENTS = {
    "simplednn": {"n_members": 2, "max_epochs": 5},
    "residual_dnn": {"n_members": 2, "simulate": 100, "max_epochs": 5},
    "scaden": {"max_steps": 20, "n_samples": 100},
}
# before CalibratedMAP and ResidualDNN had classes of their own, SimpleDNN did all three
BEFORE_THE_SPLIT = {
    "calibrated_map": {"n_members": 2, "simulate": 100, "max_epochs": 0},
    "residual_dnn": {"n_members": 2, "simulate": 100, "max_epochs": 5},
    "simplednn": {"n_members": 2, "simulate": None, "start_from_solution": False, "max_epochs": 5},
}


def methods() -> dict[str, tuple[str, dict]]:
    """Return the name and the arguments of each method in the package that is imported, by today's name."""
    from scdeconv import tl

    names = list(tl.methods().index)
    found = {name: (name, ARGUMENTS.get(name, {})) for name in names}
    if "residual_dnn" not in names:
        found |= {name: ("simplednn", arguments) for name, arguments in BEFORE_THE_SPLIT.items()}
    return found


def data_sets():
    """Yield name, paired data and the bulk to predict."""
    import anndata

    from scdeconv import datasets, pp

    cells, bulk = datasets.paired_cohort(n_donors=12, n_genes=400, cells_per_donor=(80, 120), seed=3)
    yield "generated cohort", pp.pair(cells, bulk), bulk
    retina = SHARED / "data" / "retina_paired"
    if retina.exists():
        os.environ["SCDECONV_DATA_DIR"] = str(SHARED / "data")
        bulk, profiles, pseudobulk = datasets.retina_pairs()
        yield "retina", pp.pair(bulk=bulk, profiles=profiles, pseudobulk=pseudobulk), bulk
    hoek = SHARED / "parity" / "hoek"
    if hoek.exists():
        cells, bulk = (anndata.read_h5ad(hoek / f"{side}.h5ad") for side in ("sc", "bulk"))
        yield "hoek", pp.pair(cells, bulk), bulk


def predict(output: Path) -> None:
    """Write the predictions of all methods on all data sets."""
    from scdeconv import tl

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, mdata, bulk in data_sets():
            for label, (method, arguments) in methods().items():
                try:
                    found = tl.train(mdata, method, **arguments).predict(bulk)
                except (ValueError, KeyError):
                    # the method needs pairs or cells that these data do not have
                    continue
                found.to_csv(output / f"{name}@{label}.csv")


def run(source: Path, output: Path) -> None:
    """Predict with the package in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(source / "src")}
    subprocess.run([sys.executable, __file__, "--predict", str(output)], env=environment, check=True)


def main() -> None:
    """Print a table: methods × data sets, largest absolute difference of a fraction."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", nargs="?")
    parser.add_argument("--predict", type=Path)
    arguments = parser.parse_args()
    if arguments.predict is not None:
        predict(arguments.predict)
        return
    with tempfile.TemporaryDirectory() as folder:
        old, before, now = (Path(folder) / name for name in ("old", "before", "now"))
        before.mkdir()
        now.mkdir()
        subprocess.run(["git", "worktree", "add", "-q", "--detach", str(old), arguments.commit], cwd=ROOT, check=True)
        try:
            run(old, before)
            run(ROOT, now)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(old)], cwd=ROOT, check=True)
        rows = {}
        for path in sorted(now.glob("*.csv")):
            name, method = path.stem.split("@")
            first, second = (pd.read_csv(side / path.name, index_col=0) for side in (before, now))
            rows.setdefault(method, {})[name] = np.abs(first[second.columns] - second).max(axis=None)
        print(pd.DataFrame(rows).T.to_string(float_format="{:.1e}".format, na_rep="-"))


if __name__ == "__main__":
    main()
