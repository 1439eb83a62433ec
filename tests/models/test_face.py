"""What every method promises: one face, whatever is behind it."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import models, pp, tl
from scdeconv._data.modalities import make_mudata
from scdeconv.models import DeconvolutionModel, load_class

# arguments that make training short; a new method is tested with its defaults
ARCHITECTURE = {
    "simplednn": {"n_members": 2, "hidden": (8,)},
    "residual_dnn": {"n_members": 2, "hidden": (8,), "simulate": 20},
    "simulation_ridge": {"n_simulated": 50},
    "harp": {"penalty": 1.0},
}
TRAINING = {"simplednn": {"max_epochs": 3}, "residual_dnn": {"max_epochs": 3}, "scaden": {"max_steps": 3}}
NAMES = list(tl.methods().index)
METHOD_OF_FILE = {"model.json", "weights.npz"}


def build(name, mdata):
    """Set up and construct, as a user of the class does."""
    cls = load_class(name)
    cls.setup_mudata(mdata)
    return cls(mdata, **ARCHITECTURE.get(name, {}))


def ensembl(index):
    return [f"ENSG{i:011d}" for i in range(len(index))]


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name, cohort):
    """A trained model of every method; its genes are Ensembl identifiers."""
    cells, bulk = (adata.copy() for adata in cohort)
    cells.var_names = bulk.var_names = ensembl(bulk.var_names)
    mdata = pp.pair(cells, bulk)
    pp.select_genes(mdata, 120)
    pp.simulate(mdata, 60)
    trained = build(name, mdata)
    trained.train(**TRAINING.get(name, {}))
    return trained


@pytest.fixture
def bulk(cohort):
    adata = cohort[1].copy()
    adata.var_names = ensembl(adata.var_names)
    return adata


@pytest.fixture
def saved(model, tmp_path):
    model.save(tmp_path / "model")
    return tmp_path / "model"


def test_fractions_have_cell_types_and_sum_to_one(model, bulk, cohort):
    fractions = model.predict(bulk, in_sample=True)
    assert list(fractions.index) == list(bulk.obs_names)
    assert list(fractions.columns) == list(cohort[0].obs["cell_type"].cat.categories)
    assert (fractions >= 0).all(axis=None)
    np.testing.assert_allclose(fractions.sum(axis=1), 1, rtol=1e-6)


def test_saved_and_loaded_model_gives_the_same_fractions(model, bulk, saved):
    loaded = type(model).load(saved)
    pd.testing.assert_frame_equal(
        loaded.predict(bulk, in_sample=True), model.predict(bulk, in_sample=True), check_exact=True
    )
    assert repr(loaded) == repr(model) == f"{type(model).__name__}: {model.summary_}"
    assert loaded.parameters_ == json.loads(json.dumps(model.parameters_))
    assert loaded.seed_ == model.seed_
    if model.history is None:
        assert loaded.history is None
        return
    assert list(loaded.history) == list(model.history)
    for curve, frame in model.history.items():
        pd.testing.assert_frame_equal(loaded.history[curve], frame, check_exact=True, check_index_type=False)


def test_loaded_model_can_be_saved_again(model, bulk, saved, tmp_path):
    type(model).load(saved).save(tmp_path / "again")
    again = type(model).load(tmp_path / "again")
    pd.testing.assert_frame_equal(
        again.predict(bulk, in_sample=True), model.predict(bulk, in_sample=True), check_exact=True
    )


def test_loaded_model_cannot_be_trained_and_says_why(model, saved):
    with pytest.raises(RuntimeError, match="Expected training data, found a loaded model"):
        type(model).load(saved).train()


def test_order_of_genes_and_further_genes_change_nothing(model, bulk):
    expected = model.predict(bulk, in_sample=True)
    rng = np.random.default_rng(0)
    further = AnnData(rng.poisson(50, (bulk.n_obs, 30)), obs=bulk.obs[[]])
    further.var_names = [f"FURTHER{i}" for i in range(30)]
    wide = AnnData(np.hstack([bulk.X, further.X]), obs=bulk.obs)
    wide.var_names = [*bulk.var_names, *further.var_names]
    shuffled = wide[:, rng.permutation(wide.n_vars)].copy()
    pd.testing.assert_frame_equal(model.predict(shuffled, in_sample=True), expected, check_exact=True)


def test_ensembl_versions_change_nothing(model, bulk):
    expected = model.predict(bulk, in_sample=True)
    bulk.var_names = [f"{gene}.{i % 17 + 1}" for i, gene in enumerate(bulk.var_names)]
    pd.testing.assert_frame_equal(model.predict(bulk, in_sample=True), expected, check_exact=True)


def test_order_and_number_of_samples_change_nothing(model, bulk):
    expected = model.predict(bulk, in_sample=True)
    some = bulk[[3, 0]].copy()
    pd.testing.assert_frame_equal(model.predict(some, in_sample=True), expected.iloc[[3, 0]], rtol=1e-5)


@pytest.mark.parametrize("as_format", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, np.float32, np.asfortranarray])
def test_storage_of_the_matrix_changes_nothing(model, bulk, as_format):
    expected = model.predict(bulk, in_sample=True)
    bulk.X = as_format(bulk.X)
    pd.testing.assert_frame_equal(model.predict(bulk, in_sample=True), expected, rtol=1e-6)


def test_named_layer_is_read_instead_of_x(model, bulk):
    expected = model.predict(bulk, in_sample=True)
    bulk.layers["counts"] = bulk.X
    bulk.X = np.log1p(bulk.X)
    pd.testing.assert_frame_equal(model.predict(bulk, layer="counts", in_sample=True), expected, check_exact=True)


def test_method_that_reads_no_gene_asks_for_none(cohort, pairs):
    model = tl.train(pairs, "mean_composition")
    assert len(model.genes_) == 0
    one_gene = cohort[1][:, :1].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.predict(one_gene, in_sample=True).equals(model.predict(cohort[1], in_sample=True))


def test_fewer_than_half_of_the_genes_are_refused(model, bulk):
    n_genes = len(model.genes_)
    if n_genes == 0:
        return
    with pytest.raises(ValueError, match=rf"at least half of the model's {n_genes} genes in adata, found 59 "):
        model.predict(bulk[:, ~bulk.var_names.isin(model.genes_[59:])])


def test_missing_genes_are_warned_of_with_numbers(model, bulk):
    n_genes = len(model.genes_)
    if n_genes == 0:
        return
    n_missing = n_genes // 4
    fewer = bulk[:, ~bulk.var_names.isin(model.genes_[:n_missing])].copy()
    message = rf"{n_missing} of the model's {n_genes} genes \(25%\) are not in adata: '{model.genes_[0]}'"
    with pytest.warns(UserWarning, match=message):
        fractions = model.predict(fewer, in_sample=True)
    np.testing.assert_allclose(fractions.sum(axis=1), 1, rtol=1e-6)
    assert not fractions.equals(model.predict(bulk, in_sample=True))


def test_all_genes_there_means_no_warning(model, bulk):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(bulk, in_sample=True)


@pytest.mark.parametrize("as_format", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_predict_leaves_the_callers_object_unchanged(model, bulk, unchanged, as_format):
    bulk.X = as_format(bulk.X)
    bulk.layers["counts"] = bulk.X.copy()
    with unchanged(bulk):
        model.predict(bulk, in_sample=True)
        model.predict(bulk, layer="counts", in_sample=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x - 1000.0, "non-negative"),
        (np.log1p, "log-transformed"),
        (lambda x: np.where(x == x.max(), np.nan, x), "1 NaN"),
    ],
)
def test_values_that_are_no_linear_expression_are_refused(model, bulk, spoil, message):
    bulk.X = spoil(bulk.X.astype(float))
    with pytest.raises(ValueError, match=message):
        model.predict(bulk, in_sample=True)


def test_untrained_model_refuses_predict_and_save(name, pairs, bulk, tmp_path):
    pp.simulate(pairs, 20)
    untrained = build(name, pairs)
    assert repr(untrained) == f"{type(untrained).__name__}: not trained"
    with pytest.raises(RuntimeError, match=r"found an untrained .*Call .train\(\) first"):
        untrained.predict(bulk, in_sample=True)
    with pytest.raises(RuntimeError, match=r"found an untrained .*Call .train\(\) first"):
        untrained.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_data_without_the_modalities_are_refused_by_name(name, pairs):
    cells_only = make_mudata({"sc": pairs["sc"]})
    with pytest.raises(
        ValueError, match=r"Expected mdata to be a MuData of scdeconv\.pp\.pair, found a MuData of sc\."
    ):
        load_class(name).setup_mudata(cells_only)


def test_save_replaces_a_directory_only_with_overwrite(model, saved, bulk):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    assert set(before) == METHOD_OF_FILE
    with pytest.raises(FileExistsError, match="overwrite=True"):
        model.save(saved)
    (saved / "weights.npz").write_bytes(b"broken")
    model.save(saved, overwrite=True)
    assert {path.name for path in saved.iterdir()} == METHOD_OF_FILE
    pd.testing.assert_frame_equal(
        type(model).load(saved).predict(bulk, in_sample=True), model.predict(bulk, in_sample=True), check_exact=True
    )
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_overwrite_never_deletes_other_files(model, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="found other files: 'chapter1.txt'"):
        model.save(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"


def test_missing_parents_and_empty_directories_are_used(model, bulk, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    model.save(tmp_path / "a" / "b", overwrite=True)
    model.save(str(tmp_path / "c" / "d" / "e"))
    for path in (tmp_path / "a" / "b", tmp_path / "c" / "d" / "e"):
        assert type(model).load(path).predict(bulk, in_sample=True).equals(model.predict(bulk, in_sample=True))


@pytest.mark.parametrize("existing", [True, False])
def test_failed_save_leaves_the_previous_model_alone(model, bulk, tmp_path, monkeypatch, existing):
    path = tmp_path / "model"
    if existing:
        model.save(path)
    savez = np.savez

    def fail_after_writing(file, **arrays):
        savez(file, **arrays)
        msg = "No space left on device"
        raise OSError(msg)

    monkeypatch.setattr(np, "savez", fail_after_writing)
    with pytest.raises(OSError, match="No space left"):
        model.save(path, overwrite=True)
    monkeypatch.undo()
    assert [item.name for item in tmp_path.iterdir()] == (["model"] if existing else [])
    if existing:
        assert type(model).load(path).predict(bulk, in_sample=True).equals(model.predict(bulk, in_sample=True))


def test_failed_publication_keeps_the_previous_model(model, bulk, saved, monkeypatch):
    replace = Path.replace

    def fail_for_the_new(self, target):
        if self.is_symlink() and self.readlink() == Path("new"):
            msg = "planted"
            raise OSError(msg)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_for_the_new)
    with pytest.raises(OSError, match="planted"):
        model.save(saved, overwrite=True)
    monkeypatch.undo()
    assert [item.name for item in saved.parent.iterdir()] == [saved.name]
    assert sorted(item.name for item in saved.iterdir()) == ["model.json", "weights.npz"]
    assert not any(item.is_symlink() for item in saved.iterdir())
    assert type(model).load(saved).predict(bulk, in_sample=True).equals(model.predict(bulk, in_sample=True))


def forge_hashes(saved):
    """Make the description fit the weights, whatever they are."""
    description = json.loads((saved / "model.json").read_text())
    description["weights_sha256"] = hashlib.sha256((saved / "weights.npz").read_bytes()).hexdigest()
    del description["sha256"]
    description["sha256"] = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    (saved / "model.json").write_text(json.dumps(description))


class Bomb:
    """An object whose unpickling touches a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_planted_pickle_is_refused_and_not_executed(model, saved, tmp_path):
    with np.load(saved / "weights.npz") as file:
        arrays = dict(file)
    planted = np.empty(1, dtype=object)
    planted[0] = Bomb(tmp_path / "executed")
    np.savez(saved / "weights.npz", **arrays, planted=planted)
    forge_hashes(saved)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        type(model).load(saved)
    (saved / "weights.npz").write_bytes(pickle.dumps(planted[0]))
    forge_hashes(saved)
    with pytest.raises(ValueError, match="pickle"):
        type(model).load(saved)
    assert not (tmp_path / "executed").exists()
    pickle.loads((saved / "weights.npz").read_bytes())
    assert (tmp_path / "executed").exists()  # the bomb does work where pickles are read


