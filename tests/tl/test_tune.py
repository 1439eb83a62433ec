from __future__ import annotations

import os
import resource
import signal
import sqlite3
import warnings

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from scdeconv import metrics, pp, tl
from scdeconv._data.modalities import read_mudata, write_mudata
from scdeconv.tl import _benchmark, _folds
from scdeconv.tl._tuning import run, search
from scdeconv.tl._tuning.space import Space, default_arguments, default_space, methods_with_space

PENALTY = {"penalty": FloatDistribution(1e-6, 1e2, log=True)}
QUICK = {"max_epochs": 1, "n_members": 2, "simulate": 20}


@pytest.fixture
def calls(monkeypatch):
    """Replace training by a known error, lowest (0.01) at a penalty of 0.1; each fold has a level of its own."""
    seen = []

    def error(training, held_out, method, arguments):
        penalty = arguments.get("penalty")
        seen.append((tuple(held_out.obs_names), penalty))
        level = 0.001 * len(set(held_out.obs_names) & {"donor_1", "donor_2"})
        return 0.01 + level + (0.2 if penalty is None else 0.01 * (np.log10(penalty) + 1) ** 2)

    monkeypatch.setattr(run, "fold_error", error)
    return seen


def stop_at(monkeypatch, n, act):
    """Call a function in place of the n-th fold."""
    fold_error, seen = run.fold_error, []

    def stopping(*args):
        seen.append(1)
        return act() if len(seen) == n else fold_error(*args)

    monkeypatch.setattr(run, "fold_error", stopping)


def same_trials(first, second):
    pd.testing.assert_frame_equal(first.trials.drop(columns="seconds"), second.trials.drop(columns="seconds"))


# what is searched, and by what


def test_trial_rmse_equals_manual_cross_validation(pairs):
    tuning = tl.tune(pairs, "residual_dnn", {"hidden": [(4,), (6, 3)], "n_genes": [60, 120]}, n_trials=3, cv=3, **QUICK)
    donors = np.random.default_rng(0).permutation(pp.paired_donors(pairs))
    complete = tuning.trials[tuning.trials["state"] == "complete"]
    assert len(complete) > 1
    for _, trial in complete.iterrows():
        errors = []
        for fold in range(3):
            training, held_out = pp.hold_out(pairs, donors[fold::3])
            if trial["n_genes"] is not None:
                pp.select_genes(training, trial["n_genes"])
            model = tl.train(training, "residual_dnn", hidden=trial["hidden"], **QUICK)
            errors.append(metrics.rmse(held_out.obsm["measured_fractions"], model.predict(held_out)))
        assert trial["rmse"] == pytest.approx(np.mean(errors), rel=1e-12)


def test_baseline_is_the_cross_validated_mean_composition(pairs):
    tuning = tl.tune(pairs, "ridge", {"n_genes": [50]}, n_trials=1, cv=3)
    donors = np.random.default_rng(0).permutation(pp.paired_donors(pairs))
    measured = pairs["bulk"].obsm["measured_fractions"].dropna()
    of_sample = pairs["bulk"].obs["donor"][measured.index]
    errors = []
    for fold in range(3):
        out = of_sample.isin(donors[fold::3])
        errors.append(np.sqrt(((measured[out] - measured[~out].mean()) ** 2).to_numpy().mean()))
    assert tuning.baseline == pytest.approx(np.mean(errors))


def test_search_finds_a_known_optimum(pairs, calls):
    tuning = tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=40, cv=2)
    assert abs(np.log10(tuning.best_params["penalty"]) + 1) < 0.2
    penalties = np.log10(tuning.trials["penalty"])
    assert (penalties[20:] + 1).abs().median() < (penalties[1:11] + 1).abs().median()


@pytest.mark.parametrize(
    ("method", "fixed"),
    [("ridge", {}), ("nonnegative_ridge", {}), ("residual_dnn", QUICK), ("scaden", {"max_steps": 2, "n_samples": 40})],
)
def test_first_trial_uses_the_default_arguments(pairs, method, fixed):
    tuning = tl.tune(pairs, method, n_trials=2, cv=2, **fixed)
    donors = np.random.default_rng(0).permutation(pp.paired_donors(pairs))
    errors = []
    for fold in range(2):
        training, held_out = pp.hold_out(pairs, donors[fold::2])
        predicted = tl.train(training, method, **fixed).predict(held_out)
        errors.append(metrics.rmse(held_out.obsm["measured_fractions"], predicted))
    assert tuning.trials["rmse"][0] == pytest.approx(np.mean(errors), rel=1e-12)
    assert tuning.trials["rmse"].min() <= tuning.trials["rmse"][0]


