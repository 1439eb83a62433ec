"""Donors of bulk and cells that do not match: the reason is always given."""

from __future__ import annotations

import pytest

from scdeconv import pp


def numbered(make_inputs, of_cells, of_bulk):
    """Cells of four donors and bulk of six, named by functions of a number."""
    return make_inputs(cell_donors=[of_cells(i) for i in range(1, 5)], bulk_donors=[of_bulk(i) for i in range(1, 7)])


@pytest.mark.parametrize(
    ("of_cells", "of_bulk"),
    [
        (str, lambda i: f"{i:03d}"),
        (lambda i: str(100 + i), lambda i: f"X{100 + i}"),
        (lambda i: f"P-{i}", lambda i: f"P.{i}"),
        (lambda i: f"p{i}", lambda i: f"P{i}"),
        (lambda i: f"D_{i}", lambda i: f"bulk_D_{i}"),
        (lambda i: f"D{i}", lambda i: f"D{i}" if i < 4 else f"d {i}"),
    ],
)
def test_near_matches_are_listed_with_a_renaming(make_inputs, of_cells, of_bulk):
    cells, bulk = numbered(make_inputs, of_cells, of_bulk)
    with pytest.raises(ValueError, match="Expected identical donor names in bulk and cells") as caught:
        pp.pair(cells, bulk)
    different = next(i for i in range(1, 5) if of_cells(i) != of_bulk(i))
    assert "rename them in bulk.obs['donor'], such as .replace({" in str(caught.value)
    assert f"'{of_bulk(different)}': '{of_cells(different)}'" in str(caught.value)


def test_donors_in_another_column_are_found(make_inputs):
    cells, bulk = make_inputs()
    bulk.obs["patient"], bulk.obs["donor"] = bulk.obs["donor"], [f"library{i}" for i in range(bulk.n_obs)]
    with pytest.raises(ValueError, match=r"bulk\.obs\['patient'\] has 4 donors of cells \('D1', .*Pass donor_key="):
        pp.pair(cells, bulk)


def test_column_of_donors_comes_before_near_matches(make_inputs):
    cells, bulk = make_inputs()
    bulk.obs_names = [f"bulk_{donor}" for donor in bulk.obs["donor"]]
    bulk.obs = bulk.obs.rename(columns={"donor": "patient"})
    with pytest.raises(ValueError, match=r"bulk\.obs\['patient'\] has 4 donors of cells .*Pass donor_key="):
        pp.pair(cells, bulk)


def test_donors_in_the_row_names_are_found(make_inputs):
    cells, bulk = make_inputs()
    bulk.obs_names, bulk.obs["donor"] = list(bulk.obs["donor"]), [f"library{i}" for i in range(bulk.n_obs)]
    with pytest.raises(ValueError, match=r"bulk\.obs_names has 4 donors of cells"):
        pp.pair(cells, bulk)


def test_column_of_numbers_is_named_in_the_warning(make_inputs):
    cells, bulk = numbered(make_inputs, str, str)
    bulk.obs["patient"], bulk.obs["donor"] = bulk.obs["donor"], [f"library{i}" for i in range(bulk.n_obs)]
    with pytest.warns(UserWarning, match=r"found none in both.*bulk\.obs\['patient'\] has 4 donors of cells"):
        pp.pair(cells, bulk)


def test_key_of_one_side_is_said_without_pairs(make_inputs):
    cells, bulk = make_inputs()
    cells.obs = cells.obs.rename(columns={"donor": "person"})
    del bulk.obs["donor"]
    with pytest.warns(UserWarning, match=r"from bulk\.obs_names, because bulk\.obs has no column 'person'") as caught:
        pp.pair(cells, bulk, donor_key="person")
    assert "'bulk0', 'bulk1', 'bulk2' and 3 more" in str(caught[0].message)
    assert "'D1', 'D2', 'D3' and 2 more; from cells.obs['person']" in str(caught[0].message)


def test_other_donors_with_fractions_need_no_warning(make_inputs, recwarn):
    cells, bulk = make_inputs(bulk_donors=[f"Q{i}y" for i in range(6)])
    fractions = pp.pair(*make_inputs())["bulk"].obsm["measured_fractions"].fillna(1 / 3)
    bulk.obsm["measured_fractions"] = fractions
    recwarn.clear()
    assert len(pp.paired_donors(pp.pair(cells, bulk))) == 6
    assert not [w for w in recwarn if "donor" in str(w.message)]
