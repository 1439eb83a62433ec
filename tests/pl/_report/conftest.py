from __future__ import annotations

import importlib
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pandas as pd
import pytest

from scdeconv import pp, tl
from scdeconv._data.annotated import make_adata
from scdeconv.pl._report.figures import Image


@pytest.fixture(scope="session")
def predicted(cohort):
    """Bulk with fractions, bounds and quality, and the model; do not change them."""
    with redirect_stdout(StringIO()):
        mdata = pp.pair(*cohort)
        model = tl.train(mdata, "calibrated_map")
        bulk = mdata["bulk"].copy()
        tl.predict(bulk, model, coverage=0.8)
    return bulk, model


@pytest.fixture
def bulk(predicted):
    """The bulk with the estimates; a new object for every test."""
    return predicted[0].copy()


@pytest.fixture(scope="session")
def model(predicted):
    """The model of the estimates."""
    return predicted[1]


@pytest.fixture
def without_figures(monkeypatch):
    """Leave out the drawing of the figures, which takes seconds."""
    # the package has a function with the name of the module
    module = importlib.import_module("scdeconv.pl._report.report")
    monkeypatch.setattr(module, "as_image", lambda _, caption: Image(caption, "data:image/png;base64,", 1))


@pytest.fixture
def make_estimate():
    """Random fractions with bounds and flags, without expression and model."""

    def make(n_samples, n_types):
        rng = np.random.default_rng(n_samples)
        names = [f"s{number}" for number in range(n_samples)]
        types = [f"type {number}" for number in range(n_types)]
        adata = make_adata(obs=pd.DataFrame(index=names))
        fractions = rng.dirichlet(np.ones(n_types), n_samples)
        for side, change in (("", 0), ("_lower", -0.05), ("_upper", 0.05)):
            adata.obsm[f"fractions{side}"] = pd.DataFrame(np.clip(fractions + change, 0, 1), names, types)
        flags = {"noise": rng.random(n_samples), "outside": rng.random(n_samples) < 0.2}
        adata.obsm["fractions_quality"] = pd.DataFrame(flags, names)
        return adata

    return make