def test_best_params_reproduce_the_tuned_model(pairs):
    pp.select_genes(pairs, 40, criterion="variance")
    tuning = tl.tune(pairs, "residual_dnn", n_trials=3, cv=2, **QUICK)
    again = tl.train(pairs, tuning.method, **tuning.best_params)
    pd.testing.assert_frame_equal(again.predict(pairs["bulk"]), tuning.model.predict(pairs["bulk"]))
    assert QUICK.items() <= tuning.best_params.items()


def test_pruned_trials_are_never_chosen(pairs, monkeypatch):
    # the later a trial, the better its first two folds and the worse its others; the second one is the best
    order = []

    def error(training, held_out, method, arguments):
        key = arguments["penalty"]
        order.append(key) if key not in order else None
        trial, fold = order.index(key), sum(k == key for k in computed)
        computed.append(key)
        return {0: 0.5, 1: 0.1}.get(trial, 0.9 if trial > 8 else 0.4 - 0.01 * trial) + 0.001 * fold

    computed = []
    monkeypatch.setattr(run, "fold_error", error)
    tuning = tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=12, cv=5)
    assert list(tuning.trials["state"][9:]) == ["pruned"] * 3
    assert tuning.trials["rmse"][9:].isna().all()
    assert {sum(k == key for k in computed) for key in order[9:]} == {2}
    assert tuning.best_params["penalty"] == order[1]
    assert repr(tuning).startswith("Tuning of nonnegative_ridge: 12 trials, 3 pruned; RMSE on held-out donors 0.10")


def test_search_depends_on_the_seed_only(pairs, calls):
    first, again, other = (tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=14, seed=s) for s in (3, 3, 4))
    same_trials(first, again)
    assert not first.trials["penalty"][1:].isin(other.trials["penalty"]).any()


@pytest.mark.parametrize("method", sorted(methods_with_space()))
def test_default_spaces_exclude_fixed_arguments(pairs, method):
    defaults = default_arguments(pairs, method)
    given = default_space(pairs, method, {"n_genes": 50})
    assert "n_genes" not in given
    space = Space(default_space(pairs, method, {}), defaults)
    outside = set(space.distributions) - set(space.first())
    # a penalty that is chosen for each sample, and Scaden's own steps before training
    allowed = {"nonnegative_ridge": {"penalty"}, "scaden": {"n_samples", "cells_per_sample", "sparse_share", "n_genes"}}
    assert outside == allowed.get(method, set())
    assert space.arguments(space.first()) == {name: defaults[name] for name in space.distributions}


def test_augmentation_is_searched_only_with_counted_cells(pairs):
    assert "aug_ratio" in default_space(pairs, "residual_dnn", {})
    del pairs["bulk"].obsm["measured_cells"]
    assert "aug_ratio" not in default_space(pairs, "residual_dnn", {})


def test_preprocessing_is_repeated_with_training_arguments(pairs):
    arguments = {"n_samples": 30, "cells_per_sample": 20, "max_steps": 2, "n_genes": 50}
    pp.simulate(pairs, 10, sparse_share=0.1, seed=7)
    pp.select_genes(pairs, 99, criterion="variance")
    model = tl.train(pairs, "scaden", **arguments)
    pp.simulate(pairs, 30, cells_per_sample=20, sparse_share=0.1, seed=7)
    pp.select_genes(pairs, 50, criterion="variance")
    by_hand = tl.train(pairs, "scaden", max_steps=2)
    pd.testing.assert_frame_equal(model.predict(pairs["bulk"]), by_hand.predict(pairs["bulk"]))


# what the tuning may know


def donors_of(mdata):
    return {donor for adata in mdata.mod.values() if "donor" in adata.obs for donor in adata.obs["donor"]}


