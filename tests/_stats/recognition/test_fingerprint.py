from __future__ import annotations

import numpy as np
import pytest

from scdeconv._stats.recognition.fingerprint import N_GENES, Fingerprints, most_expressed


@pytest.fixture
def expression():
    """Twenty samples that differ in each of 300 genes by 30 %, with library sizes of bulk RNA-seq."""
    rng = np.random.default_rng(0)
    mean = rng.lognormal(8, 1.5, 300)
    return rng.poisson(mean * rng.lognormal(0, 0.3, (20, 300))).astype(float)


def missing(expression, share):
    values = expression.copy()
    values[:, np.random.default_rng(1).random(values.shape[1]) < share] = np.nan
    return values


SAME = {
    "unchanged": lambda x: x,
    "counts per million": lambda x: x / x.sum(axis=1, keepdims=True) * 1e6,
    "two decimals": lambda x: np.round(x / x.sum(axis=1, keepdims=True) * 1e6, 2),
    "single precision": lambda x: (x / 3).astype(np.float32).astype(float),
    "half precision": lambda x: (x / x.max() * 1e3).astype(np.float16).astype(float),
    "other depth, whole numbers": lambda x: np.rint(0.8 * x),
    "half of the genes": lambda x: missing(x, 0.5),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_same_samples_are_found(expression, change):
    found = Fingerprints.of(expression).find(change(expression)[::-1])
    np.testing.assert_array_equal(found, np.arange(len(expression))[::-1])


NEW = {
    "sequenced again": lambda x, rng: rng.poisson(x),
    "half of the reads": lambda x, rng: rng.binomial(x.astype(int), 0.5),
    "noise of 1 %": lambda x, rng: x * rng.lognormal(0, 0.01, x.shape),
    "mixture of two samples": lambda x, rng: x + np.roll(x, 1, axis=0),
    "other samples": lambda x, rng: x * rng.lognormal(0, 0.3, x.shape),
    "other order of samples' genes": lambda x, rng: rng.permuted(x, axis=1),
    "no reads": lambda x, rng: 0 * x,
}


@pytest.mark.parametrize("change", NEW.values(), ids=NEW)
def test_similar_samples_are_not_found(expression, change):
    new = change(expression, np.random.default_rng(2)).astype(float)
    assert (Fingerprints.of(expression).find(new) == -1).all()


@pytest.mark.parametrize("n_genes", [3, 4, 8])
def test_few_genes_are_enough(expression, n_genes):
    used = most_expressed(expression)[:n_genes]
    fingerprints = Fingerprints.of(expression[:, used])
    np.testing.assert_array_equal(fingerprints.find(expression[:, used]), np.arange(len(expression)))
    others = np.random.default_rng(3).permuted(expression[:, used], axis=0)
    assert (fingerprints.find(others) == -1).all()


def test_two_genes_do_not_identify_a_sample(expression):
    assert (Fingerprints.of(expression[:, :2]).find(expression[:, :2]) == -1).all()


def test_sample_without_reads_is_never_found(expression):
    expression[0] = 0
    assert Fingerprints.of(expression).find(expression)[0] == -1


def test_zeros_are_part_of_the_fingerprint(expression):
    new = expression.copy()
    new[:, most_expressed(expression)[::10]] = 0
    assert (Fingerprints.of(expression).find(new) == -1).all()


def test_few_reads_are_not_confused(expression):
    rng = np.random.default_rng(4)
    shares = expression / expression.sum(axis=1, keepdims=True)
    few, again = (rng.poisson(300 * shares).astype(float) for _ in range(2))
    fingerprints = Fingerprints.of(few)
    np.testing.assert_array_equal(fingerprints.find(few), np.arange(len(few)))
    assert (fingerprints.find(again) == -1).all()


def test_most_expressed_genes_keep_their_order():
    mean = np.random.default_rng(0).permutation(400) + 1.0
    used = most_expressed(mean[None, :])
    assert len(used) == N_GENES
    assert (np.diff(used) > 0).all()
    assert mean[used].min() > 400 - N_GENES
