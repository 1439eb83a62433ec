"""Inputs that share few genes: refused or warned about in every function, with the likely reason."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import clustering, pp, tl
from scdeconv._data.checks import Problems, check_shared_genes
from scdeconv._data.gene_names import Genes, describe_kinds, kinds_of

pytestmark = pytest.mark.filterwarnings("ignore:Expected an out-of-fold RMSE")


@pytest.fixture(scope="module")
def paired(cohort):
    return pp.pair(*cohort)


@pytest.fixture(scope="module")
def scvis(cohort):
    cells = cohort[0].copy()
    clustering.Scvis.setup_anndata(cells)
    model = clustering.Scvis(cells)
    model.train(max_epochs=1)
    return model


def renamed(adata, change):
    adata = adata.copy()
    adata.var_names = change(adata.var_names)
    return adata


def pair_cells(cohort, paired, change):
    pp.pair(cohort[0], renamed(cohort[1], change))


def pair_profiles(cohort, paired, change):
    pp.pair(bulk=cohort[1], profiles=renamed(paired["profiles"], change))


def train_signature(cohort, paired, change):
    tl.train(paired, "nnls", signature=renamed(paired["profiles"], change))


def predict(cohort, paired, change):
    tl.predict(renamed(cohort[1], change), tl.train(paired, "nnls"))


def estimate_expression(cohort, paired, change):
    model = tl.train(paired, "bayesprism", outlier_share=1)
    tl.expression(renamed(cohort[1], change), model, cell_types=model.cell_types_[:1])


def name_by_reference(cohort, paired, change):
    cells = cohort[0].copy()
    cells.obs["cluster"] = cells.obs["cell_type"].cat.codes.astype(str)
    tl.name_clusters(cells, "cluster", reference=renamed(cohort[0], change), key_added="name")


def name_by_markers(cohort, paired, change):
    cells = cohort[0].copy()
    cells.obs["cluster"] = cells.obs["cell_type"].cat.codes.astype(str)
    genes = list(change(cells.var_names))
    tl.name_clusters(cells, "cluster", markers={"A": genes[:20], "B": genes[20:40]}, key_added="name")


def constrain_by_markers(cohort, paired, change):
    genes = list(change(cohort[0].var_names))
    pp.constraints(cohort[0], markers={"A": genes[:20], "B": genes[20:40]})


ENTRIES = (
    pair_cells,
    pair_profiles,
    train_signature,
    predict,
    estimate_expression,
    name_by_reference,
    name_by_markers,
    constrain_by_markers,
)
entries = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.__name__)


def ensembl(names):
    return pd.Index([f"ENSG{i:011d}.{i % 9}" for i in range(len(names))])


REASONS = {
    "Ensembl identifiers": ensembl,
    "differ only in case": lambda names: names.str.capitalize(),
    "numbers (row numbers or Entrez identifiers)": lambda names: pd.Index([str(i) for i in range(len(names))]),
    "microarray probes": lambda names: pd.Index([f"{i}_s_at" for i in range(len(names))]),
    "symbols with another identifier": lambda names: "GRCh38_" + names,
}


@entries
@pytest.mark.parametrize("reason", REASONS)
def test_genes_of_another_kind_are_explained(entry, reason, cohort, paired):
    with pytest.raises(ValueError, match="Expected") as caught:
        entry(cohort, paired, REASONS[reason])
    assert reason in str(caught.value)


@pytest.mark.parametrize("reason", REASONS)
def test_new_cells_of_another_kind_are_refused(reason, cohort, scvis):
    with pytest.raises(ValueError, match="at least half of the model's 240 genes") as caught:
        scvis.get_latent_representation(renamed(cohort[0], REASONS[reason]))
    assert reason in str(caught.value)


def with_share(share, other="x{}"):
    """Return a function that keeps a share of the names."""
    return lambda names: pd.Index([g if i < share * len(names) else other.format(i) for i, g in enumerate(names)])


COMPARING = [pair_cells, pair_profiles, train_signature, name_by_reference]


@pytest.mark.parametrize("entry", COMPARING, ids=lambda entry: entry.__name__)
def test_few_shared_genes_are_refused_or_warned_about(entry, cohort, paired):
    with pytest.raises(ValueError, match=r"Expected the same genes in .*, found 24 shared \(10% of the genes of"):
        entry(cohort, paired, with_share(0.1))
    with pytest.warns(UserWarning, match="the same genes in|of the signature's 240 genes are not in bulk"):
        entry(cohort, paired, with_share(0.5))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="(?s).*(same genes|not in bulk)")
        entry(cohort, paired, with_share(0.8))


def test_names_of_half_another_kind_are_warned_about(cohort):
    with pytest.warns(
        UserWarning, match="The names are 50% symbols and 50% Ensembl identifiers in bulk and symbols in"
    ):
        pp.pair(cohort[0], renamed(cohort[1], with_share(0.5, "ENSG{:011d}")))


def test_column_with_the_other_names_is_proposed(cohort):
    bulk = renamed(cohort[1], ensembl)
    bulk.var["symbol"] = pd.Categorical(cohort[1].var_names)
    with pytest.raises(ValueError, match=r"Set bulk\.var_names = bulk\.var\['symbol'\]\.astype\(str\)"):
        pp.pair(cohort[0], bulk)


def test_smaller_input_decides_on_the_share(cohort):
    cells, bulk = cohort
    more = AnnData(np.ones((bulk.n_obs, 2000)), obs=bulk.obs[[]])
    more.var_names = [f"x{i}" for i in range(2000)]
    wide = AnnData(np.hstack([bulk.X, more.X]), obs=bulk.obs)
    wide.var_names = [*bulk.var_names, *more.var_names]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pp.pair(cells, wide)
        pp.pair(cells, bulk[:, :30].copy())


def names_of(*names):
    index = pd.Index(names)
    return Genes("bulk", index, AnnData(var=pd.DataFrame(index=index)))


@pytest.mark.parametrize(
    ("n_shared", "n_genes", "refused"), [(19, 60, True), (30, 60, False), (3, 5, False), (2, 5, True)]
)
def test_few_genes_must_be_half_of_the_names(n_shared, n_genes, refused):
    first = names_of(*(f"A{i}" for i in range(n_genes)))
    second = names_of(*(f"A{i}" if i < n_shared else f"B{i}" for i in range(n_genes)))
    problems = Problems("")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_shared_genes(problems, first, [second])
    assert bool(problems.messages) == refused


def test_kinds_are_described_with_their_shares():
    names = pd.Index(["ENSG00000141510", "ENST00000141510", "TP53", "7157"])
    assert set(kinds_of(names).values()) == {0.25}
    assert describe_kinds(names[:1]) == "Ensembl identifiers"
    assert describe_kinds(names[[0, 2]]) in (
        "50% symbols and 50% Ensembl identifiers",
        "50% Ensembl identifiers and 50% symbols",
    )
