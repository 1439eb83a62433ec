"""What a state may hold to be saved, and that a failed save leaves the earlier model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scdeconv import load_model
from scdeconv.io._plain import Arrays, from_plain
from scdeconv.models import CrossFittedModel, Method, State


@dataclass(frozen=True, kw_only=True)
class AnythingState(State):
    """A state that holds anything."""

    value: Any

    def predict(self, expression):
        return np.ones((len(expression), 4))


class Anything(CrossFittedModel):
    """A method that learns a given value."""

    record = Method(key="anything", family="paired", needs=("pairs",), summary="anything", reference="this test")
    state_type = AnythingState
    value: Any = None

    def fit(self, data, without=()):
        return AnythingState(value=self.value)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.array(["a", None], dtype=object), "array of object"),
        (pd.DataFrame({"a": [1.0]}), "DataFrame"),
        (pd.Series([1.0]), "Series"),
        ({1, 2}, "set"),
        (lambda x: x, "function"),
        (1j, "complex"),
        (b"bytes", "bytes"),
        ([np.ones(2), pd.DataFrame()], "DataFrame"),
        ({"a": {"b": object()}}, "object"),
        (np.zeros(1, dtype=[("a", int)]), "array of"),
    ],
)
def test_unsupported_state_is_refused_at_save(pairs, tmp_path, value, found):
    model = Anything(pairs)
    model.value = value
    model.train(held_out=False)
    with pytest.raises(
        TypeError, match=rf"Expected arrays of numbers or text and plain values in state.value.*found {found}"
    ):
        model.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_killed_save_leaves_the_earlier_model(files, model, cohort, monkeypatch):
    """A process that dies cannot clean up: the new files lie beside the model, which is still whole."""
    savez = np.savez

    def killed(file, **arrays):
        savez(file, **arrays)
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", killed)
    monkeypatch.setattr("scdeconv._data.files.publish.shutil.rmtree", lambda *args, **kwargs: None)
    with pytest.raises(KeyboardInterrupt):
        model.save(files.path, overwrite=True)
    monkeypatch.undo()
    pd.testing.assert_frame_equal(load_model(files.path).predict(cohort[1]), model.predict(cohort[1]), check_exact=True)
    model.save(files.path, overwrite=True)
    pd.testing.assert_frame_equal(load_model(files.path).predict(cohort[1]), model.predict(cohort[1]), check_exact=True)


def test_failed_write_leaves_the_earlier_model(files, model, cohort, monkeypatch):
    monkeypatch.setattr(Path, "write_text", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        model.save(files.path, overwrite=True)
    monkeypatch.undo()
    assert [path.name for path in files.path.parent.iterdir()] == ["model"]
    pd.testing.assert_frame_equal(load_model(files.path).predict(cohort[1]), model.predict(cohort[1]), check_exact=True)


@dataclass(frozen=True)
class Newer:
    """A part of a state that got a field after files were written."""

    first: int
    second: float | None = None


def test_new_fields_with_a_default_may_be_missing():
    """Files of an earlier version lack them."""
    read = from_plain({"class": "Newer", "first": 3}, Newer, "state", Arrays({}))
    assert read == Newer(first=3)
    for wrong in ({"second": 1.0}, {"first": 3, "third": 1}):
        with pytest.raises(ValueError, match="Expected the fields"):
            from_plain({"class": "Newer", **wrong}, Newer, "state", Arrays({}))
