"""Common checks of the methods with a pure ``fit``."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import FrozenInstanceError, fields, is_dataclass

import numpy as np
import pytest

from scdeconv import pp
from scdeconv.models import CrossFittedModel, PairedData, State, load_class, records

METHODS = [key for key in records() if issubclass(load_class(key), CrossFittedModel)]
# fewer simulated samples than by default, and no choice of the penalty, keep the checks short
ARGUMENTS = {"simulation_ridge": {"n_simulated": 100}, "harp": {"penalty": 1.0}}
OPTIONS = [
    *((key, ARGUMENTS.get(key, {})) for key in METHODS),
    ("bayesprism", {"update_reference": True, "cell_state_key": "state"}),
    ("cibersortx", {"batch_correction": "S"}),
    ("cibersortx", {"batch_correction": "B"}),
    ("dwls", {"hierarchical": True}),
    ("music", {"covariance": True}),
    ("music", {"groups": {"first two": [0, 1]}}),
    ("nonnegative_ridge", {"penalty": 0.1}),
]
ids = [key if not chosen else f"{key}-{'-'.join(chosen)}" for key, chosen in OPTIONS]
over_options = pytest.mark.parametrize(("key", "arguments"), OPTIONS, ids=ids)


@pytest.fixture
def data(pairs):
    """Pairs over 60 genes that the user selected, which stay the same where donors are held out."""
    obs = pairs["sc"].obs
    obs["state"] = obs["cell_type"].astype(str) + np.random.default_rng(0).choice([" a", " b"], len(obs))
    pairs["bulk"].var["selected"] = np.arange(pairs["bulk"].n_vars) % 4 == 0
    return PairedData(pairs, pairs["bulk"].var_names[pairs["bulk"].var["selected"]])


@pytest.fixture
def make(data):
    """A function that makes an untrained model."""

    def make_model(key, arguments, mdata=data.mdata):
        if "groups" in arguments:
            arguments = {"groups": {name: [data.cell_types[i] for i in of] for name, of in arguments["groups"].items()}}
        return load_class(key)(mdata, **arguments)

    return make_model


def genes_of(model):
    """Return data over the genes that training would use."""
    return PairedData(model.mdata, model._input_genes())


def attributes(model):
    return {name: value for name, value in vars(model).items() if name != "mdata"}


def assert_same_state(first, second):
    """Compare two states field by field, exactly."""
    assert type(first) is type(second)
    for field in fields(first):
        one, other = (getattr(state, field.name) for state in (first, second))
        if is_dataclass(one):
            assert_same_state(one, other)
        else:
            np.testing.assert_array_equal(one, other)


def test_all_reference_methods_are_checked():
    assert {"nnls", "music", "bayesprism", "dwls", "cibersort", "bisque", "ridge"} <= set(METHODS)
    assert {key for key, record in records().items() if record.family == "reference"} <= set(METHODS)


@over_options
def test_fit_changes_neither_model_nor_data(key, arguments, make, data, unchanged, global_state_untouched):
    model = make(key, arguments)
    donor = pp.paired_donors(data.mdata)[0]
    mdata, genes, before = model.mdata, list(data.genes), dict(vars(model))
    with unchanged(data.mdata, attributes(model)), global_state_untouched():
        first = model.fit(genes_of(model), without=[donor])
        again = model.fit(genes_of(model), without=[donor])
    assert vars(model) == before
    assert model.mdata is mdata
    assert list(data.genes) == genes
    assert not model.is_trained_
    assert_same_state(first, again)


@over_options
def test_fit_changes_no_trained_model(key, arguments, make, unchanged):
    model = make(key, arguments)
    model.train(held_out=False)
    donor, data, state = pp.paired_donors(model.mdata)[0], genes_of(model), model.state_
    expected = deepcopy(state)
    with unchanged(model.mdata, attributes(model)):
        model.fit(data, without=[donor])
    assert model.state_ is state
    assert_same_state(state, expected)


@over_options
def test_fit_does_not_depend_on_earlier_fits(key, arguments, make):
    """Data cache sums of the cells: donors excluded before must not matter."""
    model = make(key, arguments)
    first, second = pp.paired_donors(model.mdata)[:2]
    used = genes_of(model)
    model.fit(used, without=[second])
    assert_same_state(model.fit(used, without=[first]), model.fit(genes_of(model), without=[first]))


@over_options
def test_state_is_a_frozen_dataclass(key, arguments, make):
    model = make(key, arguments)
    state = model.fit(genes_of(model))
    assert isinstance(state, State)
    assert isinstance(state, model.state_type)
    assert is_dataclass(state)
    for field in fields(state):
        with pytest.raises(FrozenInstanceError):
            setattr(state, field.name, None)
    with pytest.raises(FrozenInstanceError):
        state.another = 1


@over_options
def test_train_stores_the_fitted_state(key, arguments, make):
    model = make(key, arguments)
    model.train(held_out=False)
    assert_same_state(model.state_, model.fit(genes_of(model)))


@over_options
def test_fit_without_donors_equals_training_on_others(key, arguments, make):
    model = make(key, arguments)
    donors = pp.paired_donors(model.mdata)[2:4]
    rest, held_out = pp.hold_out(model.mdata, donors)
    trained = make(key, arguments, rest)
    trained.train(held_out=False)
    data = genes_of(model)
    assert list(trained.genes_) == list(data.genes)
    state = model.fit(data, without=donors)
    # one sample cannot be corrected for batches, so all bulk is predicted
    bulk = model.mdata["bulk"]
    assert held_out.n_obs == 2
    found = state.estimate(bulk[:, data.genes].X.astype(float)).fractions
    np.testing.assert_allclose(found, trained.predict(bulk, in_sample=True), atol=1e-6)
    assert state.summary == trained.state_.summary


@over_options
def test_fit_reads_donors_that_are_kept(key, arguments, make):
    model = make(key, arguments)
    bulk, data = model.mdata["bulk"], genes_of(model)
    expression = bulk[:, data.genes].X.astype(float)
    every, fewer = (
        model.fit(data, without=left_out).estimate(expression).fractions
        for left_out in ((), pp.paired_donors(model.mdata)[2:6])
    )
    assert np.abs(every - fewer).max() > 1e-6
