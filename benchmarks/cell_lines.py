"""Cell-line mixtures of known composition from the cells alone: writes docs/benchmarks/cell_lines.md."""

from __future__ import annotations

import argparse

import pandas as pd
from report import PAGES, markdown_table, mean_and_range, provenance, use_shared_data, write_page

from scdeconv import datasets, metrics, pp, tl


def main(seeds: list[int]) -> None:
    use_shared_data()
    cells, mixtures = datasets.cell_line_mixtures()
    truth = mixtures.obsm.pop("measured_fractions")
    mdata = pp.pair(cells, mixtures)
    lines = list(truth.columns)
    cell_types = list(mdata["profiles"].obs["cell_type"])
    measured = truth.reindex(columns=cell_types, fill_value=0.0)

    pp.select_genes(mdata)
    runs = [("NNLS", tl.train(mdata, "nnls"))]
    pp.simulate(mdata, n_samples=1000, cells_per_sample=100)
    runs += [("Scaden", tl.train(mdata, "scaden", seed=seed)) for seed in seeds]
    predictions = [(name, model.predict(mixtures)) for name, model in runs]
    constant = measured.copy()
    constant.loc[:] = measured.mean().to_numpy()
    predictions.append(("mean composition (of these mixtures)", constant))

    rows = []
    for name, predicted in predictions:
        per_type = metrics.ccc(measured[lines], predicted[lines], per_type=True)
        rows.append(
            {
                "method": name,
                "CCC, five lines": metrics.ccc(measured, predicted),
                "CCC, the three mixed lines": metrics.ccc(measured[lines], predicted[lines]),
                "RMSE, five lines": metrics.rmse(measured, predicted),
                **{f"CCC {line}": per_type[line] for line in lines},
            }
        )
    summary = pd.DataFrame(rows).groupby("method", sort=False).agg(lambda values: mean_and_range(values, 3))
    write_page(
        PAGES / "cell_lines.md",
        [
            "# Cell-line mixtures, from the cells alone",
            f"{len(measured)} mixtures of three lung cancer cell lines with known shares of cells (Tian et al. 2019), predicted "
            f"from {cells.n_obs} single cells of five lines: the methods do not know which two lines are absent. No mixture is "
            "used for training. Genes: 50 markers per line. CCC over all entries, and per line.",
            markdown_table(summary),
            provenance("sc_mixology, cellmix 1–4, wells pooled by design and batch", seeds),
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    main(parser.parse_args().seeds)
