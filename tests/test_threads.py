"""Every stochastic entry point: the same numbers in overlapping threads, and settings of the process as before."""

from __future__ import annotations

import copy
import inspect
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from scdeconv import clustering, datasets, models, pp, tl
from scdeconv.clustering import _desc_network
from scdeconv.datasets._cell_sampling import sample_strata
from scdeconv.tl._cluster import CLASSES

SHORT = {
    "scaden": {"max_steps": 3, "n_samples": 20},
    "simplednn": {"max_epochs": 2, "dropout": 0.3, "n_members": 2},
    "residual_dnn": {"max_epochs": 2, "dropout": 0.3, "n_members": 2},
    "dwls": {"n_genes": 20},
    "simulation_ridge": {"n_simulated": 60},
    "desc": {"hidden": (8,), "max_epochs": 1},
    "scdeepcluster": {"n_clusters": 3, "max_epochs": 1, "pretrain_epochs": 2},
    "scdcc": {"n_clusters": 3, "max_epochs": 1, "pretrain_epochs": 2},
    "ScGen": {"max_epochs": 2},
    "Scvis": {"max_epochs": 2},
}
SEEDS = (1, 2)


@pytest.fixture(scope="module")
def inputs_and_pairs():
    cells, bulk = datasets.paired_cohort(
        n_donors=6, n_bulk_only=6, n_reference_only=1, n_genes=120, n_cell_types=4, cells_per_donor=(40, 50), seed=1
    )
    with redirect_stdout(StringIO()):
        return cells, bulk, pp.pair(cells, bulk)


@pytest.fixture(autouse=True)
def short_pretraining(monkeypatch):
    monkeypatch.setitem(_desc_network.PRETRAINING, "max_epochs", 2)
    for name in ("LAYER_RATES", "FINE_TUNING_RATES"):
        monkeypatch.setattr(_desc_network, name, (0.1,))


def train(name, data, seed):
    _, bulk, mdata = data
    model = tl.train(mdata, name, seed=seed, **SHORT.get(name, {}))
    lower = model.predict_interval(bulk, coverage=0.5)[0] if model.held_out_ is not None else None
    return model.predict(bulk), lower


def cibersort(data, seed):
    _, bulk, mdata = data
    models.CIBERSORT.setup_mudata(mdata.copy())
    model = models.CIBERSORT(mdata, permutations=5, seed=seed)
    model.train()
    return (model.quality(bulk)["p_value"],)


def cluster(method, data, seed):
    cells = data[0].copy()
    linked = {}
    if method == "scdcc":
        linked["constraints"] = pp.constraints(cells, labels_key="cell_type", n_pairs=50, seed=seed)
    tl.cluster(cells, method, seed=seed, **linked, **SHORT[method])
    return cells.obs[method].cat.codes.to_numpy(), *map(np.asarray, cells.obsm.values())


def embed(name, data, seed):
    cells = data[0].copy()
    cls = getattr(clustering, name)
    cls.setup_anndata(cells)
    model = cls(cells)
    model.train(seed=seed, **SHORT[name])
    return (model.get_latent_representation(),)


def links(data, seed):
    made = pp.constraints(data[0], labels_key="cell_type", n_pairs=50, seed=seed)
    return made.must_link, made.cannot_link


def on_copy(function, key, data, seed, **arguments):
    mdata = data[2].copy()
    function(mdata, seed=seed, **arguments)
    return (key(mdata),)


def tune(data, seed):
    return (tl.tune(data[2], "ridge", {"n_genes": [20, 40, 80]}, n_trials=2, cv=2, seed=seed).trials.iloc[:, :2],)


