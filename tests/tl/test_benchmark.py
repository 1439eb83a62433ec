from __future__ import annotations

import os
import signal
import threading
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import metrics, pp, tl
from scdeconv._data.modalities import make_mudata, read_mudata, write_mudata
from scdeconv._nn import Plan
from scdeconv.models import NNLS, MeanComposition
from scdeconv.pp import _hold_out
from scdeconv.tl import _benchmark, _train
from scdeconv.tl._tuning import nested

QUICK = {"method": "residual_dnn", "max_epochs": 1, "hidden": (4,), "n_members": 2, "simulate": 20}
COLUMNS = [
    "method",
    "seed",
    "cell_type",
    "n",
    "rmse",
    "mae",
    "r2",
    "pearson",
    "ccc",
    "bias",
    "coverage",
    "width",
    "seconds",
]
SUMMARIES = ["all entries", "mean of types"]


def repeat_samples(pairs, *, identical=False):
    """The first paired donor's bulk twice more: the same counts, or counts of two more sequencings."""
    bulk = pairs["bulk"]
    first = int(np.flatnonzero(bulk.obsm["measured_fractions"].notna().all(axis=1))[0])
    rows = np.r_[np.arange(bulk.n_obs), first, first]
    counts = bulk.X[rows].copy()
    if not identical:
        counts[-2:] = np.random.default_rng(0).poisson(0.7 * counts[-2:])
    names = pd.Index([*bulk.obs_names, "again1", "again2"])
    more = AnnData(counts, obs=bulk.obs.iloc[rows].set_index(names), var=bulk.var)
    more.obsm["measured_fractions"] = bulk.obsm["measured_fractions"].iloc[rows].set_index(names)
    return make_mudata({**pairs.mod, "bulk": more})


@pytest.fixture
def folds(monkeypatch):
    """Training data and predicted samples of each fold."""
    seen = []
    hold_out = _benchmark.hold_out

    def spy(mdata, donors):
        training, held_out = hold_out(mdata, donors)
        seen.append((training, held_out))
        return training, held_out

    monkeypatch.setattr(_benchmark, "hold_out", spy)
    return seen


@pytest.fixture
def selections(monkeypatch):
    """The donors, of bulk and of cells, behind every selection of genes."""
    seen = []
    select_genes = _train.select_genes

    def spy(mdata, *args, **kwargs):
        seen.append((set(mdata["bulk"].obs["donor"]), set(mdata["sc"].obs["donor"])))
        return select_genes(mdata, *args, **kwargs)

    monkeypatch.setattr(_train, "select_genes", spy)
    monkeypatch.setitem(_hold_out.REDONE, "select_genes", spy)
    return seen


# the table


def test_table_is_tidy(pairs):
    table = tl.benchmark(pairs, {"quick": QUICK, "nnls": {}}, cv=2, seeds=[3, 4])
    assert list(table.columns) == COLUMNS
    cell_types = [*pairs["bulk"].obsm["measured_fractions"].columns, *SUMMARIES]
    expected = [("quick", 3), ("quick", 4), ("nnls", 3), ("mean_composition", 3)]
    assert list(table[["method", "seed", "cell_type"]].itertuples(index=False, name=None)) == [
        (*run, cell_type) for run in expected for cell_type in cell_types
    ]
    assert (table["seconds"] > 0).all()
    assert table[["n", "rmse", "mae", "bias", "coverage", "width", "seconds"]].notna().all(axis=None)


def test_table_equals_metrics_of_held_out_predictions(pairs):
    table = tl.benchmark(pairs, ["nnls"], cv=3).set_index(["method", "cell_type"])
    measured = pairs["bulk"].obsm["measured_fractions"].dropna()
    for method in ("nnls", "mean_composition"):
        expected = metrics.table(measured, tl.cross_validate(pairs, method, cv=3))
        pd.testing.assert_frame_equal(table.loc[method, expected.columns], expected, check_names=False)


