"""Generated bulk and references for the tests of RobustNNLS."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import pp
from scdeconv._stats.solvers.platform_shift import learn_shift, solve_robust_nnls
from scdeconv.models import RobustNNLS

TYPES = ["B cell", "NK cell", "T cell", "monocyte"]
SIZES = np.array([1000.0, 4000.0, 2000.0, 9000.0])
SPIKE_INS = [f"ERCC-{i:05d}" for i in range(4)]


def solve(signature, bulk, *, counts, shift=None):
    """Learn the shift from the bulk itself unless it is given, then solve."""
    shift = learn_shift(signature, bulk, counts=counts) if shift is None else shift
    return solve_robust_nnls(signature, bulk, shift, counts=counts), shift


def rmse(predicted, measured):
    return float(np.sqrt(((np.asarray(predicted) - np.asarray(measured)) ** 2).mean()))


def make_signature(rng, sizes=SIZES, n_genes=200):
    """Mean counts per cell."""
    return sizes[:, None] * rng.dirichlet(np.full(n_genes, 0.5), len(sizes))


def make_bulk(seed, n_samples=15, *, shift_sd=0.0, n_far=0, n_genes=200):
    """Signature, gene shares of bulk and fractions; genes have a platform shift, a few of them a hundredfold."""
    rng = np.random.default_rng(seed)
    signature = make_signature(rng, n_genes=n_genes)
    fractions = rng.dirichlet(np.ones(len(signature)), n_samples)
    shift = np.exp(shift_sd * rng.normal(size=n_genes))
    far = rng.choice(n_genes, n_far, replace=False)
    shift[far] *= 100
    bulk = fractions @ signature * shift
    return signature, bulk / bulk.sum(axis=1, keepdims=True), fractions, far


def make_mdata(signature, bulk):
    """Pair bulk with the profiles alone; ``bulk`` is samples × genes, spike-ins may be among them."""
    genes = [f"G{i}" for i in range(signature.shape[1])]
    profiles = AnnData(signature, obs=pd.DataFrame(index=TYPES), var=pd.DataFrame(index=genes))
    names = genes + SPIKE_INS[: bulk.shape[1] - len(genes)]
    samples = AnnData(bulk, obs=pd.DataFrame(index=[f"s{i}" for i in range(len(bulk))]), var=pd.DataFrame(index=names))
    with pytest.warns(UserWarning, match="no donor is paired|paired donors"):
        return pp.pair(bulk=samples, profiles=profiles)


def train(signature, bulk):
    model = RobustNNLS(make_mdata(signature, bulk))
    model.train()
    return model


def as_samples(bulk):
    samples = AnnData(bulk)
    samples.var_names = [f"G{i}" for i in range(bulk.shape[1])]
    return samples
