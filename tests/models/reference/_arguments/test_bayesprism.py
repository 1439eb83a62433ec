"""Genes that BayesPrism's authors advise against."""

from __future__ import annotations

import pandas as pd
import pytest

from scdeconv.models.reference._arguments.bayesprism import is_noisy

NOISY = "RPL3 RPS4X RPLP0 RPSA RPL23AP7 MRPL12 MRPS18A Rps27a MT-CO1 mt-Nd4 MALAT1 Malat1 XIST UTY DDX3Y RPS4Y1 TTTY14"
KEPT = "RPS6KA1 RPS6KB2 RPS19BP1 ACTB MTOR MT2A RPE RPN1 MRPLX UTYX CD3D METTL3"


def test_noisy_genes_are_matched_by_symbol():
    assert is_noisy(pd.Index(NOISY.split())).all()
    assert not is_noisy(pd.Index(KEPT.split())).any()
    with pytest.raises(ValueError, match="Expected gene symbols with drop_ribosomal=True, found Ensembl"):
        is_noisy(pd.Index(["ENSG00000000003", "ENSG00000000005"]))