@pytest.mark.parametrize(
    "methods", [["nnls"], ["mean_composition"], ["nnls", "mean_composition"], {"x": {"method": "nnls"}}]
)
def test_mean_composition_is_included_exactly_once(pairs, methods):
    table = tl.benchmark(pairs, methods, cv=2)
    assert (table["method"] == "mean_composition").sum() == len(table["cell_type"].unique())


def test_without_methods_the_default_is_compared(pairs):
    table = tl.benchmark(pairs, cv=2, seeds=[0])
    assert list(table["method"].unique()) == ["ensemble", "nnls", "mean_composition"]
    without_reference = pp.pair(bulk=pairs["bulk"])
    assert list(tl.benchmark(without_reference, cv=2, seeds=[0])["method"].unique()) == ["ensemble", "mean_composition"]


def test_methods_can_be_a_mapping_with_arguments(pairs, monkeypatch):
    seen = []
    fit_method = nested.fit_method
    monkeypatch.setattr(
        *(nested, "fit_method"), lambda mdata, name, arguments: (
            seen.append((name, arguments)), fit_method(mdata, name, arguments))[1]
    )  # fmt: skip
    methods = {"narrow": QUICK, "wide": {**QUICK, "hidden": (9,)}, "nnls": {}}
    table = tl.benchmark(pairs, methods, cv=2, seeds=[5])
    assert list(table["method"].unique()) == ["narrow", "wide", "nnls", "mean_composition"]
    assert [(name, arguments.get("hidden"), arguments.get("seed")) for name, arguments in seen[::2]] == [
        ("residual_dnn", (4,), 5),
        ("residual_dnn", (9,), 5),
        ("nnls", None, 5),
        ("mean_composition", None, 5),
    ]


