from __future__ import annotations

import contextlib
import os
import warnings

import joblib
import pandas as pd
import pytest
from optuna.distributions import FloatDistribution

from scdeconv import tl

pytestmark = pytest.mark.slow

ray = pytest.importorskip("ray", reason="Ray is an optional extra: pip install 'scdeconv[ray]'")

SPACE = {"penalty": FloatDistribution(1e-6, 1e2, log=True)}


@pytest.fixture(scope="module")
def grenade(tmp_path_factory):
    """Two worker processes; where the file exists, the next fold to be computed kills its own process."""
    file = tmp_path_factory.mktemp("grenade") / "armed"

    def in_each_worker():
        import signal
        import time

        from scdeconv.tl._tuning import run

        fold_error = run.fold_error

        def deadly(*args):
            with contextlib.suppress(FileNotFoundError):
                file.unlink()
                time.sleep(0.5)
                os.kill(os.getpid(), signal.SIGKILL)
            return fold_error(*args)

        run.fold_error = deadly

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"worker_process_setup_hook": in_each_worker},
    )
    yield file
    ray.shutdown()


def test_ray_trials_equal_serial_trials(pairs, grenade, monkeypatch, unchanged):
    put, stored = ray.put, []
    monkeypatch.setattr(ray, "put", lambda value: (stored.append(value), put(value))[1])
    choices = {"penalty": [1e-4, 1e-2, 1.0, 100.0], "n_genes": [60, 120]}
    with unchanged(pairs):
        tuning = tl.tune(pairs, "nonnegative_ridge", choices, n_trials=8, cv=2, executor="ray")
    # two folds, each its training data and its held-out samples: once, whatever the number of trials
    assert len(stored) == 4
    assert ray.is_initialized()
    assert set(tuning.trials["state"]) == {"complete"}
    for _, trial in tuning.trials[1:].iterrows():
        space = {name: [trial[name]] for name in choices}
        alone = tl.tune(pairs, "nonnegative_ridge", space, n_trials=2, cv=2)
        assert trial["rmse"] == pytest.approx(alone.trials["rmse"].iloc[-1], rel=1e-12)


def test_study_completes_after_a_killed_worker(pairs, grenade, tmp_path):
    first = tl.tune(pairs, "nonnegative_ridge", SPACE, n_trials=2, cv=3, study=tmp_path / "s.sqlite", executor="ray")
    grenade.touch()
    tuning = tl.tune(pairs, "nonnegative_ridge", SPACE, n_trials=6, cv=3, study=tmp_path / "s.sqlite", executor="ray")
    assert not grenade.exists()
    assert len(tuning.trials) == 6
    pd.testing.assert_frame_equal(tuning.trials[:2], first.trials)
    # every value is what one process computes
    for _, trial in tuning.trials[1:].dropna().iterrows():
        alone = tl.tune(pairs, "nonnegative_ridge", {"penalty": [trial["penalty"]]}, n_trials=2, cv=3)
        assert trial["rmse"] == pytest.approx(alone.trials["rmse"].iloc[-1], rel=1e-12)


@pytest.mark.usefixtures("grenade")
def test_worker_errors_are_raised_by_the_call(pairs):
    with pytest.raises(ValueError, match="Expected penalty to be a number of at least 0") as error:
        tl.tune(pairs, "nonnegative_ridge", {"penalty": [-1.0, -2.0]}, n_trials=3, cv=2, executor="ray")
    assert "'penalty': -" in error.value.__notes__[0]


@pytest.mark.usefixtures("grenade")
def test_ray_backend_gives_the_serial_table(pairs):
    from ray.util.joblib import register_ray

    register_ray()
    methods = {"ridge": {}, "nnls": {}, "tuned": {"method": "ridge", "tune": {"n_trials": 2, "cv": 3}}}
    serial = tl.benchmark(pairs, methods, cv=2, seeds=[0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with joblib.parallel_config(backend="ray", n_jobs=2):
            parallel = tl.benchmark(pairs, methods, cv=2, seeds=[0, 1])
    pd.testing.assert_frame_equal(serial.drop(columns="seconds"), parallel.drop(columns="seconds"))
