from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import pp, tl
from scdeconv.models import get_record

QUICK = {
    "residual_dnn": {"max_epochs": 1, "hidden": (4,), "n_members": 2, "simulate": 20},
    "simulation_ridge": {"n_simulated": 30},
    "scaden": {"max_steps": 2},
    "nnls": {},
    "calibrated_nnls": {},
    "bisque": {},
    "mean_composition": {},
}


@pytest.fixture
def signature(pairs):
    return pp.signature(pairs, 60)


def mixtures(signature, n_samples=6, seed=0):
    """Bulk without noise: cells of known numbers, in the signature's genes and others."""
    fractions = np.random.default_rng(seed).dirichlet(np.ones(signature.n_obs), n_samples)
    bulk = AnnData(fractions @ signature.X * 1e4, var=pd.DataFrame(index=signature.var_names))
    bulk.obs_names = [f"mixture{i}" for i in range(n_samples)]
    return bulk, pd.DataFrame(fractions, index=bulk.obs_names, columns=list(signature.obs["cell_type"]))


@pytest.mark.parametrize("criterion", ["ratio", "fold_change"])
def test_fractions_of_noise_free_bulk_are_exact(pairs, criterion):
    signature = pp.signature(pairs, 60, criterion=criterion)
    bulk, fractions = mixtures(signature)
    model = tl.train(pairs, "nnls", signature=signature)
    pd.testing.assert_frame_equal(model.predict(bulk), fractions, rtol=0, atol=1e-9)


def test_without_cell_sizes_fractions_are_of_rna(pairs, signature, tmp_path):
    size = signature.obs["cell_size_umi"]
    (signature.to_df().div(size, axis=0) * 1e6).T.to_csv(tmp_path / "tpm.csv")
    bulk, fractions = mixtures(signature)
    rna = fractions * size
    found = tl.train(pairs, "nnls", signature=pp.read_signature(tmp_path / "tpm.csv")).predict(bulk)
    np.testing.assert_allclose(found, rna.div(rna.sum(axis=1), axis=0), atol=1e-9)
    sized = pp.read_signature(tmp_path / "tpm.csv", cell_sizes=size)
    np.testing.assert_allclose(tl.train(pairs, "nnls", signature=sized).predict(bulk), fractions, atol=1e-9)


@pytest.mark.parametrize("name", list(QUICK))
def test_model_equals_pairing_bulk_with_signature(pairs, signature, name):
    arguments = {**QUICK[name], "seed": 3}
    model = tl.train(pairs, name, signature=signature, **arguments)
    expected = tl.train(pp.pair(bulk=pairs["bulk"], profiles=signature), name, **arguments)
    assert model.cell_types_ == expected.cell_types_
    assert list(model.genes_) == list(expected.genes_)
    if name != "mean_composition":
        # in the order of the bulk
        assert list(model.genes_) == [gene for gene in pairs.var_names if gene in signature.var_names]
    np.testing.assert_allclose(model.predict(pairs["bulk"]), expected.predict(pairs["bulk"]), atol=1e-6)


def test_results_from_other_profiles_are_excluded(pairs, signature):
    plain = tl.train(pairs, "residual_dnn", signature=signature, **QUICK["residual_dnn"])
    pp.augment(pairs, n_aug=3)
    pp.select_genes(pairs, 10)
    pp.simulate(pairs, 30)
    prepared = tl.train(pairs, "residual_dnn", signature=signature, **QUICK["residual_dnn"])
    np.testing.assert_array_equal(plain.predict(pairs["bulk"]), prepared.predict(pairs["bulk"]))
    scaden = tl.train(pairs, "scaden", signature=signature, max_steps=1)
    assert len(scaden.genes_) == 60
    assert "1000 simulated" in scaden.summary_


def test_all_genes_of_a_large_signature_are_used(pairs):
    signature = pp.signature(pairs, 230)
    assert len(tl.train(pairs, "nnls", signature=signature).genes_) == 230


def test_signature_training_changes_nothing_and_warns_nothing(pairs, signature, unchanged, capsys):
    pp.calibrate(pairs, batch_key="batch")
    with warnings.catch_warnings(), unchanged(pairs, signature):
        warnings.simplefilter("error")
        tl.train(pairs, "calibrated_nnls", signature=signature)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_genes_and_types_are_matched_by_name(pairs, signature):
    shuffled = signature[::-1, np.random.default_rng(0).permutation(60)].copy()
    shuffled.obs_names = ["w", "x", "y", "z"]
    # one more gene, that the bulk does not have
    extra = AnnData(np.ones((4, 1)), obs=shuffled.obs, var=pd.DataFrame(index=["UNKNOWN"]))
    columns = np.hstack([extra.X, shuffled.X])
    names = ["UNKNOWN", *shuffled.var_names]
    table = AnnData(columns, obs=shuffled.obs, var=pd.DataFrame(index=names))
    for method in ("nnls", "bisque"):
        model, other = (tl.train(pairs, method, signature=item) for item in (signature, table))
        assert other.cell_types_ == model.cell_types_[::-1]
        found = other.predict(pairs["bulk"])[model.cell_types_]
        pd.testing.assert_frame_equal(found, model.predict(pairs["bulk"]), rtol=1e-6)