def test_load_and_predict_leave_random_state_alone(model, bulk, saved, global_state_untouched):
    with global_state_untouched():
        type(model).load(saved).predict(bulk, in_sample=True)


def test_loading_reads_arrays_and_json_only(model, saved, monkeypatch):
    calls = []
    load = np.load
    monkeypatch.setattr(np, "load", lambda *args, **kwargs: (calls.append(kwargs), load(*args, **kwargs))[1])
    type(model).load(saved)
    assert calls == [{"allow_pickle": False}]
    assert {path.name for path in saved.iterdir()} == METHOD_OF_FILE
    json.loads((saved / "model.json").read_text())


def test_model_of_another_class_is_refused_by_name(model, saved):
    other = models.NNLS if type(model) is not models.NNLS else models.MeanComposition
    with pytest.raises(ValueError, match=rf"Expected a saved {other.__name__} in .*, found {type(model).__name__}"):
        other.load(saved)


def test_missing_model_is_named(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected a saved model with model.json in .*nowhere"):
        load_class(name).load(tmp_path / "nowhere")


def test_model_has_the_common_face(model):
    assert isinstance(model, DeconvolutionModel)
    assert model.method in tl.methods().index
    assert model.fraction_kind in ("cell", "rna")


def test_linear_model_is_loaded_and_used_without_torch(cohort, pairs, tmp_path):
    model = tl.train(pairs, "nnls")
    model.save(tmp_path / "model")
    cohort[1].write_h5ad(tmp_path / "bulk.h5ad")
    code = (
        "import sys, anndata; from scdeconv.models import NNLS; "
        f"print(NNLS.load({str(tmp_path / 'model')!r}).predict(anndata.read_h5ad({str(tmp_path / 'bulk.h5ad')!r})).to_csv()); "
        "assert not {'torch', 'scvi', 'lightning', 'scanpy', 'matplotlib'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == model.predict(cohort[1], in_sample=True).to_csv().strip()