def test_tuning_excludes_donors_of_the_outer_fold(pairs, monkeypatch):
    pp.simulate(pairs, 20)
    outer, fits = [], []
    hold_out, fit_method = _benchmark.hold_out, _folds.fit_method

    def split(mdata, donors):
        outer.append(set(donors))
        return hold_out(mdata, donors)

    def fit(mdata, name, arguments):
        fits.append((len(outer), name))
        assert not donors_of(mdata) & outer[-1]
        return fit_method(mdata, name, arguments)

    monkeypatch.setattr(_benchmark, "hold_out", split)
    monkeypatch.setattr(_folds, "fit_method", fit)
    monkeypatch.setattr(search, "fit_method", fit)
    tl.cross_validate(pairs, "ridge", cv=3, tune={"n_trials": 2, "cv": 2})
    # in each outer fold: the baseline and two trials in two inner folds, and the refit
    assert [fold for fold, _ in fits] == [1] * 7 + [2] * 7 + [3] * 7
    assert [name for _, name in fits[:7]] == ["mean_composition"] * 2 + ["ridge"] * 5


def test_own_measurement_does_not_change_a_prediction(pairs):
    first = tl.cross_validate(pairs, "ridge", cv=3, tune={"n_trials": 3, "cv": 3})
    donor = pp.paired_donors(pairs)[0]
    mine = (pairs["bulk"].obs["donor"] == donor).to_numpy()
    pairs["bulk"].obsm["measured_fractions"].loc[mine] = [[0.97, 0.01, 0.01, 0.01]]
    changed = tl.cross_validate(pairs, "ridge", cv=3, tune={"n_trials": 3, "cv": 3})
    samples = pairs["bulk"].obs_names[mine]
    pd.testing.assert_frame_equal(first.loc[samples], changed.loc[samples])
    assert not np.allclose(first, changed)


def test_benchmark_compares_tuned_methods_with_their_defaults(pairs):
    methods = {"ridge": {}, "tuned": {"method": "ridge", "tune": {"n_trials": 2, "cv": 5}}}
    table = tl.benchmark(pairs, methods, cv=2, seeds=[0, 1])
    runs = table[["method", "seed"]].drop_duplicates().itertuples(index=False, name=None)
    assert list(runs) == [("ridge", 0), ("tuned", 0), ("tuned", 1), ("mean_composition", 0)]


def test_study_file_is_refused_for_nested_tuning(pairs):
    with pytest.raises(TypeError, match=r"arguments of tl.tune in tune=: \['cv', .*\], found \['study'\]"):
        tl.benchmark(pairs, {"tuned": {"method": "ridge", "tune": {"study": "a.sqlite"}}})


# the study


def test_resumed_study_equals_an_uninterrupted_one(pairs, calls, tmp_path):
    path = tmp_path / "study.sqlite"
    whole = tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=12, cv=2)
    for n_trials in (4, 4, 12):
        before = len(calls)
        part = tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=n_trials, cv=2, study=path)
    assert len(calls) > before
    same_trials(whole, part)
    before = len(calls)
    same_trials(whole, tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=12, cv=2, study=path))
    assert len(calls) == before


@pytest.mark.parametrize("fold", [1, 2, 24])
def test_killed_study_can_be_resumed(pairs, calls, tmp_path, monkeypatch, fold):
    path = tmp_path / "study.sqlite"
    child = os.fork()
    if child == 0:
        stop_at(monkeypatch, fold, lambda: os.kill(os.getpid(), signal.SIGKILL))
        tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=12, cv=3, study=path)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with sqlite3.connect(path) as connection:
        states = [state for (state,) in connection.execute("SELECT state FROM trials")]
    assert states.count("RUNNING") == 1
    assert not calls

    resumed = tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=12, cv=3, study=path)
    recomputed = len(calls)
    whole = tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=12, cv=3)
    same_trials(whole, resumed)
    finished = states.count("COMPLETE") + states.count("PRUNED")
    assert (recomputed < len(calls) - recomputed) == (finished > 0)


def test_tuples_and_none_survive_the_study_file(pairs, tmp_path):
    space = {"dropout": [0.1, (0.2,)], "aug_ratio": [None, 0.5]}
    arguments = {"n_trials": 2, "cv": 2, "study": tmp_path / "study.sqlite", "hidden": (4,), **QUICK}
    first, again = (tl.tune(pairs, "residual_dnn", space, **arguments) for _ in range(2))
    same_trials(first, again)
    assert first.best_params == again.best_params
    assert set(again.trials["dropout"]) <= {0.1, (0.2,)}
    assert again.trials["aug_ratio"][0] is None


