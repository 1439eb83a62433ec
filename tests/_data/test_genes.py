from __future__ import annotations

import warnings
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdeconv._data.gene_names import columns_that_match, is_ensembl, strip_versions
from scdeconv._data.genes import align_genes, sum_duplicates
from scdeconv._data.matrix import get_matrix, is_integer, stored_values, to_dense

pytestmark = pytest.mark.filterwarnings("ignore:(Variable|Observation) names are not unique")


@pytest.fixture
def bulk():
    values = np.random.default_rng(0).poisson(50, (3, 10)).astype(np.int32)
    return AnnData(values, obs=pd.DataFrame(index=["s1", "s2", "s3"]), var=pd.DataFrame(index=list("abcdefghij")))


@pytest.mark.parametrize(
    ("name", "stripped"),
    [
        ("ENSG00000141510.17", "ENSG00000141510"),
        ("ENSMUSG00000059552.8", "ENSMUSG00000059552"),
        ("ENSG00000141510", "ENSG00000141510"),
        ("ENSG00000002586.20_PAR_Y", "ENSG00000002586.20_PAR_Y"),
        ("RP11-34P13.7", "RP11-34P13.7"),
        ("AL627309.1", "AL627309.1"),
        ("TP53", "TP53"),
    ],
)
def test_only_ensembl_identifiers_lose_their_version(name, stripped):
    assert strip_versions(pd.Index([name])).tolist() == [stripped]


def test_majority_of_names_decides_whether_genes_are_ensembl():
    ensembl = [f"ENSG{i:011d}" for i in range(6)]
    assert is_ensembl(pd.Index([*ensembl, "TP53", "ENSA"]))
    assert not is_ensembl(pd.Index([*ensembl[:2], "TP53", "ENSA", "ENG"]))
    assert not is_ensembl(pd.Index([], dtype=object))


