from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.linear_model import Ridge

from scdeconv import pp, tl
from scdeconv.models import SimpleDNN
from scdeconv.models._ridge import PENALTIES
from scdeconv.models._simplednn import FLOOR, LEAST_SD, LEVEL, log_expression
from scdeconv.nn import LOSSES, BatchedLinear, centred_log_ratio

SMALL = {"hidden": (8,), "n_members": 2}


# what the network reads


def test_log_expression_equals_its_formula():
    rng = np.random.default_rng(0)
    counts, reference = rng.poisson(20, (4, 30)).astype(float), rng.dirichlet(np.ones(30))
    expected = np.log1p(counts / counts.sum(axis=1, keepdims=True) * LEVEL * 30)
    np.testing.assert_allclose(log_expression(counts, reference), expected)


def test_depth_of_a_sample_changes_nothing():
    rng = np.random.default_rng(0)
    counts, reference = rng.poisson(20, (4, 30)).astype(float), rng.dirichlet(np.ones(30))
    np.testing.assert_allclose(log_expression(counts * 37, reference), log_expression(counts, reference))


def test_missing_genes_take_the_reference_and_leave_the_others_as_they_would_be():
    """A sample that is exactly like the reference is read the same whatever genes are missing."""
    reference = np.random.default_rng(0).dirichlet(np.ones(30))
    complete = log_expression(1e4 * reference[None], reference)
    partial = 1e4 * reference[None].repeat(3, axis=0)
    partial[0, :10], partial[1, 5], partial[2, 20:] = np.nan, np.nan, np.nan
    np.testing.assert_allclose(log_expression(partial, reference), complete.repeat(3, axis=0))


def test_sample_without_any_count_in_the_genes_is_survived(pairs):
    pp.select_genes(pairs, 20)
    x = pairs["bulk"].X.copy()
    x[0, pairs["bulk"].var["selected"]] = 0
    pairs["bulk"].X = x
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        fractions = tl.train(pairs, max_epochs=2, **SMALL).predict(pairs["bulk"])
    np.testing.assert_allclose(fractions.sum(axis=1), 1, rtol=1e-6)


# the starting point


def closed_form(expression, fractions, donors, new):
    """The ridge solution in scikit-learn, its penalty by explicit refits without each donor."""
    expression, new = np.asarray(expression, dtype=float), np.asarray(new, dtype=float)
    scaled = [np.log1p(10 * x.shape[1] * x / x.sum(axis=1, keepdims=True)) for x in (expression, new)]
    x, x_new = ((values - scaled[0].mean(axis=0)) / (scaled[0].std(axis=0) + 0.1) for values in scaled)
    logs = np.log(np.maximum(fractions, 0.01))
    y = logs - logs.mean(axis=1, keepdims=True)
    unit = ((x - x.mean(axis=0)) ** 2).sum() / len(x)

    def error(penalty):
        predicted = np.empty_like(y)
        for donor in np.unique(donors):
            out = donors == donor
            predicted[out] = Ridge(alpha=penalty * unit).fit(x[~out], y[~out]).predict(x[out])
        return np.mean((softmax(predicted, axis=1) - fractions) ** 2)

    best = min(PENALTIES, key=error)
    return softmax(Ridge(alpha=best * unit).fit(x, y).predict(x_new), axis=1)


@pytest.mark.parametrize("several", [False, True])
def test_epoch_0_equals_the_closed_form_ridge_solution(pairs, repeated_pairs, several):
    data = repeated_pairs if several else pairs
    pp.select_genes(data, 60)
    bulk = data["bulk"]
    genes = bulk.var["selected"].to_numpy()
    known = bulk.obsm["measured_fractions"].notna().all(axis=1).to_numpy()
    expected = closed_form(
        bulk.X[known][:, genes],
        bulk.obsm["measured_fractions"].to_numpy()[known],
        bulk.obs["donor"].to_numpy()[known],
        bulk.X[:, genes],
    )
    model = tl.train(data, "simplednn", max_epochs=0)
    assert model.best_epoch_ == 0
    np.testing.assert_allclose(model.predict(bulk), expected, atol=2e-5)
    assert (FLOOR, LEVEL, LEAST_SD) == (0.01, 10, 0.1)