def test_plain_profile_table_equals_pairing(pairs):
    table = AnnData(pairs["profiles"].X * 1.0, obs=pd.DataFrame(index=list("abcd")), var=pairs["profiles"].var)
    for size in (None, [1000.0, 2000, 3000, 4000]):
        if size is not None:
            table.obs["cell_size_umi"] = size
        with pytest.warns(UserWarning, match="measured fractions of the cell types of the signature"):
            model = tl.train(pairs, "nnls", signature=table)
        bulk = AnnData(pairs["bulk"].X, var=pairs["bulk"].var)
        with pytest.warns(UserWarning, match="no donor is paired|at least 3 paired donors"):
            mdata = pp.pair(bulk=bulk, profiles=table)
        mdata["bulk"].var["selected"] = True
        np.testing.assert_allclose(model.predict(bulk), tl.train(mdata, "nnls").predict(bulk), atol=1e-6)


def test_fractions_of_other_types_pair_no_donor(pairs, signature):
    fewer = signature[:3].copy()
    with pytest.warns(
        UserWarning, match="measured fractions of the cell types of the signature.*no donor is paired"
    ) as caught:
        assert get_record(tl.train(pairs, signature=fewer).method).family == "reference"
    assert caught[0].filename == __file__
    with (
        pytest.warns(UserWarning, match="no donor is paired"),
        pytest.raises(ValueError, match="at least 3 paired donors"),
    ):
        tl.train(pairs, "residual_dnn", signature=fewer)


def test_fractions_of_the_same_types_pair_as_before(pairs, signature):
    assert tl.train(pairs, signature=signature[::-1]).method == "ensemble"


def test_few_shared_genes_warn_and_none_raise(pairs, signature):
    renamed = signature.copy()
    renamed.var_names = [f"other{i}" if i < 31 else name for i, name in enumerate(signature.var_names)]
    with pytest.warns(
        UserWarning, match=r"31 of the signature's 60 genes are not in bulk: 'other0'.*and 28 more"
    ) as caught:
        model = tl.train(pairs, "nnls", signature=renamed)
    assert caught[0].filename == __file__
    assert len(model.genes_) == 29
    renamed.var_names = [f"other{i}" for i in range(60)]
    with pytest.raises(ValueError, match=r"bulk has 240 \('GENE0001'.*profiles has 60 \('other0'"):
        tl.train(pairs, "nnls", signature=renamed)
    renamed.var_names = [f"ENSG00000{i:06d}.3" for i in range(60)]
    with pytest.raises(ValueError, match="symbols in bulk and Ensembl identifiers in profiles"):
        tl.train(pairs, "nnls", signature=renamed)


@pytest.mark.filterwarnings("ignore:.*names are not unique")
def test_other_tables_are_refused_with_every_problem(pairs, signature):
    with pytest.raises(
        TypeError, match=r"Expected signature to be an AnnData of cell types × genes, or None, found a DataFrame"
    ):
        tl.train(pairs, "nnls", signature=signature.to_df())
    bad = signature.copy()
    bad.X[1, 2] = -1
    bad.var_names = [bad.var_names[1], *bad.var_names[1:]]
    bad.obs["cell_type"] = ["A", "A", "B", "C/D"]
    with pytest.raises(ValueError, match="The inputs cannot be paired: 4 problems") as caught:
        tl.train(pairs, "nnls", signature=bad)
    for part in ("non-negative", "unique gene names", "unique cell types", "without '/'"):
        assert part in str(caught.value)
    logged = signature.copy()
    logged.X = np.log1p(logged.X)
    logged.uns["log1p"] = {"base": None}
    with pytest.raises(ValueError, match="values on a linear scale in profiles, found log-transformed"):
        tl.train(pairs, "nnls", signature=logged)


def test_methods_that_read_cells_are_refused(pairs, signature):
    with pytest.raises(ValueError, match="found 'music', which uses cells"):
        tl.train(pairs, "music", signature=signature)


def test_benchmark_refuses_signatures(pairs, signature):
    """The signature contains the donors to hold out."""
    with pytest.raises(TypeError, match=r"found \['signature'\]"):
        tl.cross_validate(pairs, "nnls", signature=signature)


def test_model_is_saved_and_loaded(pairs, signature, tmp_path):
    model = tl.train(pairs, "nnls", signature=signature)
    model.save(tmp_path / "model")
    assert type(model).load(tmp_path / "model").predict(pairs["bulk"]).equals(model.predict(pairs["bulk"]))
