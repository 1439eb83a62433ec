"""Learned state of all models of cells: frozen, stored once, saved and loaded."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, is_dataclass

import numpy as np
import pandas as pd
import pytest

from scdeconv import pp
from scdeconv.clustering import DESC, ScDCC, ScDeepCluster, ScGen, Scvis, _desc, _scdeepcluster, _scgen, _scvis
from scdeconv.clustering._base import CellRecord, CellState
from scdeconv.io import SavedModel, read_description

COUNT_NETWORK = {"n_clusters": 3, "n_latent": 4, "hidden": (16, 8)}
ARCHITECTURES = {
    DESC: {"resolution": [0.5, 1.0], "hidden": (8,)},
    ScDeepCluster: COUNT_NETWORK,
    ScDCC: COUNT_NETWORK,
    ScGen: {"n_latent": 4, "n_hidden": 16},
    Scvis: {"n_pcs": 8},
}
TRAINING = {
    DESC: {"max_epochs": 6},
    ScDeepCluster: {"pretrain_epochs": 3, "max_epochs": 2},
    ScDCC: {"pretrain_epochs": 3, "max_epochs": 2},
    ScGen: {"max_epochs": 2},
    Scvis: {"max_epochs": 2},
}
FILES = {DESC: _desc, ScDeepCluster: _scdeepcluster, ScDCC: _scdeepcluster, ScGen: _scgen, Scvis: _scvis}
CLASSES = pytest.mark.parametrize("cls", ARCHITECTURES, ids=lambda cls: cls.__name__)


@pytest.fixture(scope="module")
def cells(make_cells):
    """Do not change."""
    cells = make_cells(n_cells=150, n_genes=120)
    cells.obs["plate"] = np.where(np.arange(150) % 2, "p1", "p2")
    return cells


@pytest.fixture(scope="module")
def make_model(cells):
    def make(cls):
        cls.setup_anndata(cells, batch_key="plate", **({"cell_type_key": "group"} if cls is ScGen else {}))
        more = {"constraints": pp.constraints(cells, labels_key="group", n_pairs=20)} if cls is ScDCC else {}
        return cls(cells, **ARCHITECTURES[cls], **more)

    return make


@pytest.fixture(scope="module")
def trained(make_model):
    """One model of each class; do not change them."""
    models = {}

    def get(cls):
        if cls not in models:
            models[cls] = make_model(cls)
            models[cls].train(**TRAINING[cls], seed=5)
        return models[cls]

    return get


@CLASSES
def test_state_is_a_frozen_dataclass_of_arrays(trained, cls):
    model = trained(cls)
    assert isinstance(model, SavedModel)
    for part, kind in ((model.state_, CellState), (model.training_, CellRecord)):
        assert is_dataclass(part)
        assert type(part) is kind
        with pytest.raises(FrozenInstanceError):
            setattr(part, fields(part)[0].name, None)
    with pytest.raises(FrozenInstanceError):
        model.state_.scaling.total = 1.0
    assert all(type(array) is np.ndarray for array in model.state_.weights.values())


@CLASSES
def test_attributes_show_the_training(trained, cells, cls):
    model = trained(cls)
    assert model.is_trained_
    assert list(model.genes_) == list(cells.var_names)
    assert (model.batch_key_, model.batches_) == ("plate", ["p1", "p2"])
    assert (model.seed_, model.interrupted_) == (5, False)
    assert repr(model) == f"{cls.__name__}: {model.summary_}"
    assert isinstance(model.history["train_loss"], pd.DataFrame)
    assert model.scaling_ is model.state_.scaling
    assert not hasattr(model, "history_")


@CLASSES
def test_registration_is_known_before_training(make_model, cls):
    model = make_model(cls)
    assert (model.batch_key_, model.batches_) == ("plate", ["p1", "p2"])
    assert (model.history, model.summary_, model.seed_, model.interrupted_) == (None, "", None, False)
    with pytest.raises(RuntimeError, match=f"trained model, found an untrained {cls.__name__}"):
        _ = model.scaling_
    if cls is ScGen:
        assert model.cell_type_key_ == "group"


@CLASSES
def test_network_shares_memory_with_the_state(trained, tmp_path, cls):
    model = trained(cls)
    model.save(tmp_path / "model")
    for each in (model, cls.load(tmp_path / "model")):
        tensors = each.module.state_dict()
        assert set(tensors) == set(each.state_.weights)
        for name, array in each.state_.weights.items():
            assert tensors[name].data_ptr() == array.__array_interface__["data"][0]
        assert all(weights.requires_grad for weights in each.module.parameters())
        assert not each.module.training


@CLASSES
def test_loaded_model_equals_the_saved_one(trained, cells, tmp_path, cls, global_state_untouched):
    model = trained(cls)
    model.save(tmp_path / "model")
    with global_state_untouched():
        loaded = cls.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.get_latent_representation(cells), model.get_latent_representation(cells))
    assert loaded.training_ == model.training_
    assert loaded.batch_key_ == "plate"
    assert list(loaded.history) == list(model.history)
    for name, curve in model.history.items():
        pd.testing.assert_frame_equal(loaded.history[name], curve)
    # a loaded model can be saved again
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again" / "model.json").read_text() == (tmp_path / "model" / "model.json").read_text()


@CLASSES
def test_failed_training_keeps_the_earlier_model(trained, make_model, cells, monkeypatch, cls):
    model, expected = make_model(cls), trained(cls).get_latent_representation()
    model.train(**TRAINING[cls], seed=5)
    before = (model.state_, model.training_, model.module)
    fit, calls = FILES[cls].fit_cells, []

    def failing(*arguments, **settings):
        calls.append(1)
        plan = fit(*arguments, **settings)
        # in the second phase, where there are two
        if len(calls) == 2 or cls in (ScGen, Scvis):
            raise MemoryError
        return plan

    monkeypatch.setattr(FILES[cls], "fit_cells", failing)
    with pytest.raises(MemoryError):
        model.train(**TRAINING[cls], seed=6)
    assert all(now is then for now, then in zip((model.state_, model.training_, model.module), before, strict=True))
    np.testing.assert_array_equal(model.get_latent_representation(), expected)
    assert model.seed_ == 5


@CLASSES
def test_failed_first_training_leaves_no_model(make_model, monkeypatch, cls):
    def failing(*arguments, **settings):
        raise MemoryError

    monkeypatch.setattr(FILES[cls], "fit_cells", failing)
    model = make_model(cls)
    with pytest.raises(MemoryError):
        model.train(**TRAINING[cls])
    assert not model.is_trained_
    assert repr(model) == f"{cls.__name__}: not trained"


@CLASSES
def test_newer_format_is_refused_by_name(trained, tmp_path, cls):
    trained(cls).save(tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "format": 99, "version": "7.0"}))
    with pytest.raises(ValueError, match=r"found format 99, written by scdeconv 7\.0\. Update scdeconv"):
        cls.load(tmp_path / "model")


@CLASSES
def test_changed_weights_are_refused(trained, tmp_path, cls):
    trained(cls).save(tmp_path / "model")
    path = tmp_path / "model" / "weights.npz"
    with np.load(path) as file:
        arrays = dict(file)
    name = next(name for name in arrays if name.startswith("state.weights."))
    np.savez(path, **{**arrays, name: arrays[name] + 1})
    with pytest.raises(ValueError, match=r"Expected a weights\.npz that matches model\.json .*, found another"):
        cls.load(tmp_path / "model")


def test_files_list_every_array_with_its_shape(trained, tmp_path):
    model = trained(Scvis)
    model.save(tmp_path / "model")
    listed = read_description(tmp_path / "model")["arrays"]
    for name, array in model.state_.weights.items():
        assert listed[f"state.weights.{name}"]["shape"] == list(array.shape)
    assert {"state.scaling.mean", "state.scaling.sd"} < set(listed)