def test_alternative_gene_name_columns_are_found(bulk):
    bulk.var["chromosome"] = "1"
    bulk.var["symbol"] = pd.Categorical([f"S{i}" for i in range(10)])
    bulk.var["gene_id"] = [f"ENSG{i:011d}.2" for i in range(10)]
    assert columns_that_match(bulk, pd.Index(["S1", "S2", "X"])) == ["symbol"]
    assert columns_that_match(bulk, pd.Index([f"ENSG{i:011d}" for i in range(5)])) == ["gene_id"]
    assert columns_that_match(bulk, pd.Index(["X"])) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_summed_duplicates_equal_a_loop(form, dtype):
    values = np.random.default_rng(0).integers(0, 200, (4, 7)).astype(dtype)
    names = pd.Index(list("abacbad"))
    summed, unique = sum_duplicates(form(values), names)
    expected = defaultdict(float)
    for row in range(4):
        for column, name in enumerate(names):
            expected[row, name] += float(values[row, column])
    assert unique.tolist() == list("abcd")
    assert sp.issparse(summed) == (form is sp.csr_matrix)
    np.testing.assert_allclose(to_dense(summed), [[expected[row, name] for name in unique] for row in range(4)])


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_genes_are_reordered_to_match_the_model(bulk, form):
    values = bulk.X.copy()
    bulk.X = form(values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        aligned = align_genes(bulk, pd.Index(["j", "a", "d"]))
    assert aligned.dtype == float
    np.testing.assert_array_equal(aligned, values[:, [9, 0, 3]])
    aligned[:] = -1
    np.testing.assert_array_equal(to_dense(bulk.X), values)


def test_versions_of_ensembl_identifiers_do_not_matter(bulk):
    bulk.var_names = [f"ENSG{i:011d}.{i + 1}" for i in range(10)]
    np.testing.assert_array_equal(align_genes(bulk, pd.Index(["ENSG00000000004"]))[:, 0], bulk.X[:, 4])


def test_missing_genes_are_nan_with_a_warning(bulk):
    with pytest.warns(
        UserWarning, match=r"4 of the model's 10 genes \(40%\) are not in adata: 'x', 'y', 'z' and 1 more"
    ):
        aligned = align_genes(bulk, pd.Index(["x", "a", "y", "b", "c", "z", "w", "d", "e", "f"]))
    assert np.isnan(aligned[:, [0, 2, 5, 6]]).all()
    np.testing.assert_array_equal(aligned[:, [1, 3, 4, 7, 8, 9]], bulk.X[:, :6])


def test_fewer_than_half_the_genes_raise(bulk):
    with pytest.warns(UserWarning, match="3 of the model's 6 genes"):
        align_genes(bulk, pd.Index(["a", "b", "c", "x", "y", "z"]))
    with pytest.raises(ValueError, match="at least half of the model's 17 genes in adata, found 8 ") as caught:
        align_genes(bulk, pd.Index([*"abcdefgh", *"qrstuvwxy"]))
    assert (
        "found 8 (47%). The model has 'a', 'b', 'c' and 14 more, adata has 'a', 'b', 'c' and 7 more. "
        "Use the same identifiers for both." in str(caught.value)
    )


def test_error_names_the_column_with_matching_genes(bulk):
    bulk.var["symbol"] = [f"S{i}" for i in range(10)]
    with pytest.raises(ValueError, match=r"found 0 \(0%\)\. .*Set adata\.var_names = adata\.var\['symbol'\]"):
        align_genes(bulk, pd.Index(["S1", "S2", "S3"]))


def test_error_says_when_bulk_is_transposed(bulk):
    with pytest.raises(ValueError, match=r"Genes are in adata\.obs_names\. Pass adata\.T\."):
        align_genes(bulk.T.copy(), pd.Index(["a", "b", "c"]))


def test_refusal_of_few_genes_is_without_warnings(bulk, recwarn):
    with pytest.raises(ValueError, match="at least half of the model's 20 genes"):
        align_genes(bulk, pd.Index(["a", *(f"x{number}" for number in range(19))]))
    assert not recwarn.list


def test_bulk_problems_are_reported_together(bulk):
    bulk.X = bulk.X.astype(float)
    bulk.X[0, 0] = -1
    bulk.obs_names = ["s1", "s1", "s2"]
    bulk.var_names = ["a", "a", *"cdefghij"]
    with pytest.raises(ValueError, match="adata cannot be predicted: 4 problems found") as caught:
        align_genes(bulk, pd.Index(["x", "y"]))
    for text in (
        "Expected unique adata.obs_names, found 1 repeated: 's1'",
        "Expected unique gene names in adata, found 1 repeated: 'a'",
        "Expected non-negative values in adata, found 1 negative (smallest -1) in 'a'",
        "Expected at least half of the model's 2 genes in adata, found 0",
    ):
        assert text in str(caught.value)


def test_two_versions_of_one_gene_are_refused(bulk):
    bulk.var_names = ["ENSG00000000001.1", "ENSG00000000001.2", *"cdefghij"]
    with pytest.raises(ValueError, match="unique gene names in adata, found 1 repeated: 'ENSG00000000001'"):
        align_genes(bulk, pd.Index(["ENSG00000000001", "c"]))


@pytest.mark.parametrize("marked", [True, False])
def test_log_values_are_refused(bulk, marked):
    bulk.X = np.log1p(bulk.X) * (10 if marked else 1)
    bulk.uns = {"log1p": {}} if marked else {}
    with pytest.raises(ValueError, match="Expected values on a linear scale in adata, found log-transformed values"):
        align_genes(bulk, bulk.var_names)


def test_layer_is_read_instead_of_x(bulk):
    bulk.layers["tpm"] = bulk.X / bulk.X.sum(axis=1, keepdims=True) * 1e6
    bulk.X, bulk.uns = np.log1p(bulk.X), {"log1p": {}}
    np.testing.assert_array_equal(align_genes(bulk, bulk.var_names, layer="tpm"), bulk.layers["tpm"])
    with pytest.raises(KeyError, match=r"Expected layer 'counts' in adata, found layers \['tpm'\]"):
        align_genes(bulk, bulk.var_names, layer="counts")


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, sp.coo_matrix, sp.csr_array, np.asarray])
def test_matrices_become_csr_or_array(form):
    values = np.array([[0, 2, 0], [1, 0, 3]])
    adata = AnnData(obs=pd.DataFrame(index=["x", "y"]), var=pd.DataFrame(index=list("abc")))
    adata.layers["counts"] = sp.csr_matrix(form(values)) if form is sp.coo_matrix else form(values)
    matrix = get_matrix(adata, "counts", "adata")
    assert isinstance(matrix, np.ndarray if form is np.asarray else sp.csr_matrix)
    np.testing.assert_array_equal(to_dense(matrix), values)
    assert to_dense(matrix).dtype == float
    assert sorted(stored_values(matrix)) == ([0, 0, 0, 1, 2, 3] if form is np.asarray else [1, 2, 3])


@pytest.mark.parametrize(
    ("values", "whole"),
    [([[1, 2]], True), ([[1.0, 0.0]], True), ([[1.0, 0.5]], False), ([[1e15, 3.0]], True), ([[2.0, 1 + 1e-9]], False)],
)
def test_integers_are_detected_exactly(values, whole):
    assert is_integer(np.array(values)) is whole
    assert is_integer(sp.csr_matrix(values)) is whole