def test_same_seed_gives_the_same_table(pairs):
    first, again = (tl.benchmark(pairs, {"quick": QUICK}, cv=3, seeds=[1, 2]).drop(columns="seconds") for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    quick = first[first["method"] == "quick"].set_index("cell_type")
    assert (quick.loc[quick["seed"] == 1, "rmse"] != quick.loc[quick["seed"] == 2, "rmse"]).any()


@pytest.mark.parametrize("prepared", [False, True])
def test_mdata_is_not_changed(pairs, prepared, unchanged):
    if prepared:
        pp.augment(pairs, n_aug=3)
        pp.select_genes(pairs, 50)
        pp.simulate(pairs, 20)
    with unchanged(pairs):
        tl.benchmark(pairs, {"quick": QUICK, "scaden": {"max_steps": 1}}, cv=2, seeds=[0])


# training data of a fold


@pytest.mark.parametrize("cv", ["leave-one-donor-out", 3, np.int64(4)])
def test_no_donor_is_in_training_and_test(pairs, folds, cv):
    mdata = repeat_samples(pairs)
    predicted = tl.cross_validate(mdata, "nnls", cv=cv)
    measured = mdata["bulk"].obsm["measured_fractions"].dropna()
    assert list(predicted.index) == list(measured.index)
    assert len(folds) == (10 if cv == "leave-one-donor-out" else cv)
    tested = []
    for training, held_out in folds:
        out = set(held_out.obs["donor"])
        tested += out
        for name in ("bulk", "sc", "pseudobulk"):
            assert out
            assert not out & set(training[name].obs["donor"])
    assert sorted(tested) == pp.paired_donors(mdata)


def test_all_samples_of_a_donor_are_held_out(pairs, folds):
    mdata = repeat_samples(pairs)
    tl.cross_validate(mdata, "mean_composition")
    assert sorted(held_out.n_obs for _, held_out in folds) == [1] * 9 + [3]


def test_fold_profiles_exclude_held_out_cells(pairs, folds):
    tl.cross_validate(pairs, "nnls", cv=2)
    for training, _ in folds:
        cells = training["sc"]
        for row, cell_type in enumerate(training["profiles"].obs_names):
            expected = np.asarray(cells.X[(cells.obs["cell_type"] == cell_type).to_numpy()].mean(axis=0)).ravel()
            np.testing.assert_allclose(training["profiles"].X[row], expected, rtol=1e-5)


@pytest.mark.parametrize("chosen_before", [False, True])
def test_fold_genes_are_selected_on_training_donors(pairs, selections, chosen_before):
    """Whether tl.train selects by default or the user called pp.select_genes before."""
    if chosen_before:
        pp.select_genes(pairs, 40, criterion="agreement")
    tl.cross_validate(pairs, "nnls")
    everybody = set(pairs["bulk"].obs["donor"])
    left_out = [everybody - bulk for bulk, _ in selections]
    assert sorted(donor for (donor,) in left_out) == pp.paired_donors(pairs)
    for (donor,), (_, of_cells) in zip(left_out, selections, strict=True):
        assert donor not in of_cells


def test_fold_selection_uses_the_given_arguments(pairs, folds):
    pp.select_genes(pairs, 40, criterion="variance")
    tl.cross_validate(pairs, "nnls", cv=2)
    masks = [training["bulk"].var["selected"].to_numpy() for training, _ in folds]
    assert [mask.sum() for mask in masks] == [40, 40]
    assert not np.array_equal(*masks)


def test_fold_bulk_is_simulated_from_training_donors(pairs, folds):
    pp.simulate(pairs, 33, cells_per_sample=20, seed=2)
    tl.cross_validate(pairs, "scaden", cv=2, max_steps=1)
    for training, held_out in folds:
        assert training["simulated"].n_obs == 33
        assert not set(training["simulated"].obs["donor"]) & set(held_out.obs["donor"])


def test_donors_with_bulk_only_are_never_tested(pairs, folds):
    tl.cross_validate(pairs, "mean_composition")
    without = set(pairs["bulk"].obs["donor"]) - set(pp.paired_donors(pairs))
    assert len(without) == 2
    for training, held_out in folds:
        assert not without & set(held_out.obs["donor"])
        assert without <= set(training["bulk"].obs["donor"])


# leakage


def test_row_split_with_leakage_must_be_requested(pairs):
    mdata = repeat_samples(pairs)
    with pytest.raises(
        ValueError, match=r"found 1 donors and 0 identical rows in more than one fold.*allow_leakage=True"
    ):
        tl.benchmark(mdata, ["nnls"], cv="rows")
    table = tl.benchmark(mdata, ["nnls"], cv="rows", allow_leakage=True)
    assert table.loc[table["cell_type"] == "B cell", "n"].tolist() == []
    assert set(table.loc[table["cell_type"] == "all entries", "n"]) == {12 * 4}


def test_row_split_without_repeated_donors_is_allowed(pairs, folds):
    tl.cross_validate(pairs, "mean_composition", cv="rows")
    assert len(folds) == 5
    for training, held_out in folds:
        assert not set(held_out.obs_names) & set(training["bulk"].obs_names)


def test_requested_row_split_divides_donors(pairs, folds):
    """A row split reproduces published protocols with leakage."""
    mdata = repeat_samples(pairs)
    donor_of = mdata["bulk"].obs["donor"]
    tl.cross_validate(mdata, "mean_composition", cv="rows", allow_leakage=True)
    shared = [
        set(donor_of[held_out.obs_names]) & set(donor_of[training["bulk"].obs_names]) for training, held_out in folds
    ]
    assert any(shared)
    assert sorted(name for _, held_out in folds for name in held_out.obs_names) == sorted(
        mdata["bulk"].obsm["measured_fractions"].dropna().index
    )


@pytest.mark.parametrize("cv", ["leave-one-donor-out", 5])
def test_bulk_rows_repeated_under_another_donor_are_refused(pairs, cv):
    mdata = repeat_samples(pairs, identical=True)
    mdata["bulk"].obs["donor"] = [*mdata["bulk"].obs["donor"][:-2], "alias1", "alias2"]
    with pytest.raises(ValueError, match=r"found 0 donors and 1 identical rows in more than one fold.*biased"):
        tl.cross_validate(mdata, "nnls", cv=cv)


def test_repeated_rows_of_a_donor_are_allowed(pairs):
    assert len(tl.cross_validate(repeat_samples(pairs, identical=True), "mean_composition")) == 12


# wrong arguments


@pytest.fixture
def no_computing(monkeypatch):
    monkeypatch.setattr(_benchmark, "hold_out", lambda *args: pytest.fail("computed before checking"))


@pytest.mark.usefixtures("no_computing")
@pytest.mark.parametrize(
    ("methods", "error", "message"),
    [
        (["nnls", "epic"], ValueError, r"Expected method to be one of \[.*'mean_composition', .*found 'epic'"),
        ({"nnls": {}, "x": {"method": "epic"}}, ValueError, "found 'epic'"),
        (
            {"nnls": {}, "wide": {"method": "residual_dnn", "hiden": 3}},
            TypeError,
            r"ResidualDNN: .*'hidden'.*found \['hiden'\]",
        ),
        ({"nnls": {"max_steps": 3}}, TypeError, r"Expected arguments of NNLS: \['held_out'\], found \['max_steps'\]"),
        (
            {"nnls": {}, "x": {"method": "residual_dnn", "seed": 1}},
            TypeError,
            "seeds of all runs in seeds=, found seed=1",
        ),
    ],
)
def test_unknown_methods_and_arguments_are_refused_early(pairs, methods, error, message):
    with pytest.raises(error, match=message):
        tl.benchmark(pairs, methods)


@pytest.mark.usefixtures("no_computing")
def test_cross_validate_refuses_unknown_arguments_early(pairs):
    with pytest.raises(TypeError, match=r"found \['hiden'\]"):
        tl.cross_validate(pairs, "residual_dnn", hiden=3)


@pytest.mark.usefixtures("no_computing")
@pytest.mark.parametrize("cv", [1, 0, 11, "kfold", 2.0, None])
def test_impossible_splits_are_refused_with_advice(pairs, cv):
    with pytest.raises((TypeError, ValueError), match=r"Expected cv .*'leave-one-donor-out', 'rows'.* 2"):
        tl.cross_validate(pairs, "nnls", cv=cv)


# Ctrl-C


def interrupt_while(monkeypatch, cls, *, after):
    """Send a real SIGINT when a model of this class is trained for the n-th time."""
    train, calls = cls.train, []

    def interrupting(self, *, held_out=True):
        calls.append(1)
        if len(calls) == after:
            os.kill(os.getpid(), signal.SIGINT)
        train(self, held_out=held_out)

    monkeypatch.setattr(cls, "train", interrupting)


def test_ctrl_c_returns_completed_runs(pairs, monkeypatch):
    interrupt_while(monkeypatch, MeanComposition, after=2)
    with pytest.warns(UserWarning, match="Interrupted: the table contains the completed runs"):
        table = tl.benchmark(pairs, ["nnls"], cv=3)
    assert list(table["method"].unique()) == ["nnls"]
    assert set(table.loc[table["cell_type"] == "all entries", "n"]) == {40}


def test_ctrl_c_before_any_run_is_complete_raises(pairs, monkeypatch):
    interrupt_while(monkeypatch, NNLS, after=2)
    with pytest.raises(KeyboardInterrupt):
        tl.benchmark(pairs, ["nnls"], cv=3)


def test_ctrl_c_during_training_ends_the_benchmark(pairs, monkeypatch, interrupt_after):
    handler = signal.getsignal(signal.SIGINT)
    on_fit_start = Plan.on_fit_start
    monkeypatch.setattr(Plan, "on_fit_start", lambda self: (interrupt_after(0.3), on_fit_start(self))[1])
    endless = {**QUICK, "max_epochs": 10**6, "patience": 10**6}
    with pytest.warns(UserWarning, match="Interrupted"):
        table = tl.benchmark(pairs, {"nnls": {}, "endless": endless}, cv=3)
    assert list(table["method"].unique()) == ["nnls"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_benchmark_prints_and_warns_nothing(pairs, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tl.benchmark(pairs, {"quick": QUICK, "scaden": {"max_steps": 1}, "nnls": {}}, cv=2, seeds=[0])
    assert capfd.readouterr() == ("", "")


def test_predictions_are_equal_after_reading_back(pairs, tmp_path):
    pp.augment(pairs, n_aug=3)
    pp.select_genes(pairs)
    pp.simulate(pairs, 20)
    write_mudata(pairs, tmp_path / "pairs.h5mu")
    read = read_mudata(tmp_path / "pairs.h5mu")
    for arguments in ({"method": "nnls"}, QUICK, {"method": "scaden", "max_steps": 1}):
        first, second = (tl.cross_validate(mdata, cv=2, **arguments) for mdata in (pairs, read))
        pd.testing.assert_frame_equal(first, second, check_names=False, rtol=1e-5)


def test_unknown_content_is_scored_against_zero(pairs):
    table = tl.benchmark(pairs, {"unknown": {"method": "dwls", "unknown": True}}, cv=2).set_index(
        ["method", "cell_type"]
    )
    assert table.loc[("unknown", "Unknown"), "n"] == table.loc[("mean_composition", "all entries"), "n"] / 4
    assert ("mean_composition", "Unknown") not in table.index


# several processes


@pytest.fixture
def with_tuning():
    return {"ridge": {}, "quick": QUICK, "tuned": {"method": "ridge", "tune": {"n_trials": 2, "cv": 3}}}


@pytest.mark.slow
def test_parallel_table_equals_the_serial_table(pairs, unchanged, with_tuning):
    serial = tl.benchmark(pairs, with_tuning, cv=2, seeds=[0, 1])
    with unchanged(pairs):
        parallel = tl.benchmark(pairs, with_tuning, cv=2, seeds=[0, 1], n_jobs=2)
    pd.testing.assert_frame_equal(serial.drop(columns="seconds"), parallel.drop(columns="seconds"))


@pytest.mark.slow
def test_dask_backend_gives_the_serial_table(pairs, with_tuning):
    distributed = pytest.importorskip("distributed", reason="Dask's cluster is optional: pip install distributed")
    serial = tl.benchmark(pairs, with_tuning, cv=2, seeds=[0])
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        parallel = tl.benchmark(pairs, with_tuning, cv=2, seeds=[0])
    pd.testing.assert_frame_equal(serial.drop(columns="seconds"), parallel.drop(columns="seconds"))


def test_joblib_backend_applies_unless_n_jobs_is_given(pairs, monkeypatch):
    processes = []
    run = _benchmark._run

    def spy(*args):
        processes.append(threading.get_ident())
        return run(*args)

    monkeypatch.setattr(_benchmark, "_run", spy)
    with joblib.parallel_config(backend="threading", n_jobs=2):
        configured = tl.benchmark(pairs, ["nnls"], cv=2)
        assert threading.get_ident() not in processes
        processes.clear()
        one = tl.benchmark(pairs, ["nnls"], cv=2, n_jobs=1)
    assert set(processes) == {threading.get_ident()}
    pd.testing.assert_frame_equal(configured.drop(columns="seconds"), one.drop(columns="seconds"))


@pytest.mark.slow
def test_ctrl_c_returns_completed_parallel_runs(pairs, interrupt_after):
    endless = {**QUICK, "max_epochs": 10**6, "patience": 10**6}
    tl.benchmark(pairs, ["nnls"], cv=2, n_jobs=2)
    interrupt_after(6)
    with pytest.warns(UserWarning, match="Interrupted: the table contains the completed runs"):
        table = tl.benchmark(pairs, {"nnls": {}, "endless": endless}, cv=2, n_jobs=2)
    assert list(table["method"].unique()) == ["nnls"]


def test_one_measured_type_cannot_be_scored(pairs):
    data = pairs.copy()
    data["bulk"].obsm["measured_fractions"].iloc[:, 1:] = np.nan
    with pytest.raises(ValueError, match="at least two measured cell types to score"):
        tl.benchmark(data, ["nnls"], seeds=(0,))