FUNCTIONS = {
    "paired_cohort": lambda _, seed: (datasets.paired_cohort(n_donors=3, n_genes=20, seed=seed)[0].X,),
    "census_reference": lambda data, seed: (
        sample_strata([data[0].obs.reset_index(drop=True).rename_axis("soma_joinid").reset_index()], 5, seed),
    ),
    "augment": lambda data, seed: on_copy(pp.augment, lambda m: str(dict(m["bulk"].obsm)), data, seed, n_aug=3),
    "simulate": lambda data, seed: on_copy(pp.simulate, lambda m: m["simulated"].X, data, seed, n_samples=20),
    "signature": lambda data, seed: (pp.signature(data[2], seed=seed, genes_per_type=(5, 20), min_cells=2).X,),
    "constraints": links,
    "cross_validate": lambda data, seed: (
        tl.cross_validate(data[2], "simplednn", cv=2, seed=seed, **SHORT["simplednn"]),
    ),
    "benchmark": lambda data, seed: (
        tl.benchmark(data[2], {"simulation_ridge": {"n_simulated": 60}}, cv=2, seeds=[seed]).drop(columns="seconds"),
    ),
    "tune": tune,
    "group_expression": lambda data, seed: (tl.group_expression(data[1], "true_fractions", seed=seed, n_samples=3).X,),
}
METHODS = list(tl.methods().index)
EMBEDDINGS = [name for name in clustering.__all__ if name not in {"CellModel", "ClusteringModel", *CLASSES.values()}]
JOBS = {
    **FUNCTIONS,
    **{f"train {name}": lambda data, seed, name=name: train(name, data, seed) for name in METHODS},
    "p-values of cibersort": cibersort,
    **{f"cluster {name}": lambda data, seed, name=name: cluster(name, data, seed) for name in CLASSES},
    **{f"embed {name}": lambda data, seed, name=name: embed(name, data, seed) for name in EMBEDDINGS},
}


def as_bytes(results):
    """The numbers of a job without any rounding."""
    found = []
    for result in results:
        if isinstance(result, pd.DataFrame):
            found.append(result.to_csv(float_format="%.17g"))
        elif result is None or isinstance(result, str):
            found.append(result)
        else:
            found.append(np.ascontiguousarray(result.toarray() if sp.issparse(result) else result).tobytes())
    return found


def test_every_function_with_a_seed_has_a_case():
    public = {name: getattr(module, name) for module in (pp, tl, datasets) for name in module.__all__}
    with_seed = {
        name
        for name, function in public.items()
        if inspect.isfunction(function) and {"seed", "seeds"} & set(inspect.signature(function).parameters)
    }
    assert set(FUNCTIONS) == with_seed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", JOBS)
def test_overlapping_threads_get_the_serial_numbers(name, inputs_and_pairs, global_state_untouched, capsys):
    job = JOBS[name]
    # the first use of a library may set it up
    alone = [as_bytes(job(inputs_and_pairs, seed)) for seed in SEEDS]
    torch.manual_seed(5)
    together = threading.Barrier(len(SEEDS))

    def in_thread(seed):
        together.wait()
        return as_bytes(job(inputs_and_pairs, seed))

    # pandas replaces the filters of all threads while it inserts a column: tests/_data/test_warnings.py checks ours
    with global_state_untouched("warnings"), ThreadPoolExecutor(len(SEEDS)) as pool:
        assert list(pool.map(in_thread, SEEDS)) == alone


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", METHODS)
def test_pickle_and_copy_are_the_model_without_data(name, inputs_and_pairs, capsys):
    _, bulk, mdata = inputs_and_pairs
    model = tl.train(mdata, name, **SHORT.get(name, {}))
    alone = model.predict(bulk)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        pd.testing.assert_frame_equal(other.predict(bulk), alone, check_exact=True)
        assert other.summary_ == model.summary_
        assert getattr(other, "mdata", None) is None
    assert model.mdata is not None
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(model.predict, [bulk] * 4):
            pd.testing.assert_frame_equal(found, alone, check_exact=True)


@pytest.mark.parametrize("name", ["train simplednn", "cluster desc", "embed ScGen", "train scaden"])
def test_random_numbers_of_the_caller_change_nothing(name, inputs_and_pairs, capsys):
    alone = as_bytes(JOBS[name](inputs_and_pairs, 1))
    done = threading.Event()

    def draw():
        while not done.is_set():
            torch.rand(3), torch.manual_seed(1), np.random.random(3), np.random.seed(1)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        assert as_bytes(JOBS[name](inputs_and_pairs, 1)) == alone
    finally:
        done.set()
        thread.join()
