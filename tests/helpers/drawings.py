"""Examples of all plots for their tests, from sines: equal on all platforms."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from scdeconv import pl, tl
from scdeconv._data.modalities import make_mudata

LONG = ["CD4-positive, alpha-beta T cell", "B", "plasmacytoid dendritic cell, human", "rod"]


def make_samples(n_samples: int, n_types: int, *, long: bool = False) -> AnnData:
    """Samples in three groups with measured and predicted fractions and intervals."""
    grid = np.arange(n_samples)[:, None] + 1.7 * np.arange(n_types) ** 2
    names = [f"GTEX-{i:04d}-liver-SM-48TDP" if long else f"s{i}" for i in range(n_samples)]
    types = [f"{LONG[k % len(LONG)]} {k}" if long else f"type {k}" for k in range(n_types)]
    groups = pd.Categorical([["young", "old", "idiopathic pulmonary fibrosis"][i % 3] for i in range(n_samples)])
    adata = AnnData(obs=pd.DataFrame({"group": groups, "age": 50 + 30 * np.sin(np.arange(n_samples))}, index=names))
    abundance = np.exp(np.linspace(2, -2, n_types))
    measured, predicted = (abundance * np.exp(np.sin(3 * grid) + noise * np.cos(7 * grid)) for noise in (0, 0.3))
    for key, values in (("measured_fractions", measured), ("fractions", predicted)):
        adata.obsm[key] = pd.DataFrame(values / values.sum(axis=1, keepdims=True), names, types)
    for side, sign in (("lower", -1), ("upper", 1)):
        bound = adata.obsm["fractions"] + sign * (0.02 + 0.1 * adata.obsm["fractions"])
        adata.obsm[f"fractions_{side}"] = bound.clip(0, 1)
    adata.uns["scdeconv"] = {"fractions": {"coverage": 0.9}}
    return adata


def draw_benchmark(**arguments):
    methods = {"ridge": 0.03, "mean_composition": 0.05, "nnls": 0.07}
    rows = [
        {"method": method, "seed": seed, "cell_type": cell_type, "rmse": rmse * (1 + 0.1 * seed) * factor}
        for method, rmse in methods.items()
        for seed in (0, 1)
        for cell_type, factor in (("B", 0.5), ("T", 1.6), ("all entries", 1.0))
    ]
    return pl.benchmark(pd.DataFrame(rows), **arguments)


def draw_clusters(**arguments):
    logits = 2 * np.sin(np.arange(120)[:, None] * (1 + np.arange(5)))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names, cells = [f"cluster {k}" for k in range(5)], [f"c{i}" for i in range(120)]
    labels = pd.Categorical.from_codes(p.argmax(axis=1), names)
    adata = AnnData(obs=pd.DataFrame({"desc": labels}, index=cells))
    adata.obsm["desc_probabilities"] = pd.DataFrame(p, cells, names)
    return pl.clusters(adata, **arguments)


def draw_history(**arguments):
    epochs = np.arange(40)
    curves = {"train_loss": np.exp(-epochs / 8) + 0.02, "validation_loss": np.exp(-epochs / 8) + 0.004 * epochs + 0.05}
    return pl.history({name: pd.DataFrame({name: values}) for name, values in curves.items()}, **arguments)


def draw_reference_fit(**arguments):
    grid = np.arange(200)
    fit = 10 ** (2 + 1.5 * np.sin(grid))
    ratio = 1.2 * np.cos(3 * grid) + np.where(grid % 40 == 7, 4.5, 0)
    adata = AnnData(
        obs=pd.DataFrame(index=[f"s{i}" for i in range(9)]), var=pd.DataFrame(index=[f"GENE{i}" for i in grid])
    )
    adata.varm["reference_fit"] = pd.DataFrame(
        {
            "symbol": adata.var_names,
            "bulk": fit * 2**ratio,
            "fit": fit,
            "log2_ratio": ratio,
            "variation": 0.3,
            "unexplained": ratio > 3,
        },
        adata.var_names,
    )
    shares = 0.1 + 0.08 * np.sin(np.arange(9))
    adata.obsm["reference_fit"] = pd.DataFrame({"unexplained": shares, "correlation": 0.8}, adata.obs_names)
    return pl.reference_fit(adata, **arguments)


def draw_signature(**arguments):
    values = 1.5 + np.sin(np.arange(4)[:, None] + np.arange(30) ** 2)
    marker_of = [f"type {k}" for k in values.argmax(axis=0)]
    signature = AnnData(
        values,
        obs=pd.DataFrame({"cell_type": [f"type {k}" for k in range(4)], "cell_size_umi": 1e6}, index=list("abcd")),
        var=pd.DataFrame({"marker_of": marker_of, "score": values.max(axis=0)}, [f"GENE{j}" for j in range(30)]),
    )
    signature.uns["scdeconv"] = {"signature": {"condition_number": 12.3}}
    return pl.signature(signature, **arguments)


def draw_simulation(**arguments):
    def make(n: int, shift: float) -> AnnData:
        rows = np.arange(n)[:, None] + shift
        values = np.exp(3 + np.sin(rows) * np.arange(8) / 8 + np.cos(5 * rows) * (np.arange(8) % 2) / 2)
        names = [f"{shift}-{i}" for i in range(n)]
        obs = pd.DataFrame({"donor": names}, index=names)
        return AnnData(values, obs=obs, obsm={"measured_fractions": pd.DataFrame({"T": 1.0}, index=names)})

    return pl.simulation(make_mudata({"bulk": make(8, 0.4), "simulated": make(80, 0)}), **arguments)


def draw_tuning(**arguments):
    trials = pd.DataFrame(
        {
            "state": ["complete"] * 3 + ["pruned"] + ["complete"] * 2,
            "rmse": [0.05, 0.06, 0.04, np.nan, 0.03, 0.045],
            "seconds": 1.0,
            "learning_rate": [1e-3, 1e-5, 1e-4, 1e-2, 3e-4, 1e-3],
            "loss": ["mse", "kl", "mse", "kl", "cross-entropy", "mse"],
        }
    ).rename_axis("trial")
    return pl.tuning(tl.Tuning("simplednn", trials, {}, None, 0.07), **arguments)


OTHERS = {
    "benchmark": draw_benchmark,
    "clusters": draw_clusters,
    "history": draw_history,
    "reference_fit": draw_reference_fit,
    "signature": draw_signature,
    "simulation": draw_simulation,
    "tuning": draw_tuning,
}


def figure_of(drawn):
    return np.ravel(drawn)[0].figure
