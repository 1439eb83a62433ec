"""Known fractions, and training on one cohort for another one, on real blood."""

from __future__ import annotations

import os
from pathlib import Path

import anndata
import numpy as np
import pytest

from scdeconv import pp, tl

SHARED = Path(os.environ.get("SCDECONV_DATA_DIR", Path(__file__).resolve().parents[2] / "shared" / "data"))
pytestmark = [
    pytest.mark.filterwarnings("ignore:Expected an out-of-fold RMSE below"),
    pytest.mark.filterwarnings("ignore:Expected known fractions near the estimates"),
    pytest.mark.filterwarnings("ignore:.*same genes in"),
]


def read(folder, name="bulk"):
    path = SHARED / folder / f"{name}.h5ad"
    if not path.exists():
        pytest.skip(f"real data are not at {path}")
    return anndata.read_h5ad(path)


@pytest.fixture(scope="module")
def arrays():
    return pp.pair(bulk=read("wholeblood_gse20300_array_cbc"))


@pytest.fixture(scope="module")
def sequenced():
    return pp.pair(
        bulk=read("wholeblood_linsley_cbc"), profiles=read("wholeblood_linsley_cbc", "sorted_means"), unit="tpm"
    )


@pytest.mark.parametrize(("data", "method"), [("arrays", "ridge"), ("sequenced", "calibrated_map")])
def test_given_neutrophils_improve_other_types(request, data, method):
    mdata = request.getfixturevalue(data)
    squares = {"alone": [], "given": []}
    donors = pp.paired_donors(mdata)
    for fold in range(5):
        training, new = pp.hold_out(mdata, donors[fold::5])
        model, truth = tl.train(training, method), new.obsm["measured_fractions"]
        others = truth.columns.drop("Neutrophils")
        for way, known in (("alone", None), ("given", truth[["Neutrophils"]])):
            tl.predict(new, model, known=known)
            squares[way].append(((new.obsm["fractions"] - truth)[others] ** 2).to_numpy().ravel())
    alone, given = (np.sqrt(np.concatenate(errors).mean()) for errors in squares.values())
    assert given < 0.85 * alone


def test_arrays_predict_sequenced_blood(arrays, sequenced):
    pooled = tl.validate(arrays, pp.pair(bulk=read("wholeblood_linsley_cbc")), method="ridge").loc["all entries"]
    assert pooled["rmse"] < 0.6 * pooled["rmse_mean_composition"]


def test_sequenced_blood_predicts_arrays(arrays, sequenced):
    pooled = tl.validate(sequenced, arrays, method="calibrated_map").loc["all entries"]
    assert pooled["rmse"] < 0.8 * min(pooled["rmse_mean_composition"], pooled["rmse_training_mean"])
