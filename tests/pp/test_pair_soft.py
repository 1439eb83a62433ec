"""Pairs of cells with type probabilities."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from scdeconv import pp, tl
from scdeconv._data.modalities import read_mudata, write_mudata


def one_hot(cells):
    labels = cells.obs["cell_type"]
    return pd.DataFrame({name: (labels == name).astype(float) for name in labels.cat.categories}, cells.obs_names)


def soft(cells, *, seed=0, concentration=0.7):
    """Random probabilities; the columns are not in the order of the types."""
    names = list(cells.obs["cell_type"].cat.categories)[::-1]
    values = np.random.default_rng(seed).dirichlet(np.full(len(names), concentration), cells.n_obs)
    return pd.DataFrame(values, cells.obs_names, names)


@pytest.fixture
def soft_inputs(inputs):
    cells, bulk = inputs
    cells.obsm["p"] = soft(cells)
    return cells, bulk


def test_one_hot_probabilities_equal_labels(inputs, assert_same):
    cells, bulk = inputs
    expected = pp.pair(cells, bulk)
    for dtype in (float, np.float32, int, bool):
        cells.obsm["p"] = one_hot(cells).astype(dtype)
        found = pp.pair(cells, bulk, probabilities_key="p")
        variance = found["bulk"].obsm.pop("measured_variance")
        known = expected["bulk"].obsm["measured_fractions"].notna()
        assert (variance[known].fillna(0) == 0).all(axis=None)
        pd.testing.assert_frame_equal(variance.notna(), known)
        assert_same(found, expected)


def test_mean_and_variance_match_random_assignments(soft_inputs):
    cells, bulk = soft_inputs
    found = pp.pair(cells, bulk, probabilities_key="p")["bulk"]
    names, rng, n_draws = list(cells.obs["cell_type"].cat.categories), np.random.default_rng(1), 4000
    limits = cells.obsm["p"][names].to_numpy().cumsum(axis=1)
    for sample, donor in found.obs["donor"].items():
        mine = limits[(cells.obs["donor"] == donor).to_numpy()]
        if not len(mine):
            assert found.obsm["measured_fractions"].loc[sample].isna().all()
            assert found.obsm["measured_variance"].loc[sample].isna().all()
            continue
        types = (rng.random((n_draws, len(mine), 1)) > mine[:, :-1]).sum(axis=2)
        fractions = np.stack([(types == k).mean(axis=1) for k in range(len(names))], axis=1)
        measured, variance = (found.obsm[f"measured_{what}"].loc[sample, names] for what in ("fractions", "variance"))
        sd = fractions.std(axis=0)
        np.testing.assert_allclose(measured, fractions.mean(axis=0), atol=5 * sd.max() / n_draws**0.5)
        # the standard error of a variance is about sqrt(2 / n) of it
        np.testing.assert_allclose(variance, sd**2, rtol=5 * (2 / n_draws) ** 0.5)


def test_values_equal_the_explicit_formula(soft_inputs):
    cells, bulk = soft_inputs
    found = pp.pair(cells, bulk, probabilities_key="p")["bulk"]
    for sample, donor in found.obs["donor"].items():
        mine = cells.obsm["p"][(cells.obs["donor"] == donor).to_numpy()]
        for name in mine if len(mine) else ():
            p = mine[name].tolist()
            assert found.obsm["measured_fractions"].at[sample, name] == pytest.approx(sum(p) / len(p))
            assert found.obsm["measured_variance"].at[sample, name] == pytest.approx(
                sum(x * (1 - x) for x in p) / len(p) ** 2
            )
    for key in ("measured_fractions", "measured_cells", "measured_variance"):
        assert list(found.obsm[key].columns) == list(cells.obs["cell_type"].cat.categories)


def test_expected_cells_are_rounded_with_equal_total(soft_inputs):
    cells, bulk = soft_inputs
    found = pp.pair(cells, bulk, probabilities_key="p")["bulk"]
    counts, n_cells = found.obsm["measured_cells"], cells.obs["donor"].value_counts()
    assert set(counts.dtypes) == {np.dtype(int)}
    total = found.obs["donor"].map(n_cells).fillna(0)
    assert (counts.sum(axis=1) == total).all()
    off = counts - found.obsm["measured_fractions"].mul(total, axis=0)
    assert (off.abs().max(axis=None)) < 1
    assert (counts[total == 0] == 0).all(axis=None)


def test_rounding_is_by_largest_remainder():
    from scdeconv._data.reference import round_counts

    expected = np.array([[1.5, 0.7, 0.8], [2.0, 3.0, 4.0], [1 / 3, 1 / 3, 1 / 3], [0.0, 0.0, 0.0], [4.4, 2.4, 2.2]])
    found = [[1, 1, 1], [2, 3, 4], [1, 0, 0], [0, 0, 0], [5, 2, 2]]
    assert round_counts(expected).tolist() == found
    random = np.random.default_rng(0).dirichlet(np.ones(7), 300) * np.arange(1, 301)[:, None]
    counts = round_counts(random)
    assert (counts.sum(axis=1) == np.arange(1, 301)).all()
    assert (np.abs(counts - random) < 1).all()
    # entries that were rounded up have the larger remainders
    up, remainder = counts > random, random - np.floor(random)
    largest_down = np.where(up, 0, remainder).max(axis=1)
    smallest_up = np.where(up, remainder, 1).min(axis=1)
    assert (largest_down <= smallest_up).all()


def test_everything_else_equals_pairing_by_labels(soft_inputs, assert_same, capsys):
    cells, bulk = soft_inputs
    hard = pp.pair(cells, bulk)
    assert "expected" not in capsys.readouterr().out
    found = pp.pair(cells, bulk, probabilities_key="p")
    distance = (
        (found["bulk"].obsm["measured_fractions"] - hard["bulk"].obsm["measured_fractions"]).abs().mean(axis=None)
    )
    assert distance > 0.01
    report = f"bulk in counts; fractions from 'p', mean absolute difference to fractions from labels {distance:.3f}\n"
    assert capsys.readouterr().out.endswith(report)
    for name in ("profiles", "pseudobulk", "sc"):
        assert_same(found[name], hard[name])
    assert "measured_variance" not in hard["bulk"].obsm
    assert set(found["bulk"].obsm) == {"measured_fractions", "measured_cells", "measured_variance"}


def test_cell_and_column_order_does_not_matter(soft_inputs, unchanged):
    cells, bulk = soft_inputs
    found = pp.pair(cells, bulk, probabilities_key="p")["bulk"].obsm
    other = cells[np.random.default_rng(5).permutation(cells.n_obs)].copy()
    other.obsm["p"] = other.obsm["p"].iloc[:, [1, 2, 0]]
    with unchanged(other, bulk):
        again = pp.pair(other, bulk, probabilities_key="p")["bulk"].obsm
    for key in found:
        pd.testing.assert_frame_equal(found[key], again[key])


def test_rows_are_renormalised(soft_inputs):
    cells, bulk = soft_inputs
    expected = pp.pair(cells, bulk, probabilities_key="p")["bulk"].obsm["measured_fractions"]
    cells.obsm["p"] = (cells.obsm["p"] * np.linspace(0.992, 1.008, cells.n_obs)[:, None]).astype(np.float32)
    found = pp.pair(cells, bulk, probabilities_key="p")["bulk"].obsm["measured_fractions"]
    np.testing.assert_allclose(found.dropna().sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_given_fractions_have_no_variance(soft_inputs):
    cells, bulk = soft_inputs
    table = pd.DataFrame(np.nan, bulk.obs_names, cells.obs["cell_type"].cat.categories)
    table.loc["bulk2"] = 1 / 3
    bulk.obsm["measured_fractions"] = table
    found = pp.pair(cells, bulk, probabilities_key="p")["bulk"]
    assert bulk.obs["donor"]["bulk2"] == "B1"
    assert (found.obsm["measured_fractions"].loc["bulk2"] == 1 / 3).all()
    assert found.obsm["measured_variance"].loc["bulk2"].isna().all()


def test_types_named_by_numbers_are_matched_as_text(soft_inputs):
    cells, bulk = soft_inputs
    cells.obs["cluster"] = cells.obs["cell_type"].cat.codes.astype(int)
    cells.obsm["p"] = cells.obsm["p"].set_axis([2, 1, 0], axis=1)
    found = pp.pair(cells, bulk, cell_type_key="cluster", probabilities_key="p")["bulk"]
    assert list(found.obsm["measured_variance"].columns) == ["0", "1", "2"]


def test_later_steps_accept_the_result(soft_inputs, tmp_path):
    cells, bulk = soft_inputs
    mdata = pp.pair(cells, bulk, probabilities_key="p")
    pp.augment(mdata, n_aug=2000, aug_ratio=0.5)
    obsm = mdata["bulk"].obsm
    known = obsm["measured_fractions"].notna().all(axis=1).to_numpy()
    n_cells = obsm["measured_cells"].to_numpy()[known].sum(axis=1)
    drawn = obsm["augmented_fractions"][known].mean(axis=1)
    rounded = obsm["measured_cells"].to_numpy()[known] / n_cells[:, None]
    np.testing.assert_allclose(drawn, rounded, atol=0.02)
    assert (np.abs(rounded - obsm["measured_fractions"][known]).max(axis=1) < 1 / n_cells).all()
    train, held_out = pp.hold_out(mdata, ["D1"])
    for part in (train["bulk"], held_out):
        for key in ("measured_fractions", "measured_cells", "measured_variance"):
            pd.testing.assert_frame_equal(part.obsm[key], obsm[key].loc[part.obs_names])
    assert len(tl.cross_validate(mdata, "mean_composition")) == known.sum()
    write_mudata(mdata, tmp_path / "pairs.h5mu")
    again = read_mudata(tmp_path / "pairs.h5mu")["bulk"].obsm
    pd.testing.assert_frame_equal(again["measured_variance"], obsm["measured_variance"], check_names=False)


def test_reported_variance_matches_the_true_errors(make_inputs):
    """Types are drawn from the probabilities; counting the most probable types has a larger error."""
    donors = [f"D{i}" for i in range(80)]
    cells, bulk = make_inputs(cell_donors=donors, bulk_donors=donors, cells_per_donor=60)
    names, rng = list(cells.obs["cell_type"].cat.categories), np.random.default_rng(3)
    p = rng.dirichlet([0.6, 0.3, 0.2], cells.n_obs)
    codes = (rng.random((cells.n_obs, 1)) > p.cumsum(axis=1)[:, :-1]).sum(axis=1)
    cells.obs["cell_type"] = pd.Categorical.from_codes(p.argmax(axis=1), names)
    cells.obsm["p"] = pd.DataFrame(p, cells.obs_names, names)
    soft_bulk, hard_bulk = pp.pair(cells, bulk, probabilities_key="p")["bulk"], pp.pair(cells, bulk)["bulk"]
    true = pd.DataFrame(np.eye(3)[codes], columns=names).groupby(cells.obs["donor"].to_numpy()).mean().loc[donors]
    errors = [found.obsm["measured_fractions"].to_numpy() - true.to_numpy() for found in (soft_bulk, hard_bulk)]
    assert (errors[0] ** 2).mean() < 0.75 * (errors[1] ** 2).mean()
    ratio = (errors[0] ** 2).mean(axis=0) / soft_bulk.obsm["measured_variance"].mean()
    np.testing.assert_allclose(ratio, 1, atol=4 * (2 / len(donors)) ** 0.5)


def test_clusters_give_the_pairs_of_true_types(cohort):
    """A type split into two clusters with ambiguous cells has probability one after naming."""
    cells, bulk = cohort[0].copy(), cohort[1]
    expected = pp.pair(cells, bulk)["bulk"].obsm
    codes, rng = cells.obs["cell_type"].cat.codes.to_numpy(), np.random.default_rng(0)
    p = np.eye(5)[codes]
    p[codes == 0, 0] = rng.random((codes == 0).sum())
    p[codes == 0, 4] = 1 - p[codes == 0, 0]
    order = [3, 1, 4, 0, 2]
    cells.obs["desc"] = pd.Categorical.from_codes(p[:, order].argmax(axis=1), list("01234"))
    cells.obsm["desc_probabilities"] = pd.DataFrame(p[:, order], cells.obs_names, list("01234"))
    tl.name_clusters(cells, reference=cohort[0], key_added="name")
    mdata = pp.pair(cells, bulk, cell_type_key="name", probabilities_key="name_probabilities")
    found = mdata["bulk"].obsm
    pd.testing.assert_frame_equal(found["measured_fractions"], expected["measured_fractions"])
    pd.testing.assert_frame_equal(found["measured_cells"], expected["measured_cells"])
    np.testing.assert_allclose(found["measured_variance"].dropna(), 0, atol=1e-15)


def problems_of(*args, **kwargs):
    with pytest.raises(ValueError, match="The inputs cannot be paired") as caught:
        pp.pair(*args, **kwargs)
    return re.split(r"\n  \d+\. ", str(caught.value))[1:]


def test_missing_key_error_lists_the_available_keys(soft_inputs):
    (problem,) = problems_of(*soft_inputs, probabilities_key="q")
    assert problem == (
        "Expected cell-type probabilities in cells.obsm['q'], found keys ['p']. Name the key with probabilities_key=."
    )


def test_columns_must_be_the_cell_types(soft_inputs):
    cells, bulk = soft_inputs
    tables = {
        "'B cell', 'NK cell', 'x'": cells.obsm["p"][["B cell", "NK cell", "T cell"]].rename(columns={"T cell": "x"}),
        "'B cell', 'T cell'": one_hot(cells)[["B cell", "T cell"]].assign(**{"B cell": 0.5, "T cell": 0.5}),
        "'T cell', 'NK cell', 'B cell', 'x'": cells.obsm["p"].assign(x=0.0),
        "'B cell', 'B cell', 'T cell', 'NK cell'": one_hot(cells)[["B cell", "B cell", "T cell", "NK cell"]],
    }
    for found, table in tables.items():
        cells.obsm["p"] = table
        problems = problems_of(cells, bulk, probabilities_key="p")
        expected = "Expected the cell types 'B cell', 'NK cell', 'T cell' as the columns of cells.obsm['p'], "
        assert f"{expected}found {found}." in problems[-1]


def test_probability_problems_are_in_the_common_report(soft_inputs):
    cells, bulk = soft_inputs
    table = cells.obsm["p"].copy()
    table.iloc[0, 1] = np.nan
    table.iloc[1] *= 1.5
    table.iloc[2] = [-0.5, 1.0, 0.5]
    cells.obsm["p"] = table.rename(columns={"T cell": "x"})
    bulk.obsm["measured_fractions"] = np.ones((6, 3))
    found = problems_of(cells, bulk, probabilities_key="p")
    assert [text.split(" (")[0].split(": ")[0] for text in found] == [
        "Expected a DataFrame of samples × cell types in bulk.obsm['measured_fractions'], found ndarray. "
        "Convert it to a DataFrame with cell-type names as columns.",
        "Expected probabilities of every cell in cells.obsm['p'], found 1 cells with NaN",
        "Expected non-negative fractions in cells.obsm['p'], found 1 rows with negative values",
        "Expected rows of cells.obsm['p'] to sum to 1, found 1 rows with sums from 1.5 to 1.5",
        "Expected the cell types 'B cell', 'NK cell', 'T cell' as the columns of cells.obsm['p'], found 'x', 'NK cell', "
        "'B cell'. Set the cell types to the most probable types, or rename both with tl.name_clusters.",
    ]
    assert "'cell0'. Remove these cells." in found[1]


def test_arrays_are_refused(soft_inputs):
    cells, bulk = soft_inputs
    cells.obsm["p"] = cells.obsm["p"].to_numpy()
    assert "cell types in cells.obsm['p'], found ndarray" in problems_of(cells, bulk, probabilities_key="p")[0]


def test_probabilities_need_cells(reference_inputs):
    (problem,) = problems_of(**reference_inputs, probabilities_key="p")
    assert (
        problem
        == "Expected cells together with probabilities_key='p', found none. Pass cells or omit probabilities_key."
    )
