"""Cell types without a size or without expression are refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import pp, tl


@pytest.mark.parametrize("column", ["cell_size_umi", "total"])
@pytest.mark.parametrize("size", [0.0, -5.0, np.nan, np.inf, "large"])
def test_sizes_must_be_positive_numbers(reference_inputs, column, size):
    reference_inputs["profiles"].obs[column] = [size, 2000.0, 3000.0]
    with pytest.raises(
        ValueError, match=rf"positive numbers in profiles\.obs\['{column}'\], found 1 others: 'B cell: {size}'"
    ):
        pp.pair(**reference_inputs)


def test_profile_without_shared_genes_is_refused(reference_inputs):
    given = reference_inputs["profiles"]
    x = np.hstack([given.X, np.ones((3, 5))])
    x[1, :40] = 0
    reference_inputs["profiles"] = AnnData(x, obs=given.obs)
    reference_inputs["profiles"].var_names = [*given.var_names, *(f"further{i}" for i in range(5))]
    with pytest.raises(ValueError, match="every cell type in the shared genes, found none of 'NK cell'"):
        pp.pair(**reference_inputs)


def test_type_without_expression_in_selected_genes_is_refused(reference_inputs):
    reference_inputs["profiles"].X[2, :10] = 0
    mdata = pp.pair(**reference_inputs)
    mdata["bulk"].var["selected"] = np.arange(40) < 10
    with pytest.raises(ValueError, match="every cell type in the genes, found none of 'T cell'"):
        tl.train(mdata, "nnls")


def test_type_without_measured_column_is_said(reference_inputs):
    bulk = reference_inputs["bulk"]
    bulk.obsm["flow"] = pd.DataFrame({"T cell": 0.4, "B cell": 0.6}, index=bulk.obs_names)
    with pytest.warns(UserWarning, match="found none of 'NK cell'. Their fractions are taken as 0"):
        pp.pair(**reference_inputs, fractions_key="flow")


def test_batches_of_one_sample_are_refused(pairs):
    bulk = pairs["bulk"]
    bulk.obs["run"] = [f"run{i}" for i in range(bulk.n_obs)]
    with pytest.raises(ValueError, match="found one sample in each of 10 batches"):
        pp.calibrate(pairs, batch_key="run")
    first = bulk.obsm["measured_fractions"].notna().all(axis=1).to_numpy().argmax()
    bulk.obs["run"] = ["alone" if i == first else f"b{i % 2}" for i in range(bulk.n_obs)]
    with pytest.warns(UserWarning, match="found one of 'alone'"):
        pp.calibrate(pairs, batch_key="run")
