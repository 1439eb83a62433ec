"""Saved models whose files can be changed."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest

from scdeconv import load_model, pp, tl

METHODS = ["ridge", "calibrated_map", "residual_dnn", "ensemble", "simplednn"]
NETWORK = {"hidden": (4,), "n_members": 2, "max_epochs": 1}
REFUSAL = r"(?s)^Expected .*found .*\. [A-Z]"


def hash_of(description):
    plain = {key: value for key, value in description.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


class Files:
    """The two files of a saved model, to be changed."""

    def __init__(self, path):
        self.path = path
        self.json, self.npz = path / "model.json", path / "weights.npz"

    hash_of = staticmethod(hash_of)

    def read(self):
        return json.loads(self.json.read_text())

    def write(self, description, *, rehash=True):
        """Write the description; with ``rehash`` its hash fits what it says."""
        if rehash and isinstance(description, dict):
            description = {**description, "sha256": hash_of(description)}
        self.json.write_text(json.dumps(description))

    def arrays(self):
        with np.load(self.npz) as file:
            return dict(file)

    def rehash_weights(self, arrays=None):
        """Write arrays, and the hashes of both files; with ``arrays`` also the list of them in the description."""
        description = self.read()
        if arrays is not None:
            np.savez(self.npz, **arrays)
            description["arrays"] = {
                name: {"shape": list(array.shape), "dtype": array.dtype.str} for name, array in arrays.items()
            }
        description["weights_sha256"] = hashlib.sha256(self.npz.read_bytes()).hexdigest()
        self.write(description)

    def assert_refused(self, message="Expected", error=ValueError):
        """Loading raises exactly this error, in the usual form and with this message."""
        with pytest.raises(error, match=message) as caught:
            load_model(self.path)
        assert type(caught.value) is error
        assert re.match(REFUSAL, str(caught.value))

    def load_or_none(self, what):
        """Return the model, or None where it is refused with a message of the usual form."""
        try:
            return load_model(self.path)
        except ValueError as caught:
            error = caught
        assert type(error) is ValueError, what
        assert re.match(REFUSAL, str(error)), f"{what}: {error}"
        return None


@pytest.fixture(scope="session")
def models(cohort):
    with redirect_stdout(StringIO()):
        mdata = pp.pair(*cohort)
        pp.select_genes(mdata, 30)
        return {
            name: tl.train(
                mdata,
                name,
                **(NETWORK if "dnn" in name else {}),
                **({"simulate": None} if name == "residual_dnn" else {}),
            )
            for name in METHODS
        }


@pytest.fixture(params=METHODS)
def model(models, request):
    return models[request.param]


@pytest.fixture
def files(model, tmp_path):
    model.save(tmp_path / "model")
    return Files(tmp_path / "model")


@pytest.fixture
def ridge_files(models, tmp_path):
    models["ridge"].save(tmp_path / "model")
    return Files(tmp_path / "model")


@pytest.fixture
def files_at():
    """A function that returns the files of a directory."""
    return Files