def test_study_with_other_settings_is_refused(pairs, calls, tmp_path):
    path = tmp_path / "study.sqlite"
    tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=2, study=path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match="of another search: 4 problems found") as error:
        tl.tune(pairs, "ridge", {"n_genes": [50]}, n_trials=2, cv=3, seed=1, study=path)
    for text in ("Expected method 'ridge' as in this call, found 'nonnegative_ridge' in the file", "cv '3'", "seed 1"):
        assert text in str(error.value)
    pairs["bulk"].obsm["measured_fractions"].iloc[0] = [0.7, 0.1, 0.1, 0.1]
    with pytest.raises(ValueError, match="1 problem found.*\n.*Expected data"):
        tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=2, study=path)
    assert path.read_bytes() == content


def test_study_accepts_data_read_back(pairs, calls, tmp_path):
    pp.select_genes(pairs, 50)
    tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=2, study=tmp_path / "study.sqlite")
    write_mudata(pairs, tmp_path / "pairs.h5mu")
    read = read_mudata(tmp_path / "pairs.h5mu")
    assert len(tl.tune(read, "nonnegative_ridge", PENALTY, n_trials=3, study=tmp_path / "study.sqlite").trials) == 3


@pytest.mark.parametrize("damage", ["truncated", "text", "other database"])
def test_damaged_study_is_refused_unchanged(pairs, calls, tmp_path, damage):
    path = tmp_path / "study.sqlite"
    if damage == "truncated":
        tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=2, study=path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "text":
        path.write_text("not a study\n" * 100)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE other (x)")
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"Expected an intact study of tl.tune in .*The file was not changed. Restore"):
        tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=3, study=path)
    assert path.read_bytes() == content


def test_full_disk_keeps_finished_trials(pairs, calls, tmp_path):
    path = tmp_path / "study.sqlite"
    tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=1, cv=2, study=path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, limits[1]))
    try:
        with pytest.raises(
            OSError, match=r"Expected to write to the study .*The file keeps the \d+ completed trials"
        ) as error:
            tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=200, cv=2, study=path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with sqlite3.connect(path) as connection:
        query = "SELECT COUNT(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')"
        (kept,) = connection.execute(query).fetchone()
    assert f"keeps the {kept} completed trials" in str(error.value)
    whole = tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=kept + 2, cv=2)
    same_trials(whole, tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=kept + 2, cv=2, study=path))


# Ctrl-C and errors


def test_ctrl_c_returns_the_best_finished_trial(pairs, calls, monkeypatch, tmp_path):
    whole = tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=6, cv=2)
    with monkeypatch.context() as patch:
        stop_at(patch, 6, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.warns(UserWarning, match="Interrupted: the result is the best of 2 trials"):
            part = tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=6, cv=2, study=tmp_path / "s.sqlite")
    assert part.interrupted
    pd.testing.assert_frame_equal(*(t.trials[:2].drop(columns="seconds") for t in (whole, part)))
    assert part.best_params["penalty"] == whole.trials["penalty"][whole.trials["rmse"][:2].argmin()]
    assert part.model.is_trained_
    same_trials(whole, tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=6, cv=2, study=tmp_path / "s.sqlite"))


