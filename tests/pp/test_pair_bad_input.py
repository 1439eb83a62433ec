"""Invalid input of :func:`scdeconv.pp.pair`: the report shows the problem, examples and advice."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import pp

BAD = {}
# AnnData warns when it is given such names
pytestmark = pytest.mark.filterwarnings("ignore:(Variable|Observation) names are not unique")


def bad(expected, *, title):
    """Register a change of cells and bulk that must end in a report with one problem, the expected text."""

    def register(change):
        BAD[title] = (change, expected)
        return change

    return register


def set_values(adata, rows, columns, value):
    values = np.asarray(adata.X.toarray() if sp.issparse(adata.X) else adata.X, dtype=float)
    values[rows, columns] = value
    adata.X = sp.csr_matrix(values) if sp.issparse(adata.X) else values


@bad(
    "Expected non-negative values in cells, found 4 negative (smallest -2.5) in 'G1', 'G3', 'G5' and 1 more: z-scores or log ratios. "
    "Pass counts or TPM, not scaled or log-ratio values.",
    title="negative cells",
)
def _(cells, bulk):
    set_values(cells, [0, 2, 2, 9], [5, 1, 3, 7], -2.5)


@bad(
    "Expected non-negative values in bulk, found 2 negative (smallest -1) in 'G2': z-scores or log ratios. Pass",
    title="negative bulk",
)
def _(cells, bulk):
    set_values(bulk, [1, 3], [2, 2], -1)


@bad("Expected finite values in bulk, found 2 NaN and 0 infinite in 'G1', 'G4'. Remove or impute", title="NaN in bulk")
def _(cells, bulk):
    set_values(bulk, [1, 3], [4, 1], np.nan)


@bad("Expected finite values in cells, found 1 NaN and 2 infinite in 'G1', 'G3', 'G4'. Remove", title="NaN in cells")
def _(cells, bulk):
    set_values(cells, [1, 3, 4], [4, 1, 3], [np.nan, np.inf, -np.inf])


@bad(
    "Expected unique cells.obs_names, found 2 repeated: 'cell5', 'cell7'. Call cells.obs_names_make_unique().",
    title="repeated cells",
)
def _(cells, bulk):
    cells.obs_names = ["cell5", *cells.obs_names[1:-2], "cell7", "cell5"]


@bad("Expected unique bulk.obs_names, found 1 repeated: 'bulk1'.", title="repeated samples")
def _(cells, bulk):
    bulk.obs_names = ["bulk1", *bulk.obs_names[1:]]


@bad(
    "Expected unique gene names in bulk, found 4 repeated: 'G1', 'G2', 'G3' and 1 more. "
    'Sum them, as pp.pair does with duplicates="sum", or make them unique.',
    title="repeated genes",
)
def _(cells, bulk):
    bulk.var_names = ["G1", "G2", "G3", "G4", "G1", *bulk.var_names[1:-4], "G2", "G3", "G4", "G39"][:40]


@bad(
    "Expected the same genes in bulk and cells, found 0 shared (0% of the genes of bulk): bulk has 40 ('x0', 'x1', 'x2' "
    "and 37 more); cells has 40 ('G0', 'G1', 'G2' and 37 more). Use the same identifiers for both.",
    title="no shared genes",
)
def _(cells, bulk):
    bulk.var_names = [f"x{i}" for i in range(40)]


@bad(
    "cells has 40 ('G0', 'G1', 'G2' and 37 more). The names differ only in case, as between mouse (Actb) and human",
    title="genes of another case",
)
def _(cells, bulk):
    bulk.var_names = bulk.var_names.str.lower()


@bad(
    "bulk has 40 ('G0', 'G1', 'G2' and 37 more); cells has 40 ('ENSG00000000000', 'ENSG00000000001', "
    "'ENSG00000000002' and 37 more). The names are symbols in bulk and Ensembl identifiers in cells. Set cells.var_names = cells.var['symbol'].astype(str).",
    title="Ensembl cells with a column of symbols",
)
def _(cells, bulk):
    cells.var["other"], cells.var["symbol"] = "x", pd.Categorical(cells.var_names)
    cells.var_names = [f"ENSG{i:011d}.3" for i in range(40)]


@bad(
    "bulk has 40 ('ENSMUSG00000000000', 'ENSMUSG00000000001', 'ENSMUSG00000000002' and 37 more); cells has 40 ('G0', "
    "'G1', 'G2' and 37 more). The names are Ensembl identifiers in bulk and symbols in cells. Use the same identifiers",
    title="Ensembl bulk without symbols",
)
def _(cells, bulk):
    bulk.var_names = [f"ENSMUSG{i:011d}" for i in range(40)]


@bad(
    "Expected values on a linear scale in bulk, found log-transformed values (maximum 7.6, not whole numbers). "
    "Pass counts or TPM, e.g. with layer='counts' or as np.expm1 of the values.",
    title="logged bulk",
)
def _(cells, bulk):
    bulk.X = np.log1p(bulk.X)
    bulk.X *= 7.6 / bulk.X.max()


@bad("Expected values on a linear scale in cells, found log-transformed values (maximum", title="logged cells")
def _(cells, bulk):
    cells.X = sp.csr_matrix(np.log1p(cells.X.toarray()))


@bad(
    "Expected values on a linear scale in cells, found log-transformed values (maximum",
    title="cells that scanpy logged",
)
def _(cells, bulk):
    cells.X = cells.X * 20.5
    cells.uns["log1p"] = {"base": None}


@bad(
    "Expected identical donor names in bulk and cells, found 4 that nearly match (6 donors in bulk, 5 in cells): "
    "bulk 'd-03', 'd-01', 'd-04' and 1 more; cells 'D3', 'D1', 'D4' and 1 more. If they are the same donors, rename them "
    "in bulk.obs['donor'], such as .replace({'d-03': 'D3', 'd-01': 'D1', 'd-04': 'D4'}). If not, give them other names.",
    title="donors spelled otherwise",
)
def _(cells, bulk):
    bulk.obs["donor"] = bulk.obs["donor"].str.replace("D", "d-0")


@bad(
    "found 1 that nearly match (6 donors in bulk, 5 in cells): bulk 'D_4'; cells 'D4'. If they are the",
    title="one donor spelled otherwise",
)
def _(cells, bulk):
    bulk.obs["donor"] = bulk.obs["donor"].replace("D4", "D_4")


@bad(
    "found 4 that nearly match (6 donors in bulk, 5 in cells): bulk 'bulk_D3', 'bulk_D1', 'bulk_D4' and 1 more; "
    "cells 'D3', 'D1', 'D4' and 1 more.",
    title="donors with a prefix",
)
def _(cells, bulk):
    bulk.obs["donor"] = "bulk_" + bulk.obs["donor"]


@bad(
    "Expected a donor for every row of cells.obs['donor'], found 4 rows without donor: 'cell1', 'cell2', 'cell3' and 1 more. Remove these rows.",
    title="cells without donor",
)
def _(cells, bulk):
    cells.obs.loc[["cell1", "cell2", "cell3", "cell8"], "donor"] = np.nan


@bad(
    "Expected a donor for every row of bulk.obs['donor'], found 1 rows without donor: 'bulk2'. Remove these rows.",
    title="bulk without donor",
)
def _(cells, bulk):
    bulk.obs.loc["bulk2", "donor"] = None


@bad(
    "Expected the donor of each cell in cells.obs['donor'], found columns ['patient', 'cell_type']. "
    "Column 'patient' has donors of bulk ('D1', 'D2', 'D3' and 1 more). Name the column with donor_key=.",
    title="no donor column",
)
def _(cells, bulk):
    cells.obs = cells.obs.rename(columns={"donor": "patient"})


@bad(
    "Expected the type of each cell in cells.obs['cell_type'], found columns ['donor']. Name the column with",
    title="no cell-type column",
)
def _(cells, bulk):
    del cells.obs["cell_type"]


@bad(
    "Expected a cell type for every row of cells.obs['cell_type'], found 2 rows without cell type: 'cell3', 'cell8'. Remove",
    title="cells without type",
)
def _(cells, bulk):
    cells.obs.loc[["cell3", "cell8"], "cell_type"] = np.nan


@bad(
    "Expected cell-type names without '/' in cells.obs['cell_type'], found 2: 'NK/T', 'a/b/c'. "
    "h5ad files do not support such column names. Rename them, e.g. 'NK/T' to 'NK-T'.",
    title="cell types with a slash",
)
def _(cells, bulk):
    cells.obs["cell_type"] = cells.obs["cell_type"].cat.rename_categories({"NK cell": "NK/T", "T cell": "a/b/c"})


def with_fractions(bulk, **columns):
    bulk.obsm["measured_fractions"] = pd.DataFrame(columns, index=bulk.obs_names)


@bad(
    "Expected rows of bulk.obsm['measured_fractions'] to sum to at most 1, found 6 rows with sums from 1.2 to 1.4: "
    "'bulk0', 'bulk1', 'bulk2' and 3 more. Divide each row by its sum, and drop columns that are sums of other types.",
    title="fractions that sum to more than 1",
)
def _(cells, bulk):
    with_fractions(bulk, **{"B cell": [0.7] * 5 + [0.9], "T cell": 0.5})


@bad(
    "Expected rows of bulk.obsm['measured_fractions'] to sum to 1, found 1 rows with sums from 0.8 to 0.8: 'bulk0'. "
    "Add the remainder as the column 'Unmeasured' or divide each row by its sum.",
    title="fractions that contradict the unmeasured rest",
)
def _(cells, bulk):
    with_fractions(bulk, **{"B cell": [0.3] + [0.5] * 5, "T cell": 0.4, "Unmeasured": 0.1})


@bad(
    "Expected measured cell types in every row of bulk.obsm['measured_fractions'], found 1 rows of zeros: 'bulk0'. Set these rows to NaN.",
    title="fractions of zeros",
)
def _(cells, bulk):
    with_fractions(bulk, **{"B cell": [0.0] + [0.5] * 5, "T cell": [0.0] + [0.5] * 5})


@bad("found percent (rows that sum to 100 to 100). Divide the table by 100.", title="percentages")
def _(cells, bulk):
    with_fractions(bulk, **{"B cell": [20.0] + [np.nan] * 5, "T cell": [80.0] + [np.nan] * 5})


@bad("to sum to at most 1, found 1 rows with sums from inf to inf: 'bulk0'.", title="infinite fractions")
def _(cells, bulk):
    with_fractions(bulk, **{"B cell": [np.inf] + [0.5] * 5, "T cell": 0.5})


@bad(
    "Expected non-negative fractions in bulk.obsm['measured_fractions'], found 2 rows with negative values "
    "(smallest -0.2): 'bulk0', 'bulk3'. Set them to 0 and divide each row by its sum.",
    title="negative fractions",
)
def _(cells, bulk):
    first = np.array([-0.2, 0.5, 0.5, -0.1, 0.5, np.nan])
    with_fractions(bulk, **{"B cell": first, "T cell": 1 - first})


@bad("to sum to at most 1, found 1 rows with sums from 1.2 to 1.2: 'bulk1'.", title="half-known fractions above 1")
def _(cells, bulk):
    with_fractions(bulk, **{"B cell": [0.5, np.nan, 0.5, 0.5, 0.5, 0.5], "T cell": [0.5, 1.2, 0.5, 0.5, 0.5, 0.5]})


@bad(
    "Expected only cell types of the cells in bulk.obsm['measured_fractions'], found 1 other types: 'Monocyte'. The cells have "
    "'B cell', 'NK cell', 'T cell'. Rename the columns, or drop them: they are then part of the unmeasured rest ('Unmeasured').",
    title="fractions of another type",
)
def _(cells, bulk):
    with_fractions(bulk, **{"B cell": 0.5, "Monocyte": 0.5})


@bad(
    "Expected unique cell types in bulk.obsm['measured_fractions'], found 1 repeated: 'B cell'. Sum or rename them.",
    title="fractions with a type twice",
)
def _(cells, bulk):
    bulk.obsm["measured_fractions"] = pd.DataFrame(0.5, index=bulk.obs_names, columns=["B cell", "B cell"])


@bad(
    "Expected cell-type names without '/' in bulk.obsm['measured_fractions'], found 1: 'NK/T'.",
    title="fractions with a slash",
)
def _(cells, bulk):
    with_fractions(bulk, **{"B cell": 0.5, "NK/T": 0.5})


@bad(
    "Expected a DataFrame of samples × cell types in bulk.obsm['measured_fractions'], found ndarray. "
    "Convert it to a DataFrame with cell-type names as columns.",
    title="fractions without column names",
)
def _(cells, bulk):
    bulk.obsm["measured_fractions"] = np.full((6, 3), 1 / 3)


@bad(
    "Expected numbers in bulk.obsm['measured_fractions'], found 1 non-numeric columns: 'batch'. "
    "Keep only the columns of cell types.",
    title="fractions with a text column",
)
def _(cells, bulk):
    with_fractions(bulk, **{"B cell": 0.5, "T cell": 0.5, "batch": "b1"})


@pytest.fixture
def nothing_computed(monkeypatch, capsys):
    """Fail where anything is computed or printed before the report."""

    def computed(*args):
        raise AssertionError

    for name in ("make_reference", "make_mudata", "_measure", "choose_unit"):
        monkeypatch.setattr(f"scdeconv.pp._join.{name}", computed)
    yield
    assert not capsys.readouterr().out


def problems_of(*args, **kwargs):
    """Return the problems in the report, one text each."""
    with pytest.raises(ValueError, match="The inputs cannot be paired") as caught:
        pp.pair(*args, **kwargs)
    title, *problems = re.split(r"\n  \d+\. ", str(caught.value))
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    assert title == f"The inputs cannot be paired: {count} found."
    return problems


@pytest.mark.usefixtures("nothing_computed")
@pytest.mark.parametrize("title", BAD)
def test_report_shows_examples_and_advice(inputs, title):
    change, expected = BAD[title]
    change(*inputs)
    (problem,) = problems_of(*inputs)
    assert expected in problem


@pytest.mark.usefixtures("nothing_computed")
def test_transposed_bulk_is_recognised(inputs):
    cells, bulk = inputs
    (problem,) = problems_of(cells, bulk.T.copy())
    assert problem == (
        "Expected the same genes in bulk and cells, found 0 shared (0% of the genes of bulk): bulk has 6 ('bulk0', "
        "'bulk1', 'bulk2' and 3 more); cells has 40 ('G0', 'G1', 'G2' and 37 more). Genes are in bulk.obs_names. Pass "
        "bulk.T."
    )


@pytest.mark.usefixtures("nothing_computed")
def test_problems_of_all_inputs_are_reported_together(inputs):
    cells, bulk = inputs
    for title in ("negative cells", "no donor column", "cells without type", "cell types with a slash"):
        BAD[title][0](cells, bulk)
    for title in ("repeated samples", "NaN in bulk", "no shared genes", "fractions that sum to more than 1"):
        BAD[title][0](cells, bulk)
    problems = problems_of(cells, bulk, layer="counts")
    expected = [
        "Expected layer 'counts' in cells or bulk, found it in neither",
        "Expected unique bulk.obs_names, found 1 repeated: 'bulk1'",
        "Expected finite values in bulk, found 2 NaN",
        "Expected non-negative values in cells, found 4 negative",
        "Expected the same genes in bulk and cells, found 0 shared",
        "Expected the donor of each cell in cells.obs['donor'], found columns ['patient', 'cell_type']",
        "Expected a cell type for every row of cells.obs['cell_type'], found 2 rows without",
        "Expected cell-type names without '/' in cells.obs['cell_type'], found 2",
        "to sum to at most 1, found 6 rows",
    ]
    assert len(problems) == len(expected)
    for text, problem in zip(expected, problems, strict=True):
        assert text in problem


def test_invalid_input_is_not_changed(inputs, assert_same):
    cells, bulk = inputs
    for title in ("negative cells", "cells without type", "cell types with a slash", "repeated genes"):
        BAD[title][0](cells, bulk)
    before = cells.copy(), bulk.copy()
    problems_of(cells, bulk)
    assert_same(cells, before[0])
    assert_same(bulk, before[1])


@pytest.mark.parametrize(
    ("bulk_donors", "cell_donors"),
    [
        (["X1", "X2", "X3"], ["Y1", "Y2", "Y3"]),
        (["1", "2", "3"], ["bulk_4", "bulk_5", "bulk_6"]),
        (["TCGA-02-0001", "TCGA-03-0004"], ["TCGA-01-0002", "TCGA-04-0003"]),
        (["D1", "D22"], ["D2", "D11"]),
    ],
)
@pytest.mark.filterwarnings("ignore:Expected at least 3 paired donors")
def test_other_donors_are_not_reported_as_misspelled(make_inputs, bulk_donors, cell_donors):
    cells, bulk = make_inputs(cell_donors=cell_donors, bulk_donors=bulk_donors)
    assert pp.paired_donors(pp.pair(cells, bulk)) == []


@pytest.mark.usefixtures("nothing_computed")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), ["Expected bulk, found None. Pass bulk="]),
        (("bulk", "cells", "profiles"), ["Expected either cells or profiles, found both"]),
        (("bulk", "cells", "pseudobulk"), ["Expected profiles together with pseudobulk, found none. Omit pseudobulk"]),
    ],
)
def test_incompatible_inputs_are_named(inputs, reference_inputs, given, expected):
    every = {**reference_inputs, "cells": inputs[0]}
    problems = problems_of(**{name: every[name] for name in given})
    assert [text in problem for text, problem in zip(expected, problems, strict=True)] == [True] * len(expected)


def profiles_with_an_empty_type(bulk, profiles, pseudobulk):
    profiles.X[1] = 0


def profiles_with_a_type_twice(bulk, profiles, pseudobulk):
    profiles.obs["cell_type"] = ["B cell", "B cell", "T cell"]
    bulk.obsm["measured_fractions"] = bulk.obsm["measured_fractions"].set_axis(["B cell", "X", "T cell"], axis=1)


def profiles_with_a_slash(bulk, profiles, pseudobulk):
    profiles.obs["cell_type"] = ["B cell", "NK/T", "T cell"]
    del bulk.obsm["measured_fractions"]


def logged_profiles(bulk, profiles, pseudobulk):
    profiles.X = np.log1p(profiles.X)
    profiles.uns["log1p"] = {}


def donors_of_pseudobulk_spelled_otherwise(bulk, profiles, pseudobulk):
    pseudobulk.obs_names = pseudobulk.obs_names.str.replace("D", "donor D-")


def a_donor_twice_in_pseudobulk(bulk, profiles, pseudobulk):
    pseudobulk.obs["donor"] = ["D1", "D2", "D2", "D3", "D3", "D5"]


def no_gene_in_all_three(bulk, profiles, pseudobulk):
    profiles.var_names = [*(f"G{i}" for i in range(20)), *(f"x{i}" for i in range(20))]
    pseudobulk.var_names = [*(f"x{i}" for i in range(20)), *(f"G{i}" for i in range(20, 40))]


@pytest.mark.usefixtures("nothing_computed")
@pytest.mark.filterwarnings("ignore:bulk.obsm")
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (profiles_with_an_empty_type, ["Expected expression in every row of profiles, found 1 rows of zeros: 'y'."]),
        (
            profiles_with_a_type_twice,
            [
                "Expected unique cell types in profiles, found 1 repeated: 'B cell'. Sum or rename them.",
                "Expected only cell types of the profiles in bulk.obsm['measured_fractions'], found 1 other types: 'X'",
            ],
        ),
        (profiles_with_a_slash, ["Expected cell-type names without '/' in profiles, found 1: 'NK/T'"]),
        (logged_profiles, ["Expected values on a linear scale in profiles, found log-transformed values"]),
        (
            donors_of_pseudobulk_spelled_otherwise,
            ["found 6 that nearly match (6 donors in bulk, 6 in pseudobulk): bulk 'D0', 'D1', 'D2' and 3 more; "],
        ),
        (
            a_donor_twice_in_pseudobulk,
            ["Expected one row per donor in pseudobulk, found 2 donors with several rows: 'D2', 'D3'. Sum the rows"],
        ),
        (
            no_gene_in_all_three,
            [
                "Expected genes shared by bulk, profiles, pseudobulk, found no common gene. Bulk shares "
                "these genes with each: profiles 'G0', 'G1', 'G2' and 17 more; pseudobulk 'G20', 'G21', 'G22' and 17 more. Use the same genes in all inputs."
            ],
        ),
    ],
)
def test_bad_profiles_and_pseudobulk_are_reported(reference_inputs, change, expected):
    change(**reference_inputs)
    problems = problems_of(**reference_inputs)
    assert len(problems) == len(expected)
    for text, problem in zip(expected, problems, strict=True):
        assert text in problem


def test_small_means_are_not_treated_as_logs(reference_inputs):
    reference_inputs["profiles"].X *= 0.01
    assert pp.pair(**reference_inputs)["profiles"].n_obs == 3


def test_empty_or_all_zero_objects_are_refused(inputs):
    cells, bulk = inputs
    (problem,) = problems_of(cells, AnnData(np.zeros((0, 40)), var=bulk.var))
    assert "Expected samples and genes in bulk, found shape (0, 40)." in problem
    with pytest.raises(ValueError, match=r"Expected expression values in bulk\.X, found None\. Store the counts there"):
        pp.pair(cells, AnnData(obs=bulk.obs, var=bulk.var))
