"""The unit of expression is found from the values; contradictions and impossible values are refused."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdeconv._data.checks import Problems
from scdeconv._data.matrix import get_matrix
from scdeconv._data.units import GIVEN_UNITS, choose_unit, to_linear, unit_of


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(0)
    means = rng.lognormal(2, 2, size=(1, 500)) * rng.lognormal(0, 0.3, size=(6, 1))
    return rng.poisson(means).astype(float)


def tpm(counts):
    return counts / counts.sum(axis=1, keepdims=True) * 1e6


KINDS = {
    "counts": (lambda x: x, "counts"),
    "counts as integers": (lambda x: x.astype(np.int32), "counts"),
    "estimated counts": (lambda x: x * 0.97, "estimated counts (not whole numbers)"),
    "TPM": (tpm, "TPM"),
    "TPM of most genes": (lambda x: tpm(x) * 0.7, "TPM"),
    "shares": (lambda x: tpm(x) / 1e6, "shares of each sample"),
    "shares of some genes": (lambda x: tpm(x)[:, :90] / 1e6, "shares of each sample"),
    "percent": (lambda x: tpm(x) / 1e4, "shares of each sample"),
    "library size 10,000": (lambda x: tpm(x) / 1e2, "values normalised to one library size"),
    "intensities": (lambda x: np.exp2(4.5 + np.log1p(x)), "array intensities"),
    "log2 intensities": (lambda x: 4.5 + np.log1p(x), "log-transformed values"),
    "log TPM": (lambda x: np.log1p(tpm(x)), "log-transformed values"),
    "log10 TPM": (lambda x: np.log10(tpm(x) + 1), "log-transformed values"),
    "log of normalised counts": (lambda x: np.log1p(tpm(x) / 100), "log-transformed values"),
    "z-scores": (lambda x: (x - x.mean(axis=0)) / (x.std(axis=0) + 1), "z-scores or log ratios"),
    "log ratios": (lambda x: np.log2((x + 1) / (x.mean(axis=0) + 1)), "z-scores or log ratios"),
    "tiny": (lambda x: x * 1e-30, "values close to 0"),
    "huge": (lambda x: x * 1e12, "values of an impossible size"),
}


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_unit_is_found_from_values(counts, kind, sparse):
    change, unit = KINDS[kind]
    values = change(counts)
    assert unit_of(sp.csr_matrix(values) if sparse else values) == unit


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", GIVEN_UNITS)
def test_contradiction_to_the_given_unit_is_reported(counts, kind, given):
    change, found = KINDS[kind]
    problems = Problems("test")
    unit = choose_unit(problems, given, change(counts))
    assert bool(problems.messages) == (found not in GIVEN_UNITS[given][0])
    assert unit == (
        "estimated counts (not whole numbers)" if given == "counts" and found != "counts" else GIVEN_UNITS[given][1]
    )


def test_log2_intensities_become_linear(counts):
    intensities = np.exp2(4.5 + np.log1p(counts))
    np.testing.assert_allclose(to_linear(np.log2(intensities)), intensities)
    assert to_linear(intensities) is intensities


@pytest.mark.parametrize("dtype", [np.float16, object, str, bool, np.uint8, np.float32])
def test_numbers_of_any_type_are_read(dtype):
    values = np.array([[0, 1, 1], [1, 0, 1]])
    matrix = get_matrix(AnnData(values.astype(dtype)), None, "adata")
    np.testing.assert_array_equal(np.asarray(matrix, dtype=float), values)


def test_half_precision_sums_do_not_overflow():
    matrix = get_matrix(AnnData(np.full((2, 10), 6e4, dtype=np.float16)), None, "adata")
    assert np.isfinite(matrix.sum())


def test_text_that_is_no_number_is_named():
    adata = AnnData(np.array([["1", "ND"], ["2", "3"]], dtype=object))
    with pytest.raises(ValueError, match="Expected numbers in bulk, found 1 other values, such as 'ND'"):
        get_matrix(adata, None, "bulk")
