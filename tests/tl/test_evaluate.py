from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import metrics, tl


@pytest.fixture
def adata():
    """Eight samples with measured and estimated fractions of three types."""
    rng = np.random.default_rng(0)
    names, types = [f"s{i}" for i in range(8)], ["B cell", "NK cell", "T cell"]
    adata = AnnData(obs=pd.DataFrame(index=names))
    for key in ("measured_fractions", "fractions"):
        adata.obsm[key] = pd.DataFrame(rng.dirichlet(np.ones(3), 8), names, types)
    return adata


def test_evaluation_equals_the_table_of_metrics(adata):
    table = tl.evaluate(adata)
    expected = metrics.table(adata.obsm["measured_fractions"], adata.obsm["fractions"])
    pd.testing.assert_frame_equal(table.drop(columns="rmse_mean_composition"), expected)


def test_baseline_is_the_best_constant_composition(adata):
    table = tl.evaluate(adata)
    measured = adata.obsm["measured_fractions"]
    deviation = measured - measured.mean()
    np.testing.assert_allclose(
        table["rmse_mean_composition"],
        [
            *np.sqrt((deviation**2).mean()),
            np.sqrt((deviation.to_numpy() ** 2).mean()),
            np.sqrt((deviation**2).mean()).mean(),
        ],
    )


def test_other_keys_can_be_given(adata):
    expected = tl.evaluate(adata)
    adata.obsm["flow"] = adata.obsm.pop("measured_fractions")
    adata.obsm["nnls"] = adata.obsm.pop("fractions")
    pd.testing.assert_frame_equal(tl.evaluate(adata, "nnls", measured_key="flow"), expected)


def test_type_order_does_not_matter(adata):
    expected = tl.evaluate(adata)
    adata.obsm["fractions"] = adata.obsm["fractions"][["T cell", "B cell", "NK cell"]]
    pd.testing.assert_frame_equal(tl.evaluate(adata), expected)


def test_samples_without_truth_are_excluded(adata):
    adata.obsm["measured_fractions"].iloc[[1, 5]] = np.nan
    table = tl.evaluate(adata)
    rest = adata[[0, 2, 3, 4, 6, 7]]
    expected = metrics.table(rest.obsm["measured_fractions"], rest.obsm["fractions"])
    pd.testing.assert_frame_equal(table.drop(columns="rmse_mean_composition"), expected)


def test_object_is_not_changed(adata, unchanged):
    adata.obsm["measured_fractions"].iloc[1] = np.nan
    with unchanged(adata):
        tl.evaluate(adata)


def test_missing_keys_are_named_with_available_ones(adata):
    del adata.obsm["fractions"]
    with pytest.raises(KeyError, match=r"Expected 'fractions' in adata.obsm, found \['measured_fractions'\]"):
        tl.evaluate(adata)
    with pytest.raises(KeyError, match=r"Expected 'flow' in adata.obsm"):
        tl.evaluate(adata, "measured_fractions", measured_key="flow")


def test_no_truth_at_all_is_refused(adata):
    adata.obsm["measured_fractions"].iloc[:] = np.nan
    with pytest.raises(ValueError, match=r"Expected samples with measured fractions .*found 8 rows of NaN"):
        tl.evaluate(adata)
