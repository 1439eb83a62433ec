"""Accuracy on real pairs and on real mixtures of known composition."""

from __future__ import annotations

from pathlib import Path

import anndata
import pandas as pd
import pytest

from scdeconv import metrics, pp, tl

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
PARITY = SHARED.parent / "parity"


def read(folder, name, root=SHARED):
    path = root / folder / f"{name}.h5ad"
    if not path.exists():
        pytest.skip(f"real data are not at {path}")
    return anndata.read_h5ad(path)


@pytest.fixture(scope="module", params=["reference_means_batch2", "reference_means_batch1"])
def retina(request):
    """14 donors of human retina with bulk and single nuclei, and the profiles of one batch."""
    return pp.pair(
        bulk=read("retina_paired", "bulk"),
        profiles=read("retina_paired", request.param),
        pseudobulk=read("retina_paired", "pseudobulk"),
    )


@pytest.fixture(scope="module")
def retina_held_out(retina):
    """Measured fractions, and those of held-out donors by the default method and by the mean of the other donors."""
    methods = {"default": tl.default_method(retina), "mean_composition": "mean_composition"}
    predicted = {name: tl.cross_validate(retina, method) for name, method in methods.items()}
    measured = retina["bulk"].obsm["measured_fractions"]
    return measured, {name: table.loc[measured.index] for name, table in predicted.items()}


def test_retina_has_14_pairs(retina):
    assert len(pp.paired_donors(retina)) == retina["bulk"].n_obs == 14


def test_retina_error_is_below_the_mean_composition(retina_held_out):
    measured, predicted = retina_held_out
    error, baseline = (metrics.rmse(measured, predicted[name]) for name in ("default", "mean_composition"))
    assert error <= 0.75 * baseline


def test_retina_ccc_is_high_enough(retina_held_out):
    measured, predicted = retina_held_out
    assert metrics.ccc(measured, predicted["default"], per_type=True).mean() > 0.4


def test_retina_cross_validation_equals_manual_hold_out(retina, retina_held_out):
    _, predicted = retina_held_out
    for donor in pp.paired_donors(retina)[::5]:
        training, held_out = pp.hold_out(retina, [donor])
        model = tl.train(training)
        assert model.method == "ensemble"
        fractions = model.predict(held_out)
        pd.testing.assert_frame_equal(fractions, predicted["default"].loc[fractions.index], rtol=1e-4, atol=1e-6)
        fractions = tl.train(training, "mean_composition").predict(held_out)
        pd.testing.assert_frame_equal(fractions, predicted["mean_composition"].loc[fractions.index])


@pytest.fixture(scope="module")
def mixtures():
    """Real mixtures of three cell lines: measured fractions, and those predicted from the cells of five lines."""
    mixed = read("celllines_mixology", "mixtures_pooled")
    measured = mixed.obsm["measured_fractions"]
    mixed.obsm.clear()
    with pytest.warns(UserWarning, match="paired donors to train on pairs, found 0"):
        mdata = pp.pair(read("celllines_mixology", "cells"), mixed)
    model = tl.train(mdata)
    assert model.method == "robust_nnls"
    return measured, model.predict(mixed)


def test_mixtures_have_high_ccc_over_mixed_lines(mixtures):
    measured, predicted = mixtures
    assert measured.shape == (136, 3)
    assert metrics.ccc(measured, predicted[measured.columns]) >= 0.92


def test_mixtures_have_high_ccc_over_all_lines(mixtures):
    measured, predicted = mixtures
    assert predicted.shape == (136, 5)
    assert metrics.ccc(measured.reindex(columns=predicted.columns, fill_value=0.0), predicted) >= 0.92


def test_default_predicts_mixtures_with_high_ccc(mixtures):
    measured, predicted = mixtures
    assert metrics.ccc(measured.reindex(columns=predicted.columns, fill_value=0.0), predicted) >= 0.96


@pytest.mark.parametrize(
    ("cohort", "layer", "error"), [("finotello", "tpm", 0.055), ("hoek", None, 0.045)], ids=["finotello", "hoek"]
)
def test_default_agrees_with_flow_cytometry_of_blood(cohort, layer, error):
    """PBMC of two studies with bulk and cells from different laboratories and platforms."""
    bulk = read(cohort, "bulk", PARITY)
    measured = pd.read_csv(PARITY / cohort / "truth.csv", index_col=0)
    with pytest.warns(UserWarning, match="paired donors to train on pairs, found 0"):
        mdata = pp.pair(read(cohort, "sc", PARITY), bulk, layer=layer)
    model = tl.train(mdata)
    assert model.method == "robust_nnls"
    predicted = model.predict(bulk, layer=layer)
    assert set(predicted.columns) == set(measured.columns)
    assert set(predicted.index) == set(measured.index)
    assert metrics.rmse(measured, predicted.loc[measured.index, measured.columns]) <= error
