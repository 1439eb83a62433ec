"""The paper's network on pairs: data, arguments, augmentation and files."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from scdeconv import pp, tl
from scdeconv._nn import LOSSES, BatchedLinear
from scdeconv.models import SimpleDNN

SMALL = {"hidden": (8,), "n_members": 2}


def test_sample_without_counts_is_no_pair(empty_sample_pairs):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        model = tl.train(empty_sample_pairs, "simplednn", max_epochs=20, learning_rate=0.01, **SMALL)
    fractions = model.predict(empty_sample_pairs["bulk"])
    assert list(fractions.isna().all(axis=1)) == [True] + [False] * (len(fractions) - 1)


# input and arguments


def test_anndata_and_mudata_give_the_same_model(pairs, bulk_with_truth):
    """Without mixtures, whose RNA per cell comes from the profiles."""
    SimpleDNN.setup_anndata(bulk_with_truth)
    single = SimpleDNN(bulk_with_truth, mix=0, **SMALL)
    single.train(max_epochs=3)
    SimpleDNN.setup_mudata(pairs)
    joint = SimpleDNN(pairs, mix=0, **SMALL)
    joint.train(max_epochs=3)
    predicted = single.predict(bulk_with_truth, in_sample=True)
    pd.testing.assert_frame_equal(predicted, joint.predict(bulk_with_truth, in_sample=True), check_exact=True)


def test_ensembl_versions_of_an_anndata_do_not_matter(bulk_with_truth):
    bulk = bulk_with_truth
    bulk.var_names = [f"ENSG{i:011d}.3" for i in range(bulk.n_vars)]
    SimpleDNN.setup_anndata(bulk)
    model = SimpleDNN(bulk, **SMALL)
    model.train(max_epochs=1)
    expected = model.predict(bulk, in_sample=True)
    bulk.var_names = [f"ENSG{i:011d}.7" for i in range(bulk.n_vars)]
    pd.testing.assert_frame_equal(model.predict(bulk, in_sample=True), expected, check_exact=True)


@pytest.mark.parametrize(("container", "key"), [("obs", "donor"), ("obsm", "measured_fractions")])
def test_anndata_without_donors_or_fractions_is_refused(bulk_with_truth, container, key):
    del getattr(bulk_with_truth, container)[key]
    with pytest.raises(KeyError, match=rf"Expected {container}\['{key}'\] in adata"):
        SimpleDNN.setup_anndata(bulk_with_truth)


def test_missing_simulated_bulk_is_refused(pairs):
    with pytest.raises(KeyError, match=r"Expected modality 'simulated' to train on, .*Call pp.simulate"):
        SimpleDNN.setup_mudata(pairs, train_on="simulated")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "kl"}, r"Expected loss to be one of \['cross_entropy', 'mse', 'l1'\], found 'kl'"),
        ({"dropout": (0.1, 0.2, 0.3)}, "Expected one dropout rate for each of 2 hidden layers, found 3"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SimpleDNN(**arguments)


@pytest.mark.parametrize("argument", [{"simulate": 100}, {"simulate": None}, {"start_from_solution": False}])
def test_former_arguments_name_the_new_methods(pairs, argument):
    (name,) = argument
    with pytest.raises(TypeError, match=rf"found \['{name}'\].*'simplednn'.*'residual_dnn'"):
        SimpleDNN(**argument)
    with pytest.raises(TypeError, match=rf"found \['{name}'\].*method='residual_dnn'"):
        tl.train(pairs, "simplednn", **argument)


@pytest.mark.parametrize("argument", [{"hidden": (8,)}, {"max_epochs": 3}, {"n_members": 2}])
def test_network_arguments_of_the_default_method_are_refused(pairs, argument):
    (name,) = argument
    expected = rf"Expected arguments of WeightedEnsemble.*found \['{name}'\].*'residual_dnn'.*'simplednn'"
    with pytest.raises(TypeError, match=expected):
        tl.train(pairs, **argument)


def test_one_donor_is_refused(bulk_with_truth):
    bulk_with_truth.obs["donor"] = "the same"
    SimpleDNN.setup_anndata(bulk_with_truth)
    with pytest.raises(ValueError, match="Expected training samples of at least 2 donors, found 1"):
        SimpleDNN(bulk_with_truth, **SMALL).train()


@pytest.mark.parametrize("n_donors", [2, 3, 4])
@pytest.mark.parametrize("refit", [True, False])
def test_few_donors_are_enough(bulk_with_truth, n_donors, refit):
    bulk = bulk_with_truth[:n_donors].copy()
    SimpleDNN.setup_anndata(bulk)
    model = SimpleDNN(bulk, hidden=(4,), n_members=5)
    model.train(max_epochs=3, refit=refit)
    np.testing.assert_allclose(model.predict(bulk, in_sample=True).sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_named_loss_is_minimised(pairs, fits, loss):
    tl.train(pairs, "simplednn", loss=loss, max_epochs=2, **SMALL)
    assert fits[0]["loss"] is LOSSES[loss]


def test_training_arguments_reach_the_training_loop(pairs, fits):
    arguments = {"learning_rate": 0.02, "weight_decay": 0.3, "patience": 4, "batch_size": 5}
    tl.train(pairs, "simplednn", max_epochs=6, mix=0, **arguments, **SMALL)
    assert {name: fits[0]["arguments"][name] for name in arguments} == arguments
    # 10 rows in batches of 5 are two steps an epoch
    assert fits[0]["arguments"]["max_steps"] == 12


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_many_hidden_layers_can_be_trained(pairs, dropout):
    model = tl.train(pairs, "simplednn", hidden=(6, 6, 6, 6, 5), dropout=dropout, n_members=2, max_epochs=1)
    assert model.predict(pairs["bulk"]).notna().all(axis=None)


def test_no_hidden_layer_is_a_linear_model(pairs):
    model = tl.train(pairs, "simplednn", hidden=(), n_members=2, max_epochs=2)
    assert sum(isinstance(layer, BatchedLinear) for layer in model.module.perceptrons) == 1


# augmentation


def test_augmented_fractions_are_the_choices_of_a_row(pairs, fits):
    pp.augment(pairs, n_aug=7, aug_ratio=0.5)
    tl.train(pairs, "simplednn", max_epochs=1, **SMALL)
    known = pairs["bulk"].obsm["measured_fractions"].notna().all(axis=1).to_numpy()
    np.testing.assert_allclose(fits[0]["data"].targets, pairs["bulk"].obsm["augmented_fractions"][known], rtol=1e-6)


def test_uncounted_sample_keeps_its_measured_fractions(pairs, fits):
    pp.augment(pairs, n_aug=7)
    row = int(np.flatnonzero(pairs["bulk"].obsm["measured_fractions"].notna().all(axis=1))[0])
    pairs["bulk"].obsm["augmented_fractions"][row] = np.nan
    tl.train(pairs, "simplednn", max_epochs=1, **SMALL)
    measured = pairs["bulk"].obsm["measured_fractions"].iloc[row]
    np.testing.assert_allclose(fits[0]["data"].targets[0], np.tile(measured, (7, 1)), rtol=1e-6)


# randomness and files


def test_seed_determines_the_fractions(pairs, global_state_untouched):
    settings = {"max_epochs": 8, "learning_rate": 0.01, **SMALL}
    with global_state_untouched():
        first, again, other = (tl.train(pairs, "simplednn", seed=seed, **settings) for seed in (3, 3, 4))
    bulk = pairs["bulk"]
    pd.testing.assert_frame_equal(
        first.predict(bulk, in_sample=True), again.predict(bulk, in_sample=True), check_exact=True
    )
    assert not first.predict(bulk, in_sample=True).equals(other.predict(bulk, in_sample=True))
    assert (first.seed_, other.seed_) == (3, 4)


def test_global_random_state_does_not_matter(pairs):
    first = tl.train(pairs, "simplednn", max_epochs=5, **SMALL).predict(pairs["bulk"], in_sample=True)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        again = tl.train(pairs, "simplednn", max_epochs=5, **SMALL).predict(pairs["bulk"], in_sample=True)
    pd.testing.assert_frame_equal(first, again, check_exact=True)


def test_loading_does_not_change_the_random_state(pairs, tmp_path, global_state_untouched):
    tl.train(pairs, "simplednn", max_epochs=1, **SMALL).save(tmp_path / "model")
    with global_state_untouched():
        SimpleDNN.load(tmp_path / "model")


def test_seed_and_sizes_may_be_numpy_integers(pairs, tmp_path):
    sizes = {"seed": np.int64(3), "n_members": np.int64(2), "hidden": np.array([4])}
    model = tl.train(pairs, "simplednn", max_epochs=1, **sizes)
    model.save(tmp_path / "model")
    assert (
        SimpleDNN.load(tmp_path / "model")
        .predict(pairs["bulk"], in_sample=True)
        .equals(model.predict(pairs["bulk"], in_sample=True))
    )
