"""Out-of-fold predictions of the members of an ensemble."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from scdeconv.models._members import held_out_means, held_out_members, repeated_folds


def test_held_out_members_are_those_without_the_row():
    donors = np.array(list("aabbcdefg"))
    held = repeated_folds(donors, 4, 0, refit=True)
    members = np.random.default_rng(0).random((*held.shape, 3))
    found = held_out_members(members, held)
    assert found.shape == (2, 9, 3)
    for row in range(9):
        expected = [members[member, row] for member in range(len(held)) if held[member, row]]
        np.testing.assert_array_equal(found[:, row], expected)
    np.testing.assert_allclose(found.mean(axis=0), held_out_means(members, held))


def test_rows_keep_the_lowest_number_of_members():
    held = np.array([[True, False, False], [True, True, False], [True, False, False]])
    members = np.arange(9.0).reshape(3, 3, 1)
    np.testing.assert_array_equal(held_out_members(members, held)[..., 0], [[0, 4]])
