"""Labels are checked by every function and class that reads them."""

from __future__ import annotations

import inspect

import numpy as np
import pandas as pd
import pytest

from scdeconv import clustering, datasets, models, pp, tl

TYPES = ["CD4 T cell", "B cell", "Monocyte", "NK"]


@pytest.fixture(scope="module")
def inputs():
    """Cells and bulk; donors and four cell types as text. Do not change them."""
    cells, bulk = datasets.paired_cohort(n_donors=6, n_genes=120, n_cell_types=4, cells_per_donor=(30, 40), seed=2)
    for adata in (cells, bulk):
        adata.obs["donor"] = adata.obs["donor"].astype(object)
    names = dict(zip(cells.obs["cell_type"].cat.categories, TYPES, strict=True))
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(object).map(names)
    cells.obs["cluster"] = cells.obs["cell_type"]
    bulk.obs["batch"] = ["first", "second"] * (bulk.n_obs // 2)
    return cells, bulk


@pytest.fixture
def cells(inputs):
    return inputs[0].copy()


@pytest.fixture
def bulk(inputs):
    return inputs[1].copy()


@pytest.fixture
def mdata(inputs):
    return pp.pair(*inputs)


def profiles_of(mdata):
    return mdata["profiles"][:, :].copy()


def with_column(adata, column, old, new):
    """Return a copy in which half of the rows with a label have another one, or the row after a single row."""
    adata = adata.copy()
    labels = adata.obs[column].astype(object)
    rows = np.flatnonzero(labels == (labels.iloc[0] if old is None else old))
    labels.iloc[rows[: len(rows) // 2] if len(rows) > 1 else rows + 1] = new
    adata.obs[column] = labels
    return adata


def with_name(table, new):
    """Return a table with a column for a further type."""
    return table.assign(**{new: 0.0})


def pair_donors(cells, bulk, mdata, old, new):
    pp.pair(with_column(cells, "donor", old, new), bulk)


def pair_bulk_donors(cells, bulk, mdata, old, new):
    pp.pair(cells, with_column(bulk, "donor", old, new))


def pair_types(cells, bulk, mdata, old, new):
    pp.pair(with_column(cells, "cell_type", old, new), bulk)


def pair_fractions(cells, bulk, mdata, old, new):
    bulk.obsm["flow"] = with_name(mdata["bulk"].obsm["measured_fractions"], new)
    pp.pair(cells, bulk, fractions_key="flow")


def pair_probabilities(cells, bulk, mdata, old, new):
    table = pd.get_dummies(cells.obs["cell_type"]).astype(float)
    cells.obsm["p"] = with_name(table, new)
    pp.pair(cells, bulk, probabilities_key="p")


def pair_profiles(cells, bulk, mdata, old, new):
    profiles = profiles_of(mdata)
    profiles.obs["cell_type"] = [TYPES[0], new, *TYPES[2:]]
    pp.pair(bulk=bulk, profiles=profiles)


def pair_pseudobulk(cells, bulk, mdata, old, new):
    sums = mdata["pseudobulk"].copy()
    first, *others, _ = sums.obs["donor"]
    sums.obs["donor"] = [old or first, *others, new]
    pp.pair(bulk=bulk, profiles=profiles_of(mdata), pseudobulk=sums)


def train_signature(cells, bulk, mdata, old, new):
    signature = profiles_of(mdata)
    signature.obs["cell_type"] = [TYPES[0], new, *TYPES[2:]]
    tl.train(mdata, "nnls", signature=signature)


def train_after_changes(cells, bulk, mdata, old, new):
    mdata["bulk"].obs["donor"] = with_column(mdata["bulk"], "donor", old, new).obs["donor"]
    tl.train(mdata, "nnls")


def neural_setup(cells, bulk, mdata, old, new):
    models.SimpleDNN.setup_anndata(with_column(mdata["bulk"], "donor", old, new))


def neural_setup_types(cells, bulk, mdata, old, new):
    adata = mdata["bulk"].copy()
    adata.obsm["measured_fractions"] = with_name(adata.obsm["measured_fractions"], new)
    models.SimpleDNN.setup_anndata(adata)


def calibrate(cells, bulk, mdata, old, new):
    mdata["bulk"].obs["batch"] = with_column(bulk, "batch", "first", new).obs["batch"]
    pp.calibrate(mdata, batch_key="batch")


def cluster(cells, bulk, mdata, old, new):
    tl.cluster(with_column(cells, "donor", old, new), "scdeepcluster", batch_key="donor")


def setup_clustering(cells, bulk, mdata, old, new):
    clustering.DESC.setup_anndata(with_column(cells, "donor", old, new), batch_key="donor")


def setup_scgen(cells, bulk, mdata, old, new):
    adata = with_column(cells, "cell_type", old, new)
    clustering.ScGen.setup_anndata(adata, batch_key="donor", cell_type_key="cell_type")


def name_by_reference(cells, bulk, mdata, old, new):
    tl.name_clusters(cells, "cluster", reference=with_column(cells, "cell_type", old, new), key_added="name")


def name_by_markers(cells, bulk, mdata, old, new):
    genes = list(cells.var_names)
    markers = {TYPES[0]: genes[:5], TYPES[1]: genes[5:10], new: genes[10:15]}
    tl.name_clusters(cells, "cluster", markers=markers, key_added="name")


def name_clusters(cells, bulk, mdata, old, new):
    clusters = with_column(cells, "cluster", old, new)
    tl.name_clusters(clusters, "cluster", reference=cells, key_added="name")


def constrain_by_markers(cells, bulk, mdata, old, new):
    genes = list(cells.var_names)
    pp.constraints(cells, markers={TYPES[0]: genes[:5], TYPES[1]: genes[5:10], new: genes[10:15]})


def constrain_by_labels(cells, bulk, mdata, old, new):
    pp.constraints(with_column(cells, "cell_type", old, new), labels_key="cell_type")


def group_expression(cells, bulk, mdata, old, new):
    adata = mdata["bulk"].copy()
    adata.obsm["fractions"] = with_name(adata.obsm["measured_fractions"], new)
    tl.group_expression(adata)


DONORS, NAMES = "donors", "names"
# function, whether its labels are donors or batches, or names of cell types
ENTRIES = {
    pair_donors: DONORS,
    pair_bulk_donors: DONORS,
    pair_pseudobulk: DONORS,
    pair_types: NAMES,
    pair_fractions: NAMES,
    pair_probabilities: NAMES,
    pair_profiles: NAMES,
    train_signature: NAMES,
    train_after_changes: DONORS,
    neural_setup: DONORS,
    neural_setup_types: NAMES,
    calibrate: DONORS,
    cluster: DONORS,
    setup_clustering: DONORS,
    setup_scgen: NAMES,
    name_by_reference: NAMES,
    name_by_markers: NAMES,
    name_clusters: NAMES,
    constrain_by_markers: NAMES,
    constrain_by_labels: NAMES,
    group_expression: NAMES,
}
entries = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.__name__)
# NaN is a cell without label for these
WITHOUT_MISSING = {constrain_by_labels}


@entries
@pytest.mark.parametrize("word", ["nan", "NA", "None", "", ".", "-", " "])
def test_words_for_missing_labels_are_refused(entry, word, cells, bulk, mdata):
    if entry in WITHOUT_MISSING:
        entry(cells, bulk, mdata, None, word)
        return
    with pytest.raises(ValueError, match=r"Expected a (donor|batch|cell type|name|cluster) for every"):
        entry(cells, bulk, mdata, None, word)


@entries
@pytest.mark.parametrize(
    "change", [str.lower, lambda label: f"{label[0]}-{label[1:]}", lambda label: f"{label[0]} {label[1:]}"]
)
def test_two_spellings_of_a_label_are_refused(entry, change, cells, bulk, mdata):
    donor = bulk.obs["donor"].iloc[0]
    old = TYPES[0] if ENTRIES[entry] == NAMES else "first" if entry is calibrate else donor
    new = change(old) if change(old) != old else old.upper()
    with pytest.raises(ValueError, match="Expected one spelling of each") as caught:
        entry(cells, bulk, mdata, old, new)
    assert repr(old) in str(caught.value)


@pytest.mark.parametrize("entry", [entry for entry, kind in ENTRIES.items() if kind == NAMES], ids=lambda e: e.__name__)
@pytest.mark.parametrize("name", ["NK/T", "_index"])
def test_names_that_cannot_be_columns_are_refused(entry, name, cells, bulk, mdata):
    if entry in (setup_scgen, name_clusters, constrain_by_labels):
        # these labels do not become columns
        entry(cells, bulk, mdata, TYPES[0], name)
        return
    with pytest.raises(ValueError, match="without '/'|other than '_index'"):
        entry(cells, bulk, mdata, TYPES[0], name)


READS_LABELS = {"donor_key", "cell_type_key", "batch_key", "labels_key", "reference_key", "markers", "signature"}
# functions with one of these arguments, and the tests above that cover them
COVERED = {
    (pp, "pair"): pair_types,
    # internal: what pair calls
    (pp, "join"): pair_types,
    (pp, "calibrate"): calibrate,
    # internal: calibrate has checked the column
    (pp, "fit_calibration"): calibrate,
    (pp, "constraints"): constrain_by_labels,
    (pp, "read_markers"): constrain_by_markers,
    (pp, "use_signature"): train_signature,
    # tests/pp/test_combine_references.py
    (pp, "combine_references"): pair_types,
    (tl, "train"): train_signature,
    (tl, "cluster"): cluster,
    (tl, "name_clusters"): name_by_reference,
}


@pytest.mark.parametrize("module", [pp, tl])
def test_every_function_that_reads_labels_is_tested(module):
    functions = {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
    found = {
        (module, name)
        for name, function in functions.items()
        if inspect.isfunction(function) and READS_LABELS & set(inspect.signature(function).parameters)
    }
    assert found == {key for key in COVERED if key[0] is module}


def test_unused_categories_are_left_out_and_said(cells, bulk, capsys):
    for column in ("donor", "cell_type"):
        cells.obs[column] = cells.obs[column].astype("category").cat.add_categories(["nan", "Ghost"])
    mdata = pp.pair(cells, bulk)
    assert sorted(mdata["profiles"].obs_names) == sorted(TYPES)
    assert "2 types without cells left out: 'Ghost', 'nan'" in capsys.readouterr().out


def test_spaces_and_decimals_are_matched_and_said(cells, bulk, capsys):
    number = {donor: i for i, donor in enumerate(sorted({*cells.obs["donor"], *bulk.obs["donor"]}))}
    expected = pp.paired_donors(pp.pair(cells, bulk))
    cells.obs["donor"] = [float(number[donor]) for donor in cells.obs["donor"]]
    bulk.obs["donor"] = [f" {number[donor]}" for donor in bulk.obs["donor"]]
    cells = with_column(cells, "cell_type", TYPES[1], f"{TYPES[1]} ")
    capsys.readouterr()
    mdata = pp.pair(cells, bulk)
    assert pp.paired_donors(mdata) == sorted(str(number[donor]) for donor in expected)
    assert mdata["profiles"].n_obs == len(TYPES)
    printed = capsys.readouterr().out
    for note in (
        "donors of cells.obs['donor']: ",
        "donors of bulk.obs['donor']: ' ",
        f"'{TYPES[1]} ' read as '{TYPES[1]}'",
    ):
        assert note in printed
    train, held_out = pp.hold_out(mdata, [int(pp.paired_donors(mdata)[0])])
    assert held_out.n_obs == 1
    assert len(pp.paired_donors(train)) == len(expected) - 1


def test_unknown_is_a_type_but_no_donor(cells, bulk):
    assert "Unknown" in pp.pair(with_column(cells, "cell_type", TYPES[0], "Unknown"), bulk)["profiles"].obs_names
    with pytest.raises(ValueError, match=r"rows without donor \('unknown'\)"):
        pp.pair(cells, with_column(bulk, "donor", None, "unknown"))


def test_hold_out_lists_near_matches(mdata):
    donor = pp.paired_donors(mdata)[0]
    with pytest.raises(ValueError, match=f"Nearly matching: '{donor.lower()} = {donor}'"):
        pp.hold_out(mdata, [donor.lower()])
