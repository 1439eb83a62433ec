from __future__ import annotations

import os
import signal

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.metrics import adjusted_rand_score

from scdeconv import pp
from scdeconv._nn import CountAutoencoder, cannot_link_loss, must_link_loss
from scdeconv.clustering import ScDCC, ScDeepCluster, _scdcc

SMALL = {"n_clusters": 3, "n_latent": 8, "hidden": (32, 16), "noise": 1.0, "likelihood": "nb", "scale": "pareto"}
BRIEF = {
    "pretrain_epochs": 20,
    "max_epochs": 40,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "tolerance": 0,
    "patience": None,
    "accelerator": "cpu",
}
UNTRAINED = {"pretrain_epochs": 1, "max_epochs": 1}


def trained(cls, cells, training=None, **arguments):
    cls.setup_anndata(cells)
    model = cls(cells, **{**SMALL, **arguments})
    model.train(**{**BRIEF, **(training or {})})
    return model


@pytest.fixture(scope="module")
def cells(make_cells):
    """Cells of 3 types. Half of the cells divide, which changes expression more than the type; a quarter is labelled."""
    cells = make_cells(n_cells=400, n_groups=3, fold=3.0)
    rng = np.random.default_rng(100)
    dividing = rng.random(400) < 0.5
    counts = cells.X.toarray()
    counts[:, 160:] += rng.poisson(2 * rng.gamma(1, 1, 40) * dividing[:, None])
    cells.X = sp.csr_matrix(counts)
    cells.obs["dividing"] = dividing
    cells.obs["known"] = cells.obs["group"].where(rng.random(400) < 0.25)
    return cells


@pytest.fixture(scope="module")
def constraints(cells):
    return pp.constraints(cells, labels_key="known", n_pairs=1000)


@pytest.fixture(scope="module")
def unconstrained(cells):
    return trained(ScDeepCluster, cells)


@pytest.fixture(scope="module")
def constrained(cells, constraints):
    return trained(ScDCC, cells, constraints=constraints)


def of_unknown_cells(cells, model, column):
    unknown = cells.obs["known"].isna()
    return adjusted_rand_score(cells.obs.loc[unknown, column], model.get_clusters()[unknown])


# effect of constraints


def test_constraints_decide_which_differences_separate_clusters(cells, constraints, constrained, unconstrained):
    """Also for cells without constraints."""
    assert of_unknown_cells(cells, unconstrained, "group") < 0.5 < of_unknown_cells(cells, unconstrained, "dividing")
    assert of_unknown_cells(cells, constrained, "group") > 0.8
    assert of_unknown_cells(cells, constrained, "dividing") < 0.1
    assert constraints.agreement(unconstrained.get_clusters()) < 0.8
    assert constraints.agreement(constrained.get_clusters()) > 0.95


def test_must_links_merge_split_clusters(make_cells):
    """Four clusters are requested for two groups."""
    cells = make_cells(n_cells=200, n_groups=2)
    members = [cells.obs_names[cells.obs["group"] == group][:40] for group in ("g0", "g1")]
    pairs = [(cell, names[0]) for names in members for cell in names[1:]]
    constraints = pp.constraints(cells, pairs={"must_link": pairs})
    settings = {"n_clusters": 4, "training": {"max_epochs": 30}}
    split = trained(ScDeepCluster, cells, **settings)
    joined = trained(ScDCC, cells, constraints=constraints, must_link_weight=2.0, **settings)
    assert constraints.agreement(split.get_clusters()) < 0.8
    assert constraints.agreement(joined.get_clusters()) > 0.9
    # no clusters of different groups were merged
    assert (pd.crosstab(joined.get_clusters(), cells.obs["group"]).min(axis=1) <= 2).all()


def test_without_constraints_it_is_scdeepcluster(cells):
    settings = {"pretrain_epochs": 3, "max_epochs": 3}
    plain, other = (trained(cls, cells, training=settings) for cls in (ScDeepCluster, ScDCC))
    assert other.get_soft_assignments().equals(plain.get_soft_assignments())


# the loss


