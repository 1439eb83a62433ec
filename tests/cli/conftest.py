from __future__ import annotations

import gzip
import shlex
from contextlib import redirect_stdout
from pathlib import Path

import pandas as pd
import pytest
from scipy.io import mmwrite

from scdeconv import cli, datasets, pp

DOCS = Path(__file__).parents[2] / "docs"


def write_10x(cells, folder):
    """A folder of Cell Ranger 3, with identifiers in the order of the genes."""
    folder.mkdir()
    mmwrite(folder / "matrix.mtx", cells.X.T.tocoo())
    features = pd.DataFrame({"id": [f"ENSG{i:011d}" for i in range(cells.n_vars)], "name": cells.var_names})
    features.assign(kind="Gene Expression").to_csv(folder / "features.tsv", sep="\t", header=False, index=False)
    (folder / "barcodes.tsv").write_text("\n".join(cells.obs_names) + "\n")
    for path in list(folder.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


@pytest.fixture(scope="session")
def small_cohort():
    return datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))


@pytest.fixture(scope="session")
def write_inputs(small_cohort):
    """Write the files that the pages of the command line and of the pipelines start from."""
    cells, bulk = small_cohort

    def write(folder):
        cells.write_h5ad(folder / "cells.h5ad")
        write_10x(cells, folder / "filtered_feature_bc_matrix")
        cells.to_df().astype(int).T.to_csv(folder / "cell_counts.tsv", sep="\t", index_label="gene")
        annotation = cells.obs[["donor", "cell_type"]].rename_axis("cell")
        annotation.to_csv(folder / "annotation.csv")
        annotation.to_csv(folder / "cells.csv")
        counts = bulk.to_df().T
        for name in ("counts", "new_samples"):
            counts.to_csv(folder / f"{name}.tsv", sep="\t", index_label="gene")
        identifiers = [f"ENSG{i:011d}.1" for i in range(bulk.n_vars)]
        nf_core = pd.DataFrame({"gene_id": identifiers, "gene_name": list(bulk.var_names)}).join(
            (counts + 0.25).reset_index(drop=True)
        )
        nf_core.to_csv(folder / "salmon.merged.gene_counts.tsv", sep="\t", index=False)
        sheet = bulk.obs[["donor"]].rename_axis("sample")
        sheet.to_csv(folder / "samples.tsv", sep="\t")
        sheet.to_csv(folder / "samples.csv")
        conditions = ["control", "patient"] * (bulk.n_obs // 2)
        pd.DataFrame({"condition": conditions}, sheet.index).to_csv(folder / "groups.tsv", sep="\t")
        bulk.obsm["true_fractions"].to_csv(folder / "measured.tsv", sep="\t", index_label="sample")
        other = datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100), seed=1)[1]
        other.obs_names = "other_" + other.obs_names
        other.to_df().T.to_csv(folder / "other_cohort.tsv", sep="\t", index_label="gene")
        other.obsm["true_fractions"].to_csv(folder / "other_measured.tsv", sep="\t", index_label="sample")
        count = bulk.obsm["true_fractions"].iloc[:, :1]
        count.to_csv(folder / "blood_count.tsv", sep="\t", index_label="sample")
        (count * 0 + 0.01).to_csv(folder / "blood_count_se.tsv", sep="\t", index_label="sample")
        pp.pair(cells, bulk)["profiles"].to_df().T.to_csv(folder / "profiles.tsv", sep="\t", index_label="gene")

    return write


@pytest.fixture(scope="session")
def write_model(write_inputs):
    """Write the inputs, and the pairs and the model that the commands make of them."""

    def write(folder):
        write_inputs(folder)
        inputs = {"--bulk": "counts.tsv", "--samples": "samples.tsv", "--cells": "cells.h5ad"}
        reading = [part for option, name in inputs.items() for part in (option, str(folder / name))]
        pairs, model = str(folder / "pairs.h5mu"), str(folder / "model")
        assert cli.main(["pair", *reading, "-o", pairs]) == 0
        assert cli.main(["train", pairs, "--method", "calibrated_nnls", "-o", model]) == 0

    return write


@pytest.fixture(scope="session")
def laboratory(write_inputs, tmp_path_factory):
    """The inputs of the pages, ``pairs.h5mu`` and the trained ``model``; not to be changed."""
    folder = tmp_path_factory.mktemp("session_laboratory")
    write_inputs(folder)
    pairing = ("pair", "--bulk", "counts.tsv", "--cells", "cells.h5ad", "--samples", "samples.tsv", "-o", "pairs.h5mu")
    for line in (pairing, ("train", "pairs.h5mu", "--method", "calibrated_nnls", "-o", "model")):
        assert cli.main([str(folder / word) if "." in word or word == "model" else word for word in line]) == 0
    return folder


@pytest.fixture(scope="session")
def run_line():
    """Run a line of a shell in this process: a command, maybe with its output in a file; what a pipe gets is not read."""

    def run(line):
        name, *words = shlex.split(line, comments=True)
        assert name == "scdeconv", line
        words = words[: words.index("|")] if "|" in words else words
        target = None
        if ">" in words:
            target, words = words[words.index(">") + 1], words[: words.index(">")]
        if target is None:
            return cli.main(words)
        with Path(target).open("w", encoding="utf-8") as file, redirect_stdout(file):
            return cli.main(words)

    return run
