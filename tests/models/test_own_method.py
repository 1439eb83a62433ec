"""Methods of users: registration, training, comparison and files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from scdeconv import load_model, models, pp, tl
from scdeconv.models import CrossFittedModel, Method, State, register, resolve


def record(key, **changes):
    values = {"family": "paired", "needs": ("pairs",), "summary": "scaled mean", "reference": "this test", **changes}
    return Method(key=key, **values)


@dataclass(frozen=True, kw_only=True)
class PowerMeanState(State):
    """A composition, length cell types."""

    mean: np.ndarray

    def predict(self, expression):
        return np.tile(self.mean, (len(expression), 1))


class PowerMean(CrossFittedModel):
    """The mean composition, raised to a power."""

    record = record("power_mean")
    state_type = PowerMeanState

    def __init__(self, mdata=None, *, power=1.0):
        super().__init__(mdata)
        self.parameters_ = {"power": power}

    def fit(self, data, without=()):
        return PowerMeanState(mean=data.pairs(without).fractions.mean(axis=0) ** self.parameters_["power"])


class NoisyMean(PowerMean):
    """The mean composition and noise."""

    record = record("noisy_mean", stochastic=True)

    def train(self, *, held_out=True, seed=0):
        self._train(held_out=held_out, seed=seed)

    def fit(self, data, without=(), *, seed=0):
        noise = np.random.default_rng(seed).uniform(0, 1, len(data.cell_types))
        return PowerMeanState(mean=data.pairs(without).fractions.mean(axis=0) + noise)


@pytest.fixture
def registry(monkeypatch):
    """The methods that are registered in a test are forgotten afterwards."""
    monkeypatch.setattr("scdeconv.models._registry._registered", {})


def expected_fractions(mdata, power=1.0):
    mean = mdata["bulk"].obsm["measured_fractions"].dropna().to_numpy().mean(axis=0) ** power
    return np.tile(mean / mean.sum(), (mdata["bulk"].n_obs, 1))


# register


@pytest.mark.usefixtures("registry")
def test_registered_method_is_listed_and_trained_by_key(pairs, capsys):
    assert register(PowerMean) is PowerMean
    assert tl.methods().loc["power_mean", "summary"] == "scaled mean"
    pp.select_genes(pairs, 200)
    model = tl.train(pairs, "power_mean", power=2.0)
    assert type(model) is PowerMean
    np.testing.assert_allclose(model.predict(pairs["bulk"], in_sample=True), expected_fractions(pairs, 2.0))
    assert capsys.readouterr().out.startswith("power_mean: 200 genes; out-of-fold RMSE")
    assert len(model.held_out_.donors) == 10


@pytest.mark.usefixtures("registry")
def test_registering_again_replaces_the_class(pairs):
    register(PowerMean)
    again = register(type("PowerMean", (PowerMean,), {"record": record("power_mean", summary="second")}))
    assert tl.methods().loc["power_mean", "summary"] == "second"
    assert type(tl.train(pairs, "power_mean")) is again


@pytest.mark.parametrize("found", [5, None, "ridge", object(), print, dict, pd.DataFrame, models.Ridge()])
def test_other_objects_are_not_registered(found):
    with pytest.raises(TypeError, match="Expected cls to be a subclass of scdeconv.models.CrossFittedModel, found"):
        register(found)


def test_class_without_record_is_refused(pairs):
    bare = type("Bare", (CrossFittedModel,), {"fit": PowerMean.fit, "state_type": PowerMeanState})
    wrong = type("Wrong", (PowerMean,), {"record": record("wrong")})
    wrong.record = {"key": "wrong"}
    for cls in (bare, wrong):
        for call in (register, lambda cls: tl.train(pairs, cls), lambda cls: tl.benchmark(pairs, [cls])):
            with pytest.raises(TypeError, match=rf"Expected a class attribute record .*found none in {cls.__name__}"):
                call(cls)


def test_class_without_state_type_is_not_registered():
    cls = type("Bare", (CrossFittedModel,), {"record": record("bare"), "fit": PowerMean.fit})
    with pytest.raises(TypeError, match=r"Expected a dataclass Bare.state_type, found none"):
        register(cls)


def test_library_names_cannot_be_registered():
    with pytest.raises(ValueError, match=r"Expected a new key in Mine.record, found 'ridge'"):
        register(type("Mine", (PowerMean,), {"record": record("ridge")}))
    with pytest.raises(ValueError, match="Expected a new class name, found 'Ridge'"):
        register(type("Ridge", (PowerMean,), {"record": record("my_ridge")}))
    assert "my_ridge" not in tl.methods().index


# train, cross_validate and benchmark


@pytest.mark.parametrize("method", [PowerMean, PowerMean(power=3.0), PowerMean(None, power=3.0)])
def test_train_takes_unregistered_classes_and_instances(pairs, unchanged, method):
    power = 1.0 if isinstance(method, type) else 3.0
    with unchanged(pairs):
        model = tl.train(pairs, method)
    assert model is not method
    np.testing.assert_allclose(model.predict(pairs["bulk"], in_sample=True), expected_fractions(pairs, power))
    assert model.parameters_ == {"power": power}
    assert "power_mean" not in tl.methods().index


def test_given_arguments_override_those_of_the_instance(pairs):
    model = tl.train(pairs, PowerMean(power=3.0), power=2.0)
    np.testing.assert_allclose(model.predict(pairs["bulk"], in_sample=True), expected_fractions(pairs, 2.0))


def test_arguments_of_library_instances_are_taken(pairs):
    instance = models.SimulationRidge(n_simulated=37)
    model = tl.train(pairs, instance, seed=3)
    assert model.parameters_ == {"n_simulated": 37}
    assert model.seed_ == 3
    assert not instance.is_trained_
    by_name = tl.train(pairs, "simulation_ridge", n_simulated=37, seed=3)
    pd.testing.assert_frame_equal(
        model.predict(pairs["bulk"], in_sample=True), by_name.predict(pairs["bulk"], in_sample=True), check_exact=True
    )


def test_seed_reaches_the_fit_of_own_methods(pairs):
    first, again, other = (tl.train(pairs, NoisyMean, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.state_.mean, again.state_.mean)
    np.testing.assert_array_equal(first.held_out_.predicted, again.held_out_.predicted)
    assert not np.array_equal(first.state_.mean, other.state_.mean)
    assert not np.array_equal(first.held_out_.predicted, other.held_out_.predicted)


def test_unknown_arguments_of_own_methods_are_refused(pairs):
    with pytest.raises(
        TypeError, match=r"Expected arguments of PowerMean: \['held_out', 'power'\], found \['strength'\]"
    ):
        tl.train(pairs, PowerMean, strength=2)


@pytest.mark.parametrize("call", [tl.train, tl.cross_validate, lambda mdata, method: tl.benchmark(mdata, [method])])
@pytest.mark.parametrize("found", [5, object(), print, dict, PowerMeanState, np.ones(3)])
def test_wrong_objects_are_refused(pairs, call, found):
    with pytest.raises(
        TypeError,
        match=r"Expected methods? to be .*the name, class or instance of a method, (.|\n)*found (.|\n)*tl.methods",
    ):
        call(pairs, found)


def test_resolve_returns_class_and_arguments():
    assert resolve("ridge") == (models.Ridge, {})
    assert resolve(PowerMean) == (PowerMean, {})
    assert resolve(PowerMean(power=2.0)) == (PowerMean, {"power": 2.0})


@pytest.mark.parametrize("method", [PowerMean, PowerMean(power=3.0)])
def test_cross_validation_predicts_from_other_donors(pairs, method):
    power = 1.0 if isinstance(method, type) else 3.0
    predicted = tl.cross_validate(pairs, method)
    measured = pairs["bulk"].obsm["measured_fractions"].dropna()
    assert list(predicted.index) == list(measured.index)
    for sample, row in predicted.iterrows():
        mean = measured.drop(sample).to_numpy().mean(axis=0) ** power
        np.testing.assert_allclose(row, mean / mean.sum())


def test_benchmark_compares_classes_and_instances(pairs):
    table = tl.benchmark(pairs, [PowerMean, NoisyMean(power=2.0), "ridge"], cv=3, seeds=(0, 1))
    assert list(table["method"].unique()) == ["power_mean", "noisy_mean", "ridge", "mean_composition"]
    seeds = table.groupby("method")["seed"].unique().map(list)
    assert seeds.to_dict() == {"power_mean": [0], "noisy_mean": [0, 1], "ridge": [0], "mean_composition": [0]}
    pooled = table[table["cell_type"] == "all entries"].set_index("method")["rmse"]
    assert pooled["power_mean"] == pytest.approx(pooled["mean_composition"])


def test_benchmark_labels_instances_of_one_class(pairs):
    with pytest.raises(ValueError, match=r"Expected methods with different keys, found 'power_mean' twice"):
        tl.benchmark(pairs, [PowerMean(power=2.0), PowerMean(power=3.0)])
    labels = {
        "square": {"method": PowerMean(power=2.0)},
        "cube": {"method": PowerMean(power=2.0), "power": 3.0},
        "again": {"method": PowerMean, "power": 2.0},
    }
    table = tl.benchmark(pairs, labels, cv=3)
    pooled = table[table["cell_type"] == "all entries"].set_index("method")["rmse"]
    assert pooled["square"] == pooled["again"] != pooled["cube"]


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("registered", [True, False])
def test_benchmark_runs_own_methods_in_other_processes(pairs, registered):
    if registered:
        register(PowerMean)
    method = "power_mean" if registered else PowerMean(power=2.0)
    one, two = (tl.benchmark(pairs, [method], cv=3, n_jobs=n_jobs) for n_jobs in (1, 2))
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), two.drop(columns="seconds"))
    assert list(two["method"].unique()) == ["power_mean", "mean_composition"]


# files


@pytest.mark.usefixtures("registry")
def test_own_method_is_saved_and_loaded(pairs, tmp_path):
    model = tl.train(pairs, PowerMean(power=2.0))
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"found PowerMean.*Register your own method"):
        load_model(tmp_path / "model")
    register(PowerMean)
    for loaded in (load_model(tmp_path / "model"), PowerMean.load(tmp_path / "model")):
        assert type(loaded) is PowerMean
        assert loaded.parameters_ == {"power": 2.0}
        expected, found = (m.estimate(pairs["bulk"], coverage=0.9, in_sample=True) for m in (model, loaded))
        for name, frame in expected.items():
            pd.testing.assert_frame_equal(found[name], frame, check_exact=True)


def test_own_method_works_with_selected_genes(pairs):
    pp.select_genes(pairs, 50)
    assert len(tl.train(pairs, PowerMean).genes_) == pairs["bulk"].var["selected"].sum()