def make_pairs(cells, must_link=(), cannot_link=()):
    names = cells.obs_names
    return pp.constraints(
        cells,
        pairs={
            "must_link": [(names[a], names[b]) for a, b in must_link],
            "cannot_link": [(names[a], names[b]) for a, b in cannot_link],
        },
    )


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 5.0), (0.0, 2.0), (2.0, 0.0)])
def test_each_kind_of_constraint_has_its_weight(cells, weights):
    """The original's scripts give cannot-links the weight of the must-links."""
    pairs = make_pairs(cells, must_link=[(0, 1)], cannot_link=[(2, 3)])
    must_weight, cannot_weight = weights
    model = trained(
        *(ScDCC, cells, UNTRAINED), constraints=pairs, must_link_weight=must_weight, cannot_link_weight=cannot_weight
    )
    data = model._cells()
    batch, ends = data.batch(np.arange(400), torch.device("cpu")), data.batch(np.arange(4), torch.device("cpu"))
    with torch.no_grad():
        q = model.module.assign(ends.x)
        alone = ScDeepCluster._joint_loss(model, model.module, batch, torch.full((400, 3), 1 / 3), data, 64)
        expected = alone + must_weight * must_link_loss(q[[0]], q[[1]])
        expected = expected + cannot_weight * cannot_link_loss(q[[2]], q[[3]])
        loss = model._joint_loss(model.module, batch, torch.full((400, 3), 1 / 3), data, 64)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert model.parameters_["must_link_weight"] == must_weight
    assert model.parameters_["cannot_link_weight"] == cannot_weight


def test_cannot_link_weight_differs_from_must_link_weight(cells):
    pairs = make_pairs(cells, cannot_link=[(2, 3), (4, 5)])
    settings = {"pretrain_epochs": 2, "max_epochs": 2}
    first, second, third = (
        trained(ScDCC, cells, settings, constraints=pairs, **weights).get_soft_assignments()
        for weights in ({}, {"must_link_weight": 9.0}, {"cannot_link_weight": 9.0})
    )
    assert first.equals(second)
    assert not np.allclose(first, third)


def test_steps_use_at_most_a_batch_of_pairs(cells, monkeypatch):
    """In an epoch each pair about once, and some of each kind in every step."""
    must = [(i, i + 1) for i in range(0, 100)]
    cannot = [(200, i) for i in range(201, 204)]
    pairs = make_pairs(cells, must_link=must, cannot_link=cannot)
    model = trained(ScDCC, cells, UNTRAINED, constraints=pairs)
    n_pairs = []
    for name in ("must_link", "cannot_link"):
        monkeypatch.setitem(_scdcc.PAIR_LOSSES, name, lambda first, second: n_pairs.append(len(first)) or first.sum())
    data = model._cells()
    for n_cells in (64, 200, 400):
        rows = np.arange(n_cells)
        batch = data.batch(rows, torch.device("cpu"))
        model._joint_loss(model.module, batch, torch.full((n_cells, 3), 1 / 3), data, 64)
    # of 100 and of 3, times 64 / 400, 1 / 2 and 1, rounded up; a batch is 64
    assert n_pairs == [16, 1, 50, 2, 64, 3]


def test_constraints_are_found_by_the_names_of_cells(cells):
    """The constraints were made for more cells in another order."""
    names = cells.obs_names
    pairs = make_pairs(cells, must_link=[(0, 1), (5, 2)], cannot_link=[(9, 3)])
    subset = cells[[9, 5, 3, 2, 1, 0, *range(50, 100)]].copy()
    ScDCC.setup_anndata(subset)
    model = ScDCC(subset, constraints=pairs, **SMALL)
    found = {kind: {frozenset(subset.obs_names[pair]) for pair in positions} for kind, positions in model.pairs.items()}
    assert found == {
        "must_link": {frozenset(names[[0, 1]]), frozenset(names[[5, 2]])},
        "cannot_link": {frozenset(names[[9, 3]])},
    }


def test_cells_of_pairs_are_noisy_in_training_only(cells, monkeypatch):
    """Otherwise the model would overfit the few cells of pairs."""
    pairs = make_pairs(cells, must_link=[(0, 1)])
    model = trained(ScDCC, cells, UNTRAINED, constraints=pairs, gamma=0.0)
    data = model._cells()
    batch, targets = data.batch(np.arange(400), torch.device("cpu")), torch.full((400, 3), 1 / 3)
    noise = []
    # reconstruction is noisy too
    monkeypatch.setattr(CountAutoencoder, "nll", lambda *arguments: torch.zeros(()))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for mode in (True, False):
            model.module.train(mode)
            first, again = (model._joint_loss(model.module, batch, targets, data, 64) for _ in range(2))
            noise.append(first != again)
    assert noise == [True, False]


# where clusters start


def start(constraints, cells, latent, n_clusters):
    """Initial centroids of self-training in this latent space."""
    ScDCC.setup_anndata(cells)
    arguments = {**SMALL, "n_clusters": n_clusters, "n_latent": latent.shape[1]}
    return ScDCC(cells, constraints=constraints, **arguments)._start(latent, 0).numpy()


