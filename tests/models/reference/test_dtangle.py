"""dtangle and hspe: reference samples, markers and unit of the classes; the numerics are tested in _stats."""

from __future__ import annotations

import numpy as np
import pytest

from scdeconv import models, pp, tl
from scdeconv._data.modalities import make_mudata
from scdeconv._stats.solvers.log_markers import solve_log_residuals

CLASSES = pytest.mark.parametrize("name", ["Dtangle", "HSPE"])


def trained(name, mdata):
    model = getattr(models, name)(mdata)
    model.train(held_out=False)
    return model


def references_by_loops(mdata):
    """log2(CPM + 1) of the summed cells of each type in each donor."""
    cells, found = mdata["sc"], {}
    for donor in cells.obs["donor"].unique():
        for name in mdata["profiles"].obs["cell_type"]:
            mine = ((cells.obs["donor"] == donor) & (cells.obs["cell_type"] == name)).to_numpy()
            if mine.any():
                counts = cells.X[mine].toarray().sum(axis=0)
                found.setdefault(name, []).append(np.log2(1e6 * counts / counts.sum() + 1))
    return found


@CLASSES
def test_profiles_are_mean_logs_of_the_donors(name, pairs):
    state = trained(name, pairs).state_
    expected = [np.mean(logs, axis=0) for logs in references_by_loops(pairs).values()]
    np.testing.assert_allclose(state.profiles, expected, rtol=1e-5, atol=1e-9)


def test_proportions_equal_the_formula(pairs):
    model = trained("Dtangle", pairs)
    state, bulk = model.state_, pairs["bulk"]
    counts = bulk.X.astype(float)
    logs = np.log2(1e6 * counts / counts.sum(axis=1, keepdims=True) + 1)
    amounts = np.zeros((len(logs), len(state.profiles)))
    for code, profile in enumerate(state.profiles):
        candidates = sorted(np.flatnonzero(state.cell_type == code), key=lambda gene: -state.score[gene])
        markers = candidates[: max(1, len(candidates) // 10)]
        amounts[:, code] = 2 ** ((logs[:, markers] - profile[markers]).mean(axis=1) / 0.9433902)
    expected = amounts / amounts.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict(bulk), expected, rtol=1e-6)


def test_hspe_uses_the_markers_of_dtangle(pairs):
    dtangle, hspe = (trained(name, pairs) for name in ("Dtangle", "HSPE"))
    logs, profiles, markers = dtangle.state_.on_markers(pairs["bulk"].X.astype(float))
    assert markers.sum() == markers.shape[1]
    np.testing.assert_allclose(hspe.predict(pairs["bulk"]), solve_log_residuals(2**logs, 2**profiles), atol=1e-9)


@CLASSES
def test_profiles_without_cells_are_one_reference_each(name, pairs):
    without_cells = make_mudata({key: pairs[key] for key in ("bulk", "profiles")})
    model = trained(name, without_cells)
    profiles = pairs["profiles"].X / pairs["profiles"].X.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.state_.profiles, np.log2(1e6 * profiles + 1), rtol=1e-4)
    assert "4 reference samples of 4 types" in model.summary_


@CLASSES
def test_markers_are_chosen_among_the_given_genes(name, pairs):
    model = trained(name, pairs)
    markers = model.state_.on_markers(pairs["bulk"].X.astype(float))[2].any(axis=1)
    assert markers.all()
    best = [np.flatnonzero(model.state_.cell_type == code) for code in range(4)]
    best = {mine[np.argmax(model.state_.score[mine])] for mine in best}
    fewer = pairs["bulk"][:, [gene for gene in range(240) if gene not in best]].copy()
    with pytest.warns(UserWarning, match="4 of the model's 240 genes"):
        predicted = model.predict(fewer)
    np.testing.assert_allclose(predicted.sum(axis=1), 1)
    assert (predicted.max() > 0.01).all()


@CLASSES
def test_types_without_cells_get_proportion_zero(name, pairs):
    """A type whose only donor is held out."""
    cells = pairs["sc"].copy()
    rare, donor = cells.obs["cell_type"].cat.categories[0], pp.paired_donors(pairs)[0]
    kept = ((cells.obs["cell_type"] != rare) | (cells.obs["donor"] == donor)).to_numpy()
    mdata = pp.pair(cells[kept].copy(), pairs["bulk"].copy())
    model = getattr(models, name)(mdata)
    state = model.fit(models.PairedData(mdata, mdata["bulk"].var_names), without=[donor])
    fractions = state.estimate(mdata["bulk"].X.astype(float)).fractions
    assert not fractions[:, list(mdata["profiles"].obs["cell_type"]).index(rare)].any()
    np.testing.assert_allclose(fractions.sum(axis=1), 1)


@CLASSES
def test_all_genes_are_used_unless_some_are_selected(name, pairs):
    key = getattr(models, name).record.key
    assert len(tl.train(pairs, key).genes_) == 240
    assert len(tl.train(pairs, key, n_genes=100).genes_) == 100


def test_shares_of_rna_are_recovered_without_platform_effect(pairs):
    """Bulk that is the exact sum of the cells' profiles; dtangle assumes that no other type expresses a marker."""
    profiles = pairs["profiles"].X.astype(float)
    truth = np.random.default_rng(0).dirichlet(np.ones(4), 12)
    bulk = pairs["bulk"].copy()
    bulk.X = np.rint(1e6 * truth @ (profiles / profiles.sum(axis=1, keepdims=True)))
    predicted = trained("HSPE", pairs).predict(bulk)
    assert list(predicted.columns) == list(pairs["profiles"].obs["cell_type"].astype(str))
    assert np.abs(predicted.to_numpy() - truth).mean() < 0.5 * np.abs(truth - truth.mean(axis=0)).mean()
