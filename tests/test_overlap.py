"""Share of real samples within the distribution of simulated samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.decomposition import PCA

from scdeconv import metrics

N_GENES = 25
SCALES = np.geomspace(5, 0.1, N_GENES)


def draw(seed, n):
    return np.random.default_rng(seed).normal(size=(n, N_GENES)) * SCALES + 3


def by_sklearn(real, simulated, n_components):
    """Mahalanobis distances in the principal components of the simulated samples, one sample at a time."""
    pca = PCA(n_components, svd_solver="full").fit(simulated)
    inverse = np.linalg.inv(np.cov(pca.transform(simulated).T))
    distances = [[z @ inverse @ z for z in pca.transform(samples)] for samples in (real, simulated)]
    return np.mean(np.array(distances[0]) <= np.quantile(distances[1], 0.95))


@pytest.mark.parametrize("n_components", [2, 10, 20])
def test_same_distribution_overlaps_by_95_percent(n_components):
    found = metrics.overlap(draw(0, 3000), draw(1, 3000), n_components=n_components)
    assert found == pytest.approx(0.95, abs=0.015)


def test_far_distribution_does_not_overlap():
    assert metrics.overlap(draw(0, 200) + 40, draw(1, 1000)) == 0


def test_overlap_falls_with_distance():
    simulated = draw(1, 1000)
    found = [metrics.overlap(draw(0, 400) + step, simulated) for step in (0, 1, 2, 4, 8)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.9
    assert found[-1] < 0.1


@pytest.mark.parametrize("n_components", [2, 10])
def test_overlap_equals_explicit_mahalanobis_distances(n_components):
    real, simulated = 1.3 * draw(0, 150), draw(1, 300)
    found = metrics.overlap(real, simulated, n_components=n_components)
    assert found == pytest.approx(by_sklearn(real, simulated, n_components))
    assert 0.05 < found < 0.95


def test_rotation_shift_and_unit_do_not_matter():
    real, simulated = 1.3 * draw(0, 150), draw(1, 300)
    rotation = stats.ortho_group.rvs(N_GENES, random_state=0)
    found = metrics.overlap(7 * real @ rotation - 2, 7 * simulated @ rotation - 2)
    assert found == pytest.approx(metrics.overlap(real, simulated))


def test_number_of_components_is_limited_by_simulation():
    """Distances in the null space of the simulated samples are undefined."""
    real, simulated = draw(0, 50), draw(1, 8)
    assert metrics.overlap(real, simulated, n_components=100) == metrics.overlap(real, simulated, n_components=7)
    doubled = metrics.overlap(np.hstack([real, real]), np.hstack([simulated, simulated]))
    assert doubled == metrics.overlap(real, simulated)


def test_overlap_is_a_plain_share():
    found = metrics.overlap(draw(0, 8), draw(1, 100))
    assert type(found) is float
    assert found * 8 == round(found * 8)
