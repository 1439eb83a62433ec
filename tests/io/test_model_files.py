"""Descriptions of saved models: format, hash, and that damaged ones are refused with advice."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from scdeconv._version import __version__

# format


def test_files_are_json_and_plain_arrays(files, model):
    description = files.read()
    assert sorted(path.name for path in files.path.iterdir()) == ["model.json", "weights.npz"]
    assert description["class"] == type(model).__name__
    assert (description["format"], description["version"]) == (3, __version__)
    assert description["sha256"] == files.hash_of(description)
    arrays = files.arrays()
    assert {name: (kind["shape"], kind["dtype"]) for name, kind in description["arrays"].items()} == {
        name: (list(array.shape), array.dtype.str) for name, array in arrays.items()
    }
    assert all(array.dtype.kind not in "OV" for array in arrays.values())


def test_newer_format_is_refused_with_number_and_version(ridge_files):
    ridge_files.write({**ridge_files.read(), "format": 4, "version": "9.1"})
    ridge_files.assert_refused("Expected a model of format 3 in .*found format 4, .*scdeconv 9.1. Update scdeconv")


def test_format_without_number_is_refused(ridge_files):
    old = {name: value for name, value in ridge_files.read().items() if name not in ("format", "sha256")}
    ridge_files.write({**old, "version": "0.3"}, rehash=False)
    ridge_files.assert_refused(r"found format 1, written by scdeconv 0.3. Train and save the model again")


@pytest.mark.parametrize("number", [1, 0, -2, "2", None, 2.5, [2], True])
def test_other_formats_are_refused(ridge_files, number):
    ridge_files.write({**ridge_files.read(), "format": number})
    ridge_files.assert_refused("Expected a model of format 3")


# description edited by hand


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["training"].update(seed=5),
        lambda d: d["training"]["genes"].__setitem__(0, "TP53"),
        lambda d: d["training"]["cell_types"].reverse(),
        lambda d: d["training"].update(bulk_unit="TPM"),
        lambda d: d["training"].update(summary="the best"),
        lambda d: d.update(version="9.9"),
        lambda d: d.update(weights_sha256="0" * 64),
        lambda d: d["state"].update(summary=""),
        lambda d: d.pop("sha256"),
        lambda d: d.update(sha256=None),
        lambda d: d.update(more=1),
    ],
)
def test_edited_description_is_refused(ridge_files, edit):
    description = ridge_files.read()
    edit(description)
    ridge_files.write(description, rehash=False)
    ridge_files.assert_refused("Expected an unchanged .*model.json, found a modified file")


@pytest.mark.parametrize(
    "text", ["", "{", "class: Ridge", "[]", "1", '"Ridge"', "null", "{}", '{"class": 5}', "[" * 100_000, "\x00"]
)
def test_other_content_of_the_description_is_refused(ridge_files, text):
    ridge_files.json.write_text(text)
    ridge_files.assert_refused("Expected a model description in")


def test_description_that_is_no_text_is_refused(ridge_files):
    ridge_files.json.write_bytes(b"\xff\xfe\x00\x81")
    ridge_files.assert_refused("found invalid JSON")


def test_unknown_fields_are_refused(ridge_files):
    ridge_files.write({**ridge_files.read(), "more": 1})
    ridge_files.assert_refused("Expected the fields .*'more'")
    description = ridge_files.read()
    del description["more"]
    description["state"]["more"] = 1
    ridge_files.write(description)
    ridge_files.assert_refused("Expected the fields .* in state, found .*'more'")


def test_unknown_class_is_refused(ridge_files):
    ridge_files.write({**ridge_files.read(), "class": "MyMethod"})
    ridge_files.assert_refused("Expected a deconvolution model in .*found MyMethod.*register")


def test_state_of_another_class_is_refused(models, files_at, tmp_path):
    for name in ("ridge", "calibrated_map"):
        models[name].save(tmp_path / name)
    ridge, other = files_at(tmp_path / "ridge"), files_at(tmp_path / "calibrated_map")
    ridge.write({**ridge.read(), "state": other.read()["state"]})
    ridge.assert_refused("Expected .*RidgeState.* for state")


# mutations with a hash that fits


def places(tree, path=()):
    """Yield the path of every value of a JSON tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def mutated(description, rng):
    """Return the description with one value dropped, renamed, nested or of another type, and what was done."""
    tree = deepcopy(description)
    # every branch is as likely as any other, however long its lists are
    by_depth: dict[Any, list] = {}
    for path in places({name: value for name, value in tree.items() if name not in ("sha256", "weights_sha256")}):
        by_depth.setdefault(tuple(key for key in path if isinstance(key, str)), []).append(path)
    path = rng.choice(by_depth[rng.choice(list(by_depth))])
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    key, value = path[-1], parent[path[-1]]
    # another text in the place of a text is no damage that a type can tell
    action = rng.choice(
        [
            "drop",
            "rename",
            "nest",
            "listed",
            "number" if isinstance(value, str) else "text",
            "number",
            "null",
            "truth",
            "object",
        ]
    )
    if action == "drop" or (action == "rename" and isinstance(parent, list)):
        del parent[key]
    elif action == "rename":
        parent[f"{key}x"] = parent.pop(key)
    else:
        others = {"nest": {"nested": value}, "listed": [value], "text": "text", "number": 7, "null": None}
        parent[key] = {**others, "truth": True, "object": {}}[action]
    return tree, f"{action} {'.'.join(map(str, path))}"


@pytest.mark.parametrize("seed", range(60))
def test_mutations_are_refused_or_change_nothing(model, files, cohort, seed):
    rng = random.Random(seed)
    expected = model.predict(cohort[1])
    original = files.read()
    for _ in range(5):
        tree, what = mutated(original, rng)
        files.write(tree)
        loaded = files.load_or_none(what)
        if loaded is not None:
            found = loaded.predict(cohort[1])
            np.testing.assert_array_equal(found, expected, err_msg=what)
            assert all(isinstance(name, str) for name in found.columns), what


# missing files


@pytest.mark.parametrize("name", ["model.json", "weights.npz"])
def test_missing_file_is_named(ridge_files, name):
    (ridge_files.path / name).unlink()
    ridge_files.assert_refused(f"Expected a saved model with {name} in", FileNotFoundError)
    (ridge_files.path / name).mkdir()
    ridge_files.assert_refused(f"Expected a saved model with {name} in", FileNotFoundError)


def test_missing_directory_is_refused(files_at, tmp_path):
    files_at(tmp_path / "nowhere").assert_refused(
        "Expected a saved model with model.json in .*nowhere", FileNotFoundError
    )
    (tmp_path / "model").write_text("text")
    files_at(tmp_path / "model").assert_refused("Expected a saved model with model.json in", FileNotFoundError)
