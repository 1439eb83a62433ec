"""Train on half of the cell-line mixtures as pairs, predict the rest, and write docs/benchmarks/cell_line_pairs.md."""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from held_out_donors import METHODS, quietly
from report import PAGES, markdown_table, mean_and_range, provenance, use_shared_data, write_page

from scdeconv import datasets, metrics, pp, tl

MEAN = {"mean composition": {"method": "mean_composition"}}


def halves(batch: pd.Series, seed: int) -> dict[str, np.ndarray]:
    """Return masks of the mixtures used as pairs: two of the four batches, the other two, or a random half."""
    batches = sorted(batch.unique())
    order = np.random.default_rng(seed).permutation(len(batch))
    known = {" and ".join(pair): batch.isin(pair).to_numpy() for pair in (batches[:2], batches[2:])}
    return known | {"a random half": order < len(batch) // 2}


def cell_lines(seeds: list[int]) -> pd.DataFrame:
    """Train on half of the mixtures and predict the others."""
    cells, mixtures = datasets.cell_line_mixtures()
    lines = sorted(cells.obs["cell_type"].unique())
    truth = mixtures.obsm["measured_fractions"].reindex(columns=lines, fill_value=0.0)
    mixtures.obs["donor"] = mixtures.obs_names
    rows = []
    for seed in seeds:
        for name, known in halves(mixtures.obs["batch"].astype(str), seed).items():
            training = mixtures.copy()
            training.obsm["measured_fractions"] = truth.where(pd.Series(known, truth.index), np.nan)
            mdata = quietly(pp.pair, cells, training)
            for label, arguments in (METHODS | MEAN).items():
                options = {key: value for key, value in arguments.items() if key != "method"}
                stochastic = tl.methods().loc[arguments["method"], "stochastic"]
                if stochastic:
                    options["seed"] = seed
                elif seed != seeds[0] and name != "a random half":
                    continue
                predicted = quietly(tl.train, mdata, arguments["method"], **options).predict(mixtures[~known])[lines]
                scores = {"CCC": metrics.ccc(truth[~known], predicted), "RMSE": metrics.rmse(truth[~known], predicted)}
                rows.append({"method": label, "trained on": name, **scores})
    table = pd.DataFrame(rows).groupby(["method", "trained on"]).agg(lambda values: mean_and_range(values, 3)).unstack()
    table.columns = [f"{metric}, {known}" for metric, known in table.columns]
    return table.sort_values(table.columns[0], ascending=False)


def main(seeds: list[int]) -> None:
    use_shared_data()
    write_page(
        PAGES / "cell_line_pairs.md",
        [
            "# Cell-line mixtures, half of them as pairs",
            "Three lung cancer cell lines mixed in known shares (Tian et al. 2019). Each sample contains 2 to 20 wells of 9 cells. "
            "The reference is single cells of five lines. Models are trained on two of four batches, or on a random half of the "
            "mixtures, and predict the other mixtures. The random half contains all batches, and most of the test compositions in "
            "other wells.",
            markdown_table(cell_lines(seeds)),
            provenance("sc_mixology, cellmix 1–4", seeds),
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    main(parser.parse_args().seeds)
