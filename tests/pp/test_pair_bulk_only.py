"""Bulk with measured fractions and nothing else, and fractions with an unmeasured rest."""

from __future__ import annotations

import numpy as np
import pytest

from scdeconv import datasets, pp, tl
from scdeconv.models import load_class, records

QUICK = {"simplednn": {"max_epochs": 2}}
WITHOUT_REFERENCE = [key for key, record in records().items() if set(record.needs) == {"pairs"}]
OTHERS = sorted(set(records()) - set(WITHOUT_REFERENCE))


@pytest.fixture(scope="module")
def paired():
    return pp.pair(*datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100)))


@pytest.fixture
def bulk(paired):
    return paired["bulk"][paired["bulk"].obsm["measured_fractions"].notna().all(axis=1).to_numpy()].copy()


@pytest.fixture
def partial(bulk):
    """Bulk with an unmeasured rest of 7 to 33 %, and the rest."""
    rest = np.linspace(0.07, 0.33, bulk.n_obs)
    bulk.obsm["measured_fractions"] = bulk.obsm["measured_fractions"].mul(1 - rest, axis=0)
    return bulk, rest


def test_bulk_with_fractions_needs_no_reference(bulk, capsys):
    mdata = pp.pair(bulk=bulk)
    assert set(mdata.mod) == {"bulk"}
    assert "7 cell types, no reference" in capsys.readouterr().out
    assert list(tl.methods(mdata).index) == WITHOUT_REFERENCE == ["ensemble", "mean_composition", "ridge", "simplednn"]
    assert tl.default_method(mdata) == "ensemble"


@pytest.mark.parametrize("method", WITHOUT_REFERENCE)
def test_methods_without_reference_work_throughout(method, bulk):
    mdata, quick = pp.pair(bulk=bulk), QUICK.get(method, {})
    assert tl.train(mdata, method, **quick).predict(bulk).shape == (6, 7)
    assert tl.cross_validate(mdata, method, cv=3, **quick).notna().all(axis=None)
    table = tl.benchmark(mdata, {method: {"method": method, **quick}}, cv=3, seeds=[0])
    assert set(table["method"]) == {method, "mean_composition"}


ENTRIES = {
    "train": lambda mdata, key: tl.train(mdata, key),
    "benchmark": lambda mdata, key: tl.benchmark(mdata, ["ridge", key], cv=3),
    "cross_validate": lambda mdata, key: tl.cross_validate(mdata, key, cv=3),
    "tune": lambda mdata, key: tl.tune(mdata, key, {"n_genes": [20]}, n_trials=1, cv=2),
    "class": lambda mdata, key: load_class(key).setup_mudata(mdata),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("method", OTHERS)
def test_other_methods_say_what_they_need(method, entry, bulk):
    with pytest.raises(
        ValueError, match=rf"Expected .* for method '{method}', found no cells and no profiles.*'ridge'"
    ):
        ENTRIES[entry](pp.pair(bulk=bulk), method)


@pytest.mark.parametrize("step", [pp.calibrate, pp.simulate, pp.signature])
def test_steps_that_need_a_reference_refuse(step, bulk):
    with pytest.raises(ValueError, match=rf"Expected a reference for pp\.{step.__name__}, found no cells"):
        step(pp.pair(bulk=bulk))


def test_genes_are_selected_again_in_folds(bulk):
    mdata = pp.pair(bulk=bulk)
    pp.select_genes(mdata, 30)
    train, _ = pp.hold_out(mdata, pp.paired_donors(mdata)[:3])
    alone = pp.pair(bulk=train["bulk"])
    pp.select_genes(alone, 30)
    assert mdata.uns["scdeconv"]["select_genes"]["criterion"] == "variance"
    assert (train["bulk"].var["selected"] == alone["bulk"].var["selected"]).all()


def test_bulk_without_fractions_is_refused(bulk):
    empty = bulk.copy()
    del empty.obsm["measured_fractions"]
    with pytest.raises(ValueError, match="Expected cells, profiles or measured fractions .*found none of them"):
        pp.pair(bulk=empty)
    bulk.obsm["measured_fractions"] *= np.nan
    with pytest.raises(ValueError, match="found rows of NaN only"):
        pp.pair(bulk=bulk)


def test_unmeasured_rest_is_kept(partial, capsys):
    bulk, rest = partial
    mdata = pp.pair(bulk=bulk)
    assert "7% to 33% of the cells unmeasured" in capsys.readouterr().out
    measured = mdata["bulk"].obsm["measured_fractions"]
    np.testing.assert_allclose(measured["Unmeasured"], rest)
    np.testing.assert_allclose(measured.sum(axis=1), 1)
    assert "Unmeasured" in tl.train(mdata, "ridge").predict(bulk)
    again = pp.pair(bulk=mdata["bulk"].copy())["bulk"].obsm["measured_fractions"]
    np.testing.assert_allclose(again, measured)


def test_rest_is_rescaled_by_argument(partial):
    measured = pp.pair(bulk=partial[0], rest="rescale")["bulk"].obsm["measured_fractions"]
    assert "Unmeasured" not in measured
    np.testing.assert_allclose(measured.sum(axis=1), 1)


@pytest.mark.parametrize("method", ["ridge", "simplednn", "calibrated_map"])
def test_reference_gives_shares_of_measured_types(method, partial, paired):
    bulk, quick = partial[0], QUICK.get(method, {})
    kept, rescaled = (pp.pair(bulk=bulk, profiles=paired["profiles"], rest=rest) for rest in ("keep", "rescale"))
    assert "Unmeasured" in kept["bulk"].obsm["measured_fractions"]
    first, second = (tl.train(mdata, method, **quick).predict(bulk) for mdata in (kept, rescaled))
    np.testing.assert_allclose(first[list(second)], second, atol=1e-5)
    tables = [tl.benchmark(mdata, {method: quick}, cv=3, seeds=[0]) for mdata in (kept, rescaled)]
    np.testing.assert_allclose(tables[0]["rmse"], tables[1]["rmse"], atol=1e-5)


def test_large_rest_is_warned_of(bulk):
    bulk.obsm["measured_fractions"] *= 0.3
    with pytest.warns(UserWarning, match="found a median rest of 70%"):
        pp.pair(bulk=bulk)


def test_reference_type_named_unmeasured_is_refused(bulk, paired):
    profiles = paired["profiles"].copy()
    profiles.obs["cell_type"] = ["Unmeasured", *profiles.obs["cell_type"].iloc[1:]]
    with pytest.raises(ValueError, match="found 'Unmeasured', the name of the part"):
        pp.pair(bulk=bulk, profiles=profiles)
