"""Arrays of saved models: damaged, exchanged or planted ones are refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from scdeconv.models import Ridge


def test_weights_of_another_model_are_refused(models, files, model, tmp_path):
    other = models["ridge"] if type(model) is not Ridge else models["calibrated_map"]
    other.save(tmp_path / "other")
    files.npz.write_bytes((tmp_path / "other" / "weights.npz").read_bytes())
    files.assert_refused("Expected a weights.npz that matches model.json in .*, found another")
    files.rehash_weights()
    files.assert_refused("Expected the arrays listed in model.json in .*, found differences in")


@pytest.mark.parametrize("rehash", [True, False])
@pytest.mark.parametrize("size", [0, 1, 100, 0.5, -1])
def test_truncated_weights_are_refused(ridge_files, size, rehash):
    content = ridge_files.npz.read_bytes()
    ridge_files.npz.write_bytes(content[: int(size * len(content)) if isinstance(size, float) else size])
    if rehash:
        ridge_files.rehash_weights()
    ridge_files.assert_refused("Expected")


@pytest.mark.parametrize("seed", range(30))
def test_flipped_bytes_of_weights_are_refused(ridge_files, models, seed):
    content = bytearray(ridge_files.npz.read_bytes())
    content[np.random.default_rng(seed).integers(len(content))] ^= 0xFF
    ridge_files.npz.write_bytes(bytes(content))
    ridge_files.assert_refused("found another")
    ridge_files.rehash_weights()
    # the archive has checksums of its arrays; a byte of its unused header fields changes nothing
    loaded = ridge_files.load_or_none(f"seed {seed}")
    if loaded is not None:
        for name, value in vars(models["ridge"].state_).items():
            np.testing.assert_array_equal(getattr(loaded.state_, name), value)


def renamed(arrays):
    first = next(iter(arrays))
    return {f"{name}x" if name == first else name: array for name, array in arrays.items()}


CHANGES = {
    "added": lambda arrays: {**arrays, "more": np.ones(3)},
    "removed": lambda arrays: dict(list(arrays.items())[1:]),
    "renamed": renamed,
    "dtype": lambda arrays: {name: array.astype("U8") for name, array in arrays.items()},
    "complex": lambda arrays: {name: array.astype("U1") if array.dtype.kind == "U" else array + 1j for name, array in arrays.items()},
    "shorter": lambda arrays: {name: array[:-1] if array.ndim else array for name, array in arrays.items()},
    "further axis": lambda arrays: {name: array[None] for name, array in arrays.items()},
    "empty": lambda arrays: {name: array[:0] if array.ndim else array for name, array in arrays.items()},
    "none": lambda arrays: {},
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_other_arrays_with_fitting_hashes_are_refused(files, change):
    listed = files.read()["arrays"]
    changed = CHANGES[change](files.arrays())
    files.rehash_weights(changed)
    # the description lists the arrays as they are: only the model's own types and sizes are left to tell
    files.assert_refused("Expected")
    files.write({**files.read(), "arrays": listed})
    files.assert_refused("Expected the arrays listed in model.json in .*, found differences in")


def test_pickles_are_refused_and_not_executed(ridge_files, tmp_path):
    planted = np.empty(1, dtype=object)
    planted[0] = Bomb(tmp_path / "executed")
    arrays = ridge_files.arrays()
    np.savez(ridge_files.npz, **arrays, planted=planted)
    for rehash in (False, True):
        if rehash:
            ridge_files.rehash_weights()
        ridge_files.assert_refused("allow_pickle=False" if rehash else "found another")
    ridge_files.npz.write_bytes(pickle.dumps(planted[0]))
    ridge_files.rehash_weights()
    ridge_files.assert_refused("pickle")
    assert not (tmp_path / "executed").exists()


class Bomb:
    """An object whose unpickling touches a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_single_array_instead_of_an_archive_is_refused(ridge_files):
    with ridge_files.npz.open("wb") as file:
        np.save(file, np.ones(3))
    ridge_files.rehash_weights()
    ridge_files.assert_refused("found an unreadable file")