def test_cannot_linked_groups_initialise_k_means(cells):
    """The groups differ in x, all cells vary more in y."""
    rng = np.random.default_rng(0)
    group, other = rng.integers(0, 2, (2, 400))
    latent = (np.column_stack([4 * group, 7 * other]) + 0.3 * rng.normal(size=(400, 2))).astype(np.float32)
    members = [np.flatnonzero(group == number)[:10] for number in (0, 1)]
    links = [(first, second) for rows in members for first, second in zip(rows[:-1], rows[1:], strict=True)]
    apart = make_pairs(cells, must_link=links, cannot_link=[(members[0][0], members[1][0])])
    expected = [latent[group == number].mean(axis=0) for number in (0, 1)]
    found = start(apart, cells, latent, 2)
    np.testing.assert_allclose(found[found[:, 0].argsort()], expected, rtol=1e-4)
    unseeded = start(None, cells, latent, 2)
    expected = [latent[other == number].mean(axis=0) for number in (0, 1)]
    np.testing.assert_allclose(unseeded[unseeded[:, 1].argsort()], expected, rtol=1e-4)


@pytest.mark.parametrize("n_seeds", [1, 2, 3])
def test_clusters_without_seed_start_at_k_means(cells, n_seeds):
    """Also with more cannot-linked groups than requested clusters."""
    rng = np.random.default_rng(0)
    group = np.arange(400) % 3
    latent = (10 * np.eye(3)[group] + 0.3 * rng.normal(size=(400, 3))).astype(np.float32)
    pairs = make_pairs(
        cells,
        must_link=[(seed + 3 * i, seed + 3 * i + 3) for seed in range(n_seeds) for i in range(5)],
        cannot_link=[(a, b) for a in range(n_seeds) for b in range(a)],
    )
    expected = np.array([latent[group == number].mean(axis=0) for number in range(3)])
    found = start(pairs, cells, latent, 3)
    np.testing.assert_allclose(found[found.argmax(axis=1).argsort()], expected, rtol=1e-4, atol=1e-4)
    assert start(pairs, cells, latent, 2).shape == (2, 3)


# bad input


@pytest.mark.parametrize("kind", ["must_link", "cannot_link"])
def test_constraints_of_unknown_cells_are_refused(cells, kind):
    pairs = make_pairs(cells, **{kind: [(0, 1), (1, 7), (2, 3)]})
    subset = cells[[0, 2, 3, *range(10, 60)]].copy()
    ScDCC.setup_anndata(subset)
    with pytest.raises(
        ValueError, match="Expected constraints for cells in adata, found 2 other cells: 'cell1', 'cell7'"
    ):
        ScDCC(subset, constraints=pairs, **SMALL)


def test_wrong_arguments_are_refused_as_in_scdeepcluster(cells):
    ScDCC.setup_anndata(cells)
    with pytest.raises(ValueError, match=r"Expected n_clusters(.|\n)*Expected likelihood"):
        ScDCC(cells, n_clusters=1, likelihood="poisson")


# files, Ctrl-C, repeatability


def test_loaded_model_assigns_as_the_saved_one(cells, constrained, tmp_path):
    constrained.save(tmp_path / "model")
    loaded = ScDCC.load(tmp_path / "model")
    assert loaded.get_soft_assignments(cells).equals(constrained.get_soft_assignments())
    assert loaded.get_clusters(cells[::-1].copy()).equals(constrained.get_clusters()[::-1])
    assert loaded.parameters_ == {**constrained.parameters_, "hidden": [32, 16]}
    assert repr(loaded).startswith("ScDCC: 3 clusters of 400 cells")
    with pytest.raises(ValueError, match="Expected a saved ScDeepCluster in .*, found ScDCC"):
        ScDeepCluster.load(tmp_path / "model")


def test_ctrl_c_keeps_the_weights(cells, constraints, monkeypatch):
    joint, calls = ScDCC._joint_loss, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 10:
            os.kill(os.getpid(), signal.SIGINT)
        return joint(self, *arguments)

    monkeypatch.setattr(ScDCC, "_joint_loss", interrupted)
    model = trained(ScDCC, cells, constraints=constraints)
    # 7 steps in an epoch
    assert model.interrupted_
    assert "20 + 2 epochs" in model.summary_
    assert model.get_clusters().nunique() == 3


def test_same_seed_gives_the_same_result(cells, constraints, unchanged, global_state_untouched):
    settings = {"pretrain_epochs": 2, "max_epochs": 2}
    ScDCC.setup_anndata(cells)
    with unchanged(cells, constraints.cells, constraints.must_link, constraints.cannot_link), global_state_untouched():
        first, again = (ScDCC(cells, constraints=constraints, **SMALL) for _ in range(2))
        first.train(**{**BRIEF, **settings})
        again.train(**{**BRIEF, **settings})
    assert first.get_soft_assignments().equals(again.get_soft_assignments())
