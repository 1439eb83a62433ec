"""Networks in scvi.autotune, which needs ray[tune], hyperopt and scib-metrics."""

from __future__ import annotations

import pytest

from scdeconv import models

pytestmark = pytest.mark.slow

for module in ("ray", "hyperopt", "scib_metrics"):
    pytest.importorskip(
        module, reason="scvi.autotune: pip install 'ray[tune]' hyperopt scib-metrics (with JAX, 350 MB)"
    )


def test_scvi_autotune_trains_simplednn(pairs, tmp_path):
    from ray import shutdown, tune
    from scvi.autotune import run_autotune

    bulk = pairs["bulk"][pairs["bulk"].obsm["measured_fractions"].notna().all(axis=1).to_numpy()].copy()
    models.SimpleDNN.setup_anndata(bulk)
    try:
        experiment = run_autotune(
            models.SimpleDNN,
            bulk,
            metrics="validation_loss",
            mode="min",
            search_space={
                "model_params": {"hidden": tune.grid_search([(4,), (8,)]), "n_members": 2},
                "train_params": {"max_epochs": 3, "learning_rate": 1e-3},
            },
            num_samples=1,
            scheduler="fifo",
            searcher="random",
            resources={"cpu": 1},
            logging_dir=str(tmp_path),
            ignore_reinit_error=True,
        )
    finally:
        shutdown()
    table = experiment.result_grid.get_dataframe()
    assert sorted(table["config/model_params/hidden"]) == [(4,), (8,)]
    assert (table["training_iteration"] == 3).all()
    assert table["validation_loss"].between(0, 0.1).all()
