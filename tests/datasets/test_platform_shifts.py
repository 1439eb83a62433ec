from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdeconv import datasets
from scdeconv.datasets._platform_shifts import select_shifts


@pytest.mark.parametrize("cells", ["10x 3'", "10x 3' nuclei"])
def test_shipped_shifts_are_plausible(cells):
    prior = datasets.platform_shift_prior(cells=cells, bulk="poly-A")
    assert prior.index.is_unique
    assert len(prior) > 10_000
    known = prior.dropna(subset="mean")
    assert abs(known["mean"].median()) < 0.2
    assert known["n_sets"].between(1, 4).all()
    assert (known["variance"] > 0).all()
    assert (known["expected"].abs() <= known["mean"].abs() + 1e-9).all()
    assert prior["gene_id"].dropna().str.match(r"ENSG\d{11}$").all()


def test_nuclei_have_other_shifts_than_cells():
    cells, nuclei = (datasets.platform_shift_prior(cells=kind)["mean"] for kind in ("10x 3'", "10x 3' nuclei"))
    # a stable RNA of the cytoplasm
    assert nuclei["B2M"] > cells["B2M"] + 1
    assert 0.3 < cells.corr(nuclei) < 0.99


def test_longer_genes_have_more_counts_than_tpm():
    length = datasets.platform_shift_prior()["log_length"]
    assert length["ACTB"] < length["PTPRC"]


def test_expected_shift_is_shrunk_by_its_error():
    table = pd.DataFrame(
        {
            "gene_id": ["a", "b", "c"],
            "log_length": 0.0,
            "x|mean": [1.0, 1.0, np.nan],
            "x|variance": [0.5, 0.5, np.nan],
            "x|n_sets": [1.0, 4.0, np.nan],
        },
        index=["A", "B", "C"],
    )
    found = select_shifts(table, "x")["expected"]
    variance = 1 - (0.5 + 0.125) / 2
    np.testing.assert_allclose(found[:2], [variance / (variance + 0.5), variance / (variance + 0.125)])
    assert np.isnan(found["C"])


@pytest.mark.parametrize(("cells", "bulk"), [("smart-seq", "poly-A"), ("10x 3'", "total RNA")])
def test_unknown_protocols_are_refused(cells, bulk):
    with pytest.raises(ValueError, match="to be"):
        datasets.platform_shift_prior(cells=cells, bulk=bulk)