def test_each_member_starts_from_the_ridge_without_its_held_out_donors(pairs, fits):
    model = tl.train(pairs, "simplednn", max_epochs=0, refit=False)
    bulk = pairs["bulk"][:, model.genes_]
    known = bulk.obsm["measured_fractions"].notna().all(axis=1).to_numpy()
    x = log_expression(bulk.X.astype(float), model.module.reference.numpy().astype(float))
    x = (x - model.module.centre.numpy()) / model.module.scale.numpy()
    y = centred_log_ratio(bulk.obsm["measured_fractions"].to_numpy(), FLOOR)
    for member, held in enumerate(fits[0]["data"].validation.numpy() > 0):
        kept = np.flatnonzero(known)[~held]
        weight = model.module.linear.weight[member].detach().numpy()
        errors = []
        for penalty in PENALTIES:
            unit = ((x[kept] - x[kept].mean(axis=0)) ** 2).sum() / len(kept)
            ridge = Ridge(alpha=penalty * unit).fit(x[kept], y[kept])
            errors.append(np.abs(ridge.coef_.T - weight).max())
        assert min(errors) < 1e-5


# doors and arguments


def bulk_with_truth(pairs):
    bulk = pairs["bulk"]
    return bulk[bulk.obsm["measured_fractions"].notna().all(axis=1).to_numpy()].copy()


def test_model_of_an_anndata_equals_the_model_of_the_mudata(pairs):
    bulk = bulk_with_truth(pairs)
    SimpleDNN.setup_anndata(bulk)
    single = SimpleDNN(bulk, **SMALL)
    single.train(max_epochs=3)
    SimpleDNN.setup_mudata(pairs)
    joint = SimpleDNN(pairs, **SMALL)
    joint.train(max_epochs=3)
    pd.testing.assert_frame_equal(single.predict(bulk), joint.predict(bulk), check_exact=True)


def test_model_of_an_anndata_with_ensembl_versions_predicts_bulk_with_others(pairs):
    bulk = bulk_with_truth(pairs)
    bulk.var_names = [f"ENSG{i:011d}.3" for i in range(bulk.n_vars)]
    SimpleDNN.setup_anndata(bulk)
    model = SimpleDNN(bulk, **SMALL)
    model.train(max_epochs=1)
    expected = model.predict(bulk)
    bulk.var_names = [f"ENSG{i:011d}.7" for i in range(bulk.n_vars)]
    pd.testing.assert_frame_equal(model.predict(bulk), expected, check_exact=True)


@pytest.mark.parametrize(("container", "key"), [("obs", "donor"), ("obsm", "measured_fractions")])
def test_anndata_without_donors_or_truth_is_refused_by_name(pairs, container, key):
    bulk = bulk_with_truth(pairs)
    del getattr(bulk, container)[key]
    with pytest.raises(KeyError, match=rf"Expected {container}\['{key}'\] in adata"):
        SimpleDNN.setup_anndata(bulk)


def test_simulated_bulk_that_is_not_there_is_named(pairs):
    with pytest.raises(KeyError, match=r"Expected modality 'simulated' to train on, .*Call pp.simulate"):
        SimpleDNN.setup_mudata(pairs, train_on="simulated")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "kl"}, r"Expected loss to be one of \['cross_entropy', 'l1', 'mse'\], found 'kl'"),
        ({"dropout": (0.1, 0.2, 0.3)}, "Expected a dropout rate for each of 2 hidden layers, found 3"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SimpleDNN(**arguments)


def test_one_donor_is_refused(pairs):
    bulk = bulk_with_truth(pairs)
    bulk.obs["donor"] = "the same"
    SimpleDNN.setup_anndata(bulk)
    with pytest.raises(ValueError, match="Expected samples of at least 2 donors to train on, found 1"):
        SimpleDNN(bulk, **SMALL).train()


@pytest.mark.parametrize("n_donors", [2, 3, 4])
@pytest.mark.parametrize("refit", [True, False])
def test_few_donors_are_enough(pairs, n_donors, refit):
    bulk = bulk_with_truth(pairs)[:n_donors].copy()
    SimpleDNN.setup_anndata(bulk)
    model = SimpleDNN(bulk, hidden=(4,), n_members=5)
    model.train(max_epochs=3, refit=refit)
    np.testing.assert_allclose(model.predict(bulk).sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_the_one_that_is_minimised(pairs, fits, loss):
    tl.train(pairs, "simplednn", loss=loss, max_epochs=2, **SMALL)
    assert fits[0]["loss"] is LOSSES[loss]


def test_training_arguments_reach_the_training_loop(pairs, fits):
    arguments = {"learning_rate": 0.02, "weight_decay": 0.3, "patience": 4, "batch_size": 5}
    tl.train(pairs, "simplednn", max_epochs=6, **arguments, **SMALL)
    assert {name: fits[0]["arguments"][name] for name in arguments} == arguments
    # 10 rows in batches of 5 are two steps an epoch
    assert fits[0]["arguments"]["max_steps"] == 12


def test_no_hidden_layer_is_a_linear_model(pairs):
    model = tl.train(pairs, "simplednn", hidden=(), n_members=2, max_epochs=2)
    assert sum(isinstance(layer, BatchedLinear) for layer in model.module.perceptrons) == 1