def test_ctrl_c_before_a_trial_is_complete_raises(pairs, calls, monkeypatch):
    stop_at(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        tl.tune(pairs, "nonnegative_ridge", PENALTY, n_trials=6, cv=2)


def test_ctrl_c_ends_nested_cross_validation(pairs, calls, monkeypatch):
    stop_at(monkeypatch, 4, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.warns(UserWarning, match="Interrupted"), pytest.raises(KeyboardInterrupt):
        tl.cross_validate(pairs, "nonnegative_ridge", cv=2, tune={"n_trials": 3, "cv": 2})


def test_ctrl_c_during_training_ends_tuning(pairs, interrupt_after, monkeypatch):
    fold_error, n_folds = run.fold_error, []

    def then_endless(training, held_out, method, arguments):
        n_folds.append(1)
        if len(n_folds) > 2:
            interrupt_after(0.3)
            arguments = {**arguments, "max_epochs": 10**6, "patience": 10**6}
        return fold_error(training, held_out, method, arguments)

    monkeypatch.setattr(run, "fold_error", then_endless)
    with pytest.warns(UserWarning, match="best of 1 trials"):
        tuning = tl.tune(pairs, "residual_dnn", {"hidden": [(4,), (5,)]}, n_trials=3, cv=2, **QUICK)
    assert len(tuning.trials) == 1


def test_trial_error_names_its_arguments(pairs, tmp_path):
    space, arguments = {"penalty": FloatDistribution(-1.0, 1.0)}, {"cv": 2, "study": tmp_path / "study.sqlite"}
    with pytest.raises(ValueError, match="Expected penalty to be a number of at least 0") as error:
        tl.tune(pairs, "nonnegative_ridge", space, n_trials=50, **arguments)
    (note,) = error.value.__notes__
    assert "in trial " in note
    assert "'penalty': -" in note
    for _ in range(20):
        try:
            tuning = tl.tune(pairs, "nonnegative_ridge", space, n_trials=3, **arguments)
            break
        except ValueError:
            pass
    assert len(tuning.trials) == 3
    assert (tuning.trials["penalty"][1:] >= 0).all()


def test_diverged_trial_counts_as_the_worst(pairs, monkeypatch):
    predict_unseen = _folds.predict_unseen

    def diverging(model, training, held_out):
        predicted = predict_unseen(model, training, held_out)
        return predicted * np.nan if len(model.genes_) == 60 else predicted

    monkeypatch.setattr(_folds, "predict_unseen", diverging)
    tuning = tl.tune(pairs, "ridge", {"n_genes": [60, 90]}, n_trials=4, cv=2)
    assert tuning.best_params["n_genes"] != 60
    assert np.isinf(tuning.trials.loc[tuning.trials["n_genes"] == 60, "rmse"].dropna()).all()


# wrong arguments


def test_all_problems_are_reported_before_computing(pairs, monkeypatch, tmp_path):
    for module in (search, _folds):
        monkeypatch.setattr(module, "fit_method", lambda *args: pytest.fail("computed before checking"))
    space = {"hiden": [(4,)], "dropout": 0.3, "loss": [], "n_members": [{1}], "learning_rate": [1e-3]}
    with pytest.raises(ValueError, match="tl.tune: 5 problems found") as error:
        tl.tune(pairs, "residual_dnn", space, learning_rate=0.1)
    for text in (
        "found ['hiden']",
        "found both for ['learning_rate']",
        "a list of choices or an optuna distribution for 'dropout' in search_space, found 0.3",
        "for 'loss' in search_space, found []",
        "tuples of them for 'n_members'",
    ):
        assert text in str(error.value)
    with pytest.raises(
        ValueError, match=r"search_space= for 'nnls', which has no default search space.*Methods with a default"
    ):
        tl.tune(pairs, "nnls")
    with pytest.raises(ValueError, match="search_space to be a mapping"):
        tl.tune(pairs, "ridge", {})
    with pytest.raises(ValueError, match="found 'simpledn'"):
        tl.tune(pairs, "simpledn")
    with pytest.raises(TypeError, match=r"found \['hiden'\]"):
        tl.tune(pairs, "residual_dnn", hiden=3)
    for cv in (11, "rows"):
        with pytest.raises(ValueError, match="cv 'leave-one-donor-out' or 2 to 10 folds"):
            tl.tune(pairs, "ridge", cv=cv)
    with pytest.raises(FileNotFoundError, match="Expected a directory for study="):
        tl.tune(pairs, "ridge", study=tmp_path / "none" / "study.sqlite")


@pytest.mark.parametrize("method", ["ridge", "residual_dnn"])
def test_tuning_has_no_side_effects(pairs, unchanged, global_state_untouched, capfd, method):
    level = optuna.logging.get_verbosity()
    tl.train(pairs, method, **(QUICK if method == "residual_dnn" else {}))
    capfd.readouterr()
    with unchanged(pairs), global_state_untouched(), warnings.catch_warnings():
        warnings.simplefilter("error")
        space = {"n_genes": IntDistribution(30, 90), "n_aug": CategoricalDistribution([2, 5])}
        tl.tune(pairs, method, space, n_trials=3, cv=2, **(QUICK if method == "residual_dnn" else {}))
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == level
