"""CPU time and memory of calibration, solver and training with hundreds of paired donors, on generated data.

    python benchmarks/many_donors.py                        # calibrate and solve, 250, 500 and 1,000 donors
    python benchmarks/many_donors.py --train ridge simplednn
    python benchmarks/many_donors.py --caps                 # accuracy by the number of noise factors

Each line of the first two is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import os
import platform
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.special import softmax

from scdeconv import datasets, metrics, pp
from scdeconv._stats.calibration import noise_factors
from scdeconv._stats.expression import log_shares
from scdeconv.models import PairedData

if TYPE_CHECKING:
    from mudata import MuData

DONORS, N_GENES, N_TYPES = (250, 500, 1000), 2000, 8
# standard deviations of log expression: by each factor, of a gene alone, between platforms
FACTOR_SD, NOISE_SD, SHIFT_SD = 0.1, 0.2, 0.5
# factors planted in bulk; the second number is a hard case for a small cap
PLANTED_FACTORS = (10, 60)
CAPS = (10, 20, 50, 75, 100)
# donors, genes and seed of the generated cohorts on which caps are compared
COHORTS = ((150, 600, 0), (150, 600, 1), (200, 600, 0))
N_FOLDS = 5


def paired_bulk(
    n_donors: int, seed: int, n_genes: int = N_GENES, n_factors: int = PLANTED_FACTORS[0]
) -> tuple[AnnData, AnnData]:
    """Return bulk counts with measured fractions, and profiles; what is planted is the calibration's model."""
    rng = np.random.default_rng(seed)
    profiles = np.exp(rng.normal(0, 1, n_genes) + rng.normal(0, 1, (N_TYPES, n_genes)))
    fractions = rng.dirichlet(np.full(N_TYPES, 1.5), n_donors)
    log = np.log(fractions @ profiles) + rng.normal(0, SHIFT_SD, n_genes)
    log += FACTOR_SD * rng.normal(size=(n_donors, n_factors)) @ rng.normal(size=(n_factors, n_genes))
    log += NOISE_SD * rng.normal(size=log.shape)
    counts = rng.poisson(softmax(log, axis=1) * 1e7)
    donors = [f"donor{i}" for i in range(n_donors)]
    types, genes = [f"type{i}" for i in range(N_TYPES)], pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)])
    bulk = AnnData(counts, obs=pd.DataFrame({"donor": donors}, index=donors), var=genes)
    bulk.obsm["measured_fractions"] = pd.DataFrame(fractions, index=donors, columns=types)
    return bulk, AnnData(profiles, obs=pd.DataFrame(index=types), var=genes)


