"""The basis of BSEQ-sc against bseqsc 1.0; its estimates need the code of CIBERSORT."""

from __future__ import annotations

import pandas as pd

from scdeconv._data.modalities import make_mudata


def test_basis_equals_the_original(unpaired, train, read_original, assert_equals_original):
    expected = read_original("bseqsc_basis")
    mdata = make_mudata({**unpaired.mod, "bulk": unpaired["bulk"].copy()})
    mdata["bulk"].var["selected"] = mdata["bulk"].var_names.isin(expected.columns)
    model = train("BSEQsc", mdata)
    # the model divides its basis by the mean
    basis = pd.DataFrame(model.state_.signature, model.cell_types_, model.genes_) * expected.to_numpy().mean()
    # measured 4.4e-9: the rounding of the table
    assert_equals_original(basis, "bseqsc_basis", rtol=6e-9)
