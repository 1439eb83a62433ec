"""tl.predict with known fractions."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from scdeconv import datasets, pp, tl

METHODS = {
    "calibrated_map": {},
    "ridge": {},
    "ensemble": {},
    "nnls": {},
    "simplednn": {"max_epochs": 2, "hidden": (4,), "n_members": 2},
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*are outside the range of the training donors"),
    pytest.mark.filterwarnings("ignore:Expected an out-of-fold RMSE below"),
    pytest.mark.filterwarnings("ignore:Expected known fractions near the estimates"),
]


@pytest.fixture(scope="module")
def trained(cohort):
    mdata = pp.pair(*cohort)
    return {name: tl.train(mdata, name, **arguments) for name, arguments in METHODS.items()}


@pytest.fixture
def bulk(cohort):
    return cohort[1].copy()


@pytest.fixture
def known(bulk):
    """Known values of two types, some of each, in another order than the samples."""
    table = bulk.obsm["true_fractions"].iloc[:, [2, 0]].copy()
    table.iloc[1, 0] = table.iloc[2] = np.nan
    return table.iloc[::-1]


@pytest.mark.parametrize("name", METHODS)
def test_known_fractions_are_returned(trained, bulk, known, name):
    tl.predict(bulk, trained[name], known=known)
    found = bulk.obsm["fractions"]
    here = known.notna()
    pd.testing.assert_frame_equal(found.loc[known.index, known.columns].where(here), known)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    before = trained[name].predict(bulk)
    pd.testing.assert_series_equal(found.iloc[2], before.iloc[2])


@pytest.mark.parametrize("name", ["ridge", "nnls", "simplednn"])
def test_other_types_are_scaled_to_the_rest(trained, bulk, known, name):
    before = trained[name].predict(bulk)
    tl.predict(bulk, trained[name], known=known.iloc[:, :1])
    others = before.columns.drop(known.columns[0])
    first, second = (table[others].div(table[others].sum(axis=1), axis=0) for table in (before, bulk.obsm["fractions"]))
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.parametrize("name", ["calibrated_map", "ridge", "ensemble", "simplednn"])
def test_intervals_of_exact_values_have_no_width(trained, bulk, known, name):
    tl.predict(bulk, trained[name], known=known, coverage=0.8)
    lower, upper, found = (bulk.obsm[key] for key in ("fractions_lower", "fractions_upper", "fractions"))
    here = known.reindex_like(found).notna()
    for bound in (lower, upper):
        pd.testing.assert_frame_equal(bound.where(here), found.where(here))
    assert ((upper > lower) | here).all(axis=None)
    assert ((lower <= found + 1e-12) & (found <= upper + 1e-12)).all(axis=None)


def test_standard_errors_give_normal_intervals(trained, bulk):
    name = bulk.obsm["true_fractions"].columns[0]
    known = bulk.obsm["true_fractions"][[name]]
    model, se = trained["ridge"], known * 0 + 0.01
    before = model.predict(bulk)
    tl.predict(bulk, model, known=known, known_se=se, coverage=0.8)
    sigma = np.sqrt(((model.held_out_.predicted - model.held_out_.measured)[:, 0] ** 2).mean())
    weight = sigma**2 / (sigma**2 + 0.01**2)
    expected = before[name] + weight * (known[name] - before[name])
    pd.testing.assert_series_equal(bulk.obsm["fractions"][name], expected)
    half = 1.28155 * 0.01 * np.sqrt(weight)
    np.testing.assert_allclose(bulk.obsm["fractions_upper"][name], np.minimum(expected + half, 1), rtol=1e-4)


def test_known_levels_fix_the_sum(cohort):
    cells, bulk = cohort
    types = list(bulk.obsm["true_fractions"])
    model = tl.train(pp.pair(cells, bulk, hierarchy={"first two": types[:2]}))
    new = bulk.copy()
    total = new.obsm["true_fractions"][types[:2]].sum(axis=1)
    tl.predict(new, model, known=pd.DataFrame({"first two": total}), coverage=0.8)
    np.testing.assert_allclose(new.obsm["fractions"][types[:2]].sum(axis=1), total)
    for key in ("fractions_by_level", "fractions_by_level_lower", "fractions_by_level_upper"):
        np.testing.assert_allclose(new.obsm[key]["first two"], total)
    assert (new.obsm["fractions_upper"] > new.obsm["fractions_lower"]).all(axis=None)


def test_record_has_the_known_fractions(trained, bulk, known, tmp_path):
    tl.predict(bulk, trained["ridge"], known=known, known_se=known * 0 + 0.1)
    bulk.write_h5ad(tmp_path / "bulk.h5ad")
    record = anndata.read_h5ad(tmp_path / "bulk.h5ad").uns["scdeconv"]["fractions"]
    pd.testing.assert_frame_equal(record["known"], known)
    assert list(record["known_se"]) == list(known)
    tl.predict(bulk, trained["ridge"])
    assert "known" not in bulk.uns["scdeconv"]["fractions"]


def test_all_problems_are_reported_together(trained, bulk, known, unchanged):
    types = list(known)
    wrong = known.rename(index={known.index[0]: "stranger"}, columns={types[0]: types[0].lower()})
    with unchanged(bulk, wrong), pytest.raises(ValueError, match="2 problems") as error:
        tl.predict(bulk, trained["nnls"], known=wrong, key_added="mine")
    assert "'stranger'" in str(error.value)
    assert f"{types[0].lower()} = {types[0]}" in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda known: known * 100, "Divide percent by 100"),
        (lambda known: -known, "from 0 to 1 in known"),
        (lambda known: known * 0 + 0.6, "at most 1, found sums up to 1.2"),
        (lambda known: pd.concat([known, known.iloc[:1]]), "samples once in known"),
        (lambda known: known.iloc[:, [0, 0]], "cell types once in known"),
        (lambda known: known.astype(str), "Expected numbers in known"),
        (lambda known: known * np.nan, "found NaN only"),
        (lambda known: known * 0 + np.inf, "from 0 to 1 in known"),
    ],
)
def test_bad_tables_are_refused(trained, bulk, known, change, message):
    with pytest.raises(ValueError, match=message):
        tl.predict(bulk, trained["nnls"], known=change(known))
    assert "fractions" not in bulk.obsm


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda se: -se - 0.1, "standard errors from 0 to 1 in known_se"),
        (lambda se: se.rename(columns={se.columns[0]: "x"}), "columns of known"),
        (lambda se: se.rename(index={se.index[0]: "x"}), "samples of known"),
    ],
)
def test_bad_standard_errors_are_refused(trained, bulk, known, change, message):
    with pytest.raises(ValueError, match=message):
        tl.predict(bulk, trained["nnls"], known=known, known_se=change(known * 0 + 0.1))


def test_standard_errors_alone_are_refused(trained, bulk, known):
    with pytest.raises(ValueError, match="known together with known_se"):
        tl.predict(bulk, trained["nnls"], known_se=known)


def test_other_classes_than_tables_are_refused(trained, bulk):
    with pytest.raises(TypeError, match="Pass a DataFrame"):
        tl.predict(bulk, trained["nnls"], known={"B": 0.5})


def test_incomplete_sum_of_all_types_is_refused(trained, bulk):
    with pytest.raises(ValueError, match="all cell types to sum to 1"):
        tl.predict(bulk, trained["nnls"], known=bulk.obsm["true_fractions"] / 2)


def test_level_and_its_type_are_refused(cohort):
    cells, bulk = cohort
    types = list(bulk.obsm["true_fractions"])
    model = tl.train(pp.pair(cells, bulk, hierarchy={"both": types[:2]}), "nnls")
    with pytest.raises(ValueError, match=f"both share {types[0]}"):
        tl.predict(bulk.copy(), model, known=bulk.obsm["true_fractions"][types[:1]].assign(both=0.9))


@pytest.mark.filterwarnings("default:Expected known fractions near the estimates")
def test_exchanged_samples_are_reported(trained, bulk):
    wrong = bulk.obsm["true_fractions"].iloc[:2, :1] * 0 + 0.99
    with pytest.warns(UserWarning, match="more than 4 standard deviations in 2 samples"):
        tl.predict(bulk, trained["ridge"], known=wrong)


def test_rna_fractions_are_reported(pairs, bulk, known):
    with pytest.warns(UserWarning, match="which estimates RNA fractions"):
        tl.predict(bulk, tl.train(pairs, "cibersort"), known=known)


def test_evaluation_warns_of_known_types(trained, bulk, known):
    tl.predict(bulk, trained["nnls"], known=known)
    with pytest.warns(UserWarning, match="passed to tl.predict as known"):
        tl.evaluate(bulk, measured_key="true_fractions")


def test_merged_types_keep_known_intervals(trained, bulk, known):
    tl.predict(bulk, trained["ridge"], known=known, coverage=0.8)
    types = list(bulk.obsm["fractions"])
    merged = tl.merge_types(bulk, {"sum": types[:2]}, model=trained["ridge"])
    np.testing.assert_allclose(merged.obsm["fractions"]["sum"], bulk.obsm["fractions"][types[:2]].sum(axis=1))
    assert (merged.obsm["fractions_upper"]["sum"] >= merged.obsm["fractions"]["sum"] - 1e-9).all()


@pytest.mark.parametrize("method", ["calibrated_map", "ridge"])
def test_other_types_of_new_donors_get_better(method):
    cells, bulk = datasets.paired_cohort(
        n_donors=20, n_bulk_only=40, n_reference_only=0, n_genes=300, n_cell_types=4, cells_per_donor=(400, 500), seed=3
    )
    model = tl.train(pp.pair(cells, bulk), method)
    new = bulk[~bulk.obs["donor"].isin(cells.obs["donor"])].copy()
    true = new.obsm["true_fractions"]
    given = true.mean().idxmax()
    errors, widths, inside = {}, {}, {}
    for known in (None, true[[given]]):
        tl.predict(new, model, known=known, coverage=0.8)
        found = new.obsm["fractions"]
        others = true.columns.drop(given)
        errors[known is None] = float(((found - true)[others] ** 2).mean(axis=None))
        lower, upper = (new.obsm[f"fractions_{side}"][others] for side in ("lower", "upper"))
        widths[known is None] = (upper - lower).mean(axis=None)
        inside[known is None] = ((lower <= true[others]) & (true[others] <= upper)).mean(axis=None)
    assert errors[False] < 0.8 * errors[True]
    assert widths[False] < widths[True]
    assert inside[False] > 0.7