def peak_memory() -> int:
    """Return the largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def quiet_pair(*args: AnnData, **kwargs: AnnData) -> MuData:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pp.pair(*args, **kwargs)


def measure_solver(n_donors: int, seed: int) -> str:
    """Return a line on one calibration and the solution for all its donors."""
    bulk, profiles = paired_bulk(n_donors, seed)
    mdata = quiet_pair(bulk=bulk, profiles=profiles)
    genes, before = mdata["bulk"].var_names, peak_memory()
    start = time.process_time()
    calibration = pp.fit_calibration(PairedData(mdata, genes), (), batch_key=None)
    calibrated = time.process_time()
    expression = mdata["bulk"].X.astype(float)
    found = softmax(calibration.model().solve(log_shares(expression), expression.sum(axis=1)), axis=1)
    solved = time.process_time()
    rmse = metrics.rmse(mdata["bulk"].obsm["measured_fractions"].to_numpy(), found)
    return (
        f"{n_donors} donors: {len(calibration.loadings)} factors, calibrate {calibrated - start:.1f} CPU-s, "
        f"solve {solved - calibrated:.1f} CPU-s, peak {peak_memory()} MB ({before} MB before), RMSE in sample {rmse:.4f}"
    )


def measure_training(n_donors: int, seed: int, method: str) -> str:
    """Return a line on training, with donors held out in turn, and prediction."""
    from scdeconv import tl

    bulk, profiles = paired_bulk(n_donors, seed)
    mdata = quiet_pair(bulk=bulk, profiles=profiles)
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = tl.train(mdata, method, n_genes=N_GENES)
        trained = time.process_time()
        model.predict(bulk)
    end = time.process_time()
    return (
        f"{n_donors} donors, {method}: {len(model.genes_)} genes, train {trained - start:.0f} CPU-s, "
        f"predict {end - trained:.1f} CPU-s, peak {peak_memory()} MB"
    )


def compare_caps() -> None:
    """Print held-out errors by the largest number of factors, on generated cohorts and on many planted factors."""
    for n_donors, n_genes, seed in COHORTS:
        sizes = {"n_donors": n_donors, "n_genes": n_genes, "n_cell_types": N_TYPES, "cells_per_donor": (100, 200)}
        cells, bulk = datasets.paired_cohort(**sizes, n_bulk_only=0, n_reference_only=0, seed=seed)
        print_caps(f"cohort, {n_donors} donors, {n_genes} genes, seed {seed}", quiet_pair(cells, bulk), seed)
        for n_factors in PLANTED_FACTORS:
            bulk, profiles = paired_bulk(n_donors, seed, n_genes, n_factors)
            title = f"{n_factors} factors, {n_donors} donors, {n_genes} genes, seed {seed}"
            print_caps(title, quiet_pair(bulk=bulk, profiles=profiles), seed)


def print_caps(title: str, mdata: MuData, seed: int) -> None:
    """Print the held-out error without a cap and by each cap, and how far fractions move by it."""
    limit, measured = noise_factors.limit_factors, mdata["bulk"].obsm["measured_fractions"].to_numpy()
    expected = None
    for cap in (len(measured), *CAPS):
        noise_factors.limit_factors = lambda loadings, cap=cap: limit(loadings, cap)
        found = held_out(mdata, seed)
        expected = found if expected is None else expected
        print(
            f"{title}, cap {'none' if cap == len(measured) else cap}: RMSE {metrics.rmse(measured, found):.5f}, "
            f"largest change of a fraction {np.abs(found - expected).max():.4f}",
            flush=True,
        )
    noise_factors.limit_factors = limit


def held_out(mdata: MuData, seed: int) -> np.ndarray:
    """Return the fractions of each donor from the calibration of the other folds."""
    bulk = mdata["bulk"]
    data, donors = PairedData(mdata, bulk.var_names), bulk.obs["donor"].to_numpy().astype(str)
    expression = bulk.X.astype(float)
    log, depths = log_shares(expression), expression.sum(axis=1)
    folds = np.random.default_rng(seed).permutation(len(donors)) % N_FOLDS
    found = np.empty(bulk.obsm["measured_fractions"].shape)
    for fold in range(N_FOLDS):
        out = folds == fold
        model = pp.fit_calibration(data, set(donors[out]), batch_key=None).model()
        found[out] = softmax(model.solve(log[out], depths[out]), axis=1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--donors", type=int, nargs="+", default=DONORS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", nargs="+", default=[], metavar="METHOD")
    parser.add_argument("--caps", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        (n_donors,) = arguments.donors
        if arguments.one == "solver":
            print(measure_solver(n_donors, arguments.seed))
        else:
            print(measure_training(n_donors, arguments.seed, arguments.one))
        return
    print(
        f"{datetime.date.today()}, seed {arguments.seed}, {N_GENES} genes, {N_TYPES} cell types; {platform.machine()}, "
        f"{os.cpu_count()} cores, NumPy {np.__version__}",
        flush=True,
    )
    if arguments.caps:
        compare_caps()
        return
    for task in arguments.train or ["solver"]:
        for n_donors in arguments.donors:
            command = [sys.executable, Path(__file__), "--one", task, "--donors", str(n_donors)]
            subprocess.run([*command, "--seed", str(arguments.seed)], check=True)


if __name__ == "__main__":
    main()
