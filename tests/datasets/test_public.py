from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rdata
import xarray as xr
from rdata.conversion import to_r
from rdata.parser import RObjectType

from scdeconv.datasets import (
    _demixsc,
    _fetch,
    _mixology,
    cell_line_mixtures,
    ovarian_pairs,
    retina_pairs,
    whole_blood_arrays,
)

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"prepared public data are not at {SHARED}")


def r_matrix(data, converter):
    """Build the R matrix with row and column names that R itself would save."""
    vector = converter.convert_to_r_object(np.asarray(data).ravel(order="F"))
    names = [data.coords[dimension].to_numpy().astype("U") for dimension in data.dims]
    attributes = converter.convert_to_r_attributes({"dim": np.array(data.shape, dtype=np.int32), "dimnames": names})
    return to_r.build_r_object(RObjectType(vector.info.type), value=vector.value, attributes=attributes)


def with_object_names(r_object):
    """Turn names of rows and columns into objects: rdata cannot write the text of pandas 3."""
    if isinstance(r_object, dict):
        return {name: with_object_names(item) for name, item in r_object.items()}
    if isinstance(r_object, pd.DataFrame):
        names = {"index": r_object.index.astype(object), "columns": r_object.columns.astype(object)}
        return pd.DataFrame(r_object.to_numpy(), **names)
    return r_object


def save_rda(path, r_object):
    constructors = {**to_r.DEFAULT_CLASS_MAP, xr.DataArray: r_matrix}
    rdata.write_rda(path, {path.stem: with_object_names(r_object)}, constructor_dict=constructors)
    return path


def matrix(values, rows, columns):
    return xr.DataArray(np.asarray(values), coords=[("row", rows), ("column", columns)])


@pytest.fixture
def retina_files(tmp_path):
    """Three samples in two batches, two cell types; genes differ in order and number, as in the original files."""
    samples = {1: ["Macular_A"], 2: ["Macular_B", "Macular_C"]}
    genes = {1: ["g1", "g2", "g3"], 2: ["g3", "g1", "g4"]}
    objects = {
        "ground_truth": matrix(
            [[0.2, 0.5, 0.9], [0.7, 0.5, 0.1]], ["Rod", "BC"], ["Macular_C", "Macular_B", "Macular_A"]
        )
    }
    for batch in (1, 2):
        values = np.arange(3 * len(samples[batch]), dtype=np.int32).reshape(3, -1) + 10 * batch
        objects[f"bulk_batch{batch}"] = matrix(values, genes[batch], samples[batch])
        objects[f"pseudobulk_batch{batch}"] = pd.DataFrame(values * 2, genes[batch], samples[batch])
        reference = matrix([[1.0, 0.0], [2.0, 4.0], [3.0, 6.5]] * np.array(batch), genes[batch], ["BC", "Rod"])
        objects[f"reference_batch{batch}"] = {"reference": reference, "cell.size": np.array([6.0, 10.5]) * batch}
    names = {name: f"retina_benchmark_{name}.rda" for name in objects}
    return {file: save_rda(tmp_path / file, objects[name]) for name, file in names.items()}


def test_retina_samples_are_aligned_by_name(retina_files):
    converted = _demixsc.convert_retina(retina_files)
    assert set(converted) == set(_demixsc._RETINA.prepared)
    bulk, pseudobulk = converted["bulk.h5ad"], converted["pseudobulk.h5ad"]
    assert bulk.var_names.tolist() == pseudobulk.var_names.tolist() == ["g1", "g3"]
    assert bulk.obs["donor"].tolist() == ["A", "B", "C"]
    assert bulk.obs["batch"].tolist() == ["batch1", "batch2", "batch2"]
    assert bulk.X.dtype == np.int32
    assert bulk.X.toarray().tolist() == [[10, 12], [22, 20], [23, 21]]
    assert pseudobulk.X.toarray().tolist() == [[20, 24], [44, 40], [46, 42]]
    expected = [[0.9, 0.1], [0.5, 0.5], [0.2 / 0.9, 0.7 / 0.9]]
    assert np.allclose(bulk.obsm["measured_fractions"][["Rod", "BC"]], expected)


def test_retina_profiles_are_means_over_batches(retina_files, monkeypatch):
    monkeypatch.setenv(_fetch.VARIABLE, str(retina_files["retina_benchmark_ground_truth.rda"].parent))
    bulk, profiles, pseudobulk = retina_pairs()
    assert profiles.obs["cell_type"].tolist() == list(bulk.obsm["measured_fractions"].columns) == ["Rod", "BC"]
    profile = profiles.to_df()[["g1", "g3"]]
    assert np.allclose(profile.loc["Rod"], [(0 + 2 * 4) / 2, (6.5 + 2 * 0) / 2])
    assert np.allclose(profile.loc["BC"], [(1 + 2 * 2) / 2, (3 + 2 * 1) / 2])
    assert np.allclose(profiles.obs["cell_size_umi"], [10.5 * 1.5, 6 * 1.5])
    assert pseudobulk.obs_names.equals(bulk.obs_names)


def test_samples_without_measured_fractions_are_reported(retina_files):
    truth = matrix([[0.2], [0.8]], ["Rod", "BC"], ["Macular_A"])
    save_rda(retina_files["retina_benchmark_ground_truth.rda"], truth)
    with pytest.raises(KeyError, match="found none of .'Macular_B', 'Macular_C'"):
        _demixsc.convert_retina(retina_files)


def test_ovarian_pairs_are_read_from_the_original_files(tmp_path, monkeypatch):
    bulk = pd.DataFrame([[5, 6], [7, 8], [9, 10]], ["g1", "g2", "g3"], ["X2251", "X2267"], dtype=np.int32)
    pseudobulk = matrix(np.array([[1.5, 2.0], [3.0, 4.0]]), ["g3", "g1"], ["2267", "2251"])
    truth = matrix([[30.0, 20.0], [70.0, 80.0]], ["T.cells", "B.cells"], ["2251", "2267"])
    reference = {"reference": matrix(np.array([[1.0, 2.0], [3.0, 4.0]]), ["g1", "g9"], ["B.cells", "T.cells"])}
    for name, r_object in {
        "bulk": bulk,
        "pseudobulk": pseudobulk,
        "ground_truth": truth,
        "reference": reference,
    }.items():
        save_rda(tmp_path / f"hgsc_benchmark_{name}.rda", r_object)
    monkeypatch.setenv(_fetch.VARIABLE, str(tmp_path))
    bulk, profiles, pseudobulk = ovarian_pairs()
    assert bulk.to_df().to_numpy().tolist() == [[5, 9], [6, 10]]
    assert pseudobulk.to_df().to_numpy().tolist() == [[4.0, 2.0], [3.0, 1.5]]
    assert bulk.obs["donor"].tolist() == ["2251", "2267"]
    assert np.allclose(bulk.obsm["measured_fractions"].loc["2267", ["B.cells", "T.cells"]], [0.8, 0.2])
    assert profiles.obs["cell_size_umi"].to_dict() == {"T.cells": 6.0, "B.cells": 4.0}


@pytest.fixture
def blood_files(tmp_path, monkeypatch):
    """Two arrays and their blood counts, with the samples in another order."""
    log2 = matrix([[3.0, 4.0], [5.0, 6.5], [7.0, 8.0]], ["g1", "g2", "g3"], ["B1_Stable", "B2_ACR"])
    names = ["Neutrophils", "Lymphocytes", "Monocytes", "Eosinophils", "Basophils"]
    counts = pd.DataFrame([[5.0, 3.0, 1.0, 1.0, 0.0], [60.0, 20.0, 10.0, 5.0, 5.0]], ["B2_ACR", "B1_Stable"], names)
    save_rda(tmp_path / "GSE20300.rda", log2)
    save_rda(tmp_path / "cellCounts.rda", counts)
    monkeypatch.setenv(_fetch.VARIABLE, str(tmp_path))
    return tmp_path, counts


def test_blood_counts_are_matched_by_sample(blood_files):
    bulk = whole_blood_arrays()
    assert bulk.obs["group"].tolist() == ["Stable", "ACR"]
    assert np.allclose(bulk.to_df().loc["B2_ACR"], [2**4, 2**6.5, 2**8])
    assert bulk.to_df("log2_as_published").loc["B1_Stable"].tolist() == [3, 5, 7]
    fractions = bulk.obsm["measured_fractions"]
    assert fractions.loc["B1_Stable"].tolist() == [0.6, 0.2, 0.1, 0.05, 0.05]
    assert fractions["Neutrophils"].tolist() == [0.6, 0.5]


def test_unnamed_blood_counts_are_in_array_order(blood_files):
    folder, counts = blood_files
    save_rda(folder / "cellCounts.rda", matrix(counts.to_numpy(), ["1", "2"], ["Neu", "Lymph", "Mono", "Eos", "Baso"]))
    fractions = whole_blood_arrays().obsm["measured_fractions"]
    assert fractions["Neutrophils"].to_dict() == {"B1_Stable": 0.5, "B2_ACR": 0.6}


@pytest.mark.parametrize("change", ["a sample", "a type"])
def test_other_blood_counts_are_refused(blood_files, change):
    folder, counts = blood_files
    other = counts.iloc[:1] if change == "a sample" else counts.drop(columns="Monocytes")
    save_rda(folder / "cellCounts.rda", other)
    with pytest.raises(ValueError, match=r"Expected the counts of Neutrophils.* of 2 samples in cellCounts.rda, found"):
        whole_blood_arrays()


def save_csv(path, table, *, header_of_rows=False):
    """Write a table the way of R's write.table, whose header has no name for the row names, or of write.csv."""
    text = table.to_csv(index_label="" if header_of_rows else None)
    with gzip.open(path, "wt") as file:
        file.write(text if header_of_rows else text.removeprefix(","))


@pytest.fixture
def mixology_files(tmp_path):
    rng = np.random.default_rng(0)
    genes = [f"ENSG{i:011d}" for i in range(6)]
    shared = {"poor_quality": "NO"}
    for number, name in enumerate(_mixology._CELLS + _mixology._CELL_MIXTURES + _mixology._RNA_MIXTURES):
        observations = [f"A{i}" for i in range(1, 5)]
        if name in _mixology._CELLS:
            lines, classes = ["H1975", "H2228", "HCC827", "H838"], ["SNG", "SNG", "SNG", "DBL"]
            metadata = pd.DataFrame({"cell_line_demuxlet": lines, "demuxlet_cls": classes}, observations)
        elif name in _mixology._CELL_MIXTURES:
            design = [[9, 0, 0], [3, 3, 3], [3, 3, 3], [np.nan] * 3]
            metadata = pd.DataFrame(design, observations, ["H1975", "H2228", "HCC827"]).assign(**shared)
            if name == "cellmix2":
                metadata.loc["A1", "poor_quality"] = "YES"
        else:
            design = [[1, 0, 0], [0.16, 0.68, 0.16], [0.33, 0.33, 0.33], [0, 0, 1]]
            metadata = pd.DataFrame(design, observations, ["H2228_prop", "H1975_prop", "HCC827_prop"])
        counts = pd.DataFrame(rng.integers(1, 9, (6, 4)), genes, observations).iloc[rng.permutation(6)[:5]]
        counts = pd.concat([counts, pd.DataFrame([[int(number == 0), 0, 0, 0]], ["ENSG_RARE"], observations)])
        save_csv(tmp_path / f"{name}.count.csv.gz", counts, header_of_rows=number % 2 == 0)
        save_csv(tmp_path / f"{name}.metadata.csv.gz", metadata.iloc[::-1], header_of_rows=number % 2 == 0)
    return tmp_path


def read(folder, name):
    return pd.read_csv(folder / f"{name}.count.csv.gz", index_col=0)


def test_mixology_cells_are_singlets_with_line_and_batch(mixology_files, monkeypatch):
    monkeypatch.setenv(_fetch.VARIABLE, str(mixology_files))
    cells, _ = cell_line_mixtures()
    assert cells.n_obs == 15
    assert set(cells.obs["cell_type"]) == {"H1975", "H2228", "HCC827"}
    assert cells.obs.loc["sc_dropseq:A2", ["cell_type", "donor"]].tolist() == ["H2228", "H2228@sc_dropseq"]
    assert "ENSG_RARE" not in cells.var_names
    original = read(mixology_files, "sc_dropseq")["A2"].reindex(cells.var_names, fill_value=0)
    assert cells["sc_dropseq:A2"].to_df().iloc[0].tolist() == original.tolist()


def test_mixology_sums_good_wells_of_each_design(mixology_files, monkeypatch):
    monkeypatch.setenv(_fetch.VARIABLE, str(mixology_files))
    _, bulk = cell_line_mixtures()
    name = "cellmix1|0.3333_0.3333_0.3333"
    assert bulk.obs.loc[name, ["n_wells", "kind", "donor"]].tolist() == [2, "cell mixture", "cellmix1"]
    original = read(mixology_files, "cellmix1")[["A2", "A3"]].sum(axis=1).reindex(bulk.var_names, fill_value=0)
    assert bulk[name].to_df().iloc[0].tolist() == original.tolist()
    assert "cellmix1|1.0_0.0_0.0" in bulk.obs_names
    assert "cellmix2|1.0_0.0_0.0" not in bulk.obs_names
    assert np.allclose(bulk.obsm["measured_fractions"].sum(axis=1), 1)


def test_mixology_swaps_h2228_and_hcc827(mixology_files, monkeypatch):
    monkeypatch.setenv(_fetch.VARIABLE, str(mixology_files))
    _, bulk = cell_line_mixtures()
    original = read(mixology_files, "RNAmix_celseq2")["A1"].reindex(bulk.var_names, fill_value=0)
    well = bulk["RNAmix_celseq2|0.0_0.0_1.0"]
    assert well.to_df().iloc[0].tolist() == original.tolist()
    assert well.obsm["fractions_as_published"].iloc[0].to_dict() == {"H1975": 0, "H2228": 1, "HCC827": 0}
    assert well.obsm["measured_fractions"].iloc[0].to_dict() == {"H1975": 0, "H2228": 0, "HCC827": 1}
    corrected = bulk.obs["labels_corrected"].to_numpy()
    assert np.array_equal(corrected, bulk.obs["kind"] == "RNA mixture")
    unchanged = bulk[~corrected].obsm
    assert unchanged["measured_fractions"].equals(unchanged["fractions_as_published"])


@needs_shared
def test_prepared_retina_pairs_match_the_publication(monkeypatch):
    monkeypatch.setenv(_fetch.VARIABLE, str(SHARED))
    bulk, profiles, pseudobulk = retina_pairs()
    assert bulk.n_obs in {14, 24}
    assert bulk.n_vars == 9054
    assert bulk.obs_names.equals(pseudobulk.obs_names)
    assert profiles.shape == (7, 11868)
    assert np.allclose(bulk.obsm["measured_fractions"].sum(axis=1), 1, atol=1e-6)
    sizes = profiles.obs["cell_size_umi"]
    assert sizes["Rod"] == pytest.approx((4521.779921 + 3781.884244) / 2, rel=1e-5)
    assert sizes.idxmax() == "RGC"


@needs_shared
def test_prepared_retina_subset_of_any_size_is_read(monkeypatch, tmp_path):
    monkeypatch.setenv(_fetch.VARIABLE, str(SHARED))
    whole, _, pseudobulk = retina_pairs()
    folder = tmp_path / "retina_paired"
    folder.mkdir()
    for batch in (1, 2):
        name = f"reference_means_batch{batch}.h5ad"
        (folder / name).symlink_to(SHARED / "retina_paired" / name)
    whole[:3].copy().write_h5ad(folder / "bulk.h5ad")
    pseudobulk[:3].copy().write_h5ad(folder / "pseudobulk.h5ad")
    monkeypatch.setenv(_fetch.VARIABLE, str(tmp_path))
    assert retina_pairs()[0].n_obs == 3


@needs_shared
def test_cell_line_mixtures_match_their_description(monkeypatch):
    monkeypatch.setenv(_fetch.VARIABLE, str(SHARED))
    cells, bulk = cell_line_mixtures()
    assert cells.n_obs == 1021
    assert set(cells.obs["cell_type"]) == {"H1975", "H2228", "HCC827", "A549", "H838"}
    assert bulk.n_obs >= 136
    assert list(bulk.obsm["measured_fractions"].columns) == ["H1975", "H2228", "HCC827"]


@needs_shared
def test_whole_blood_arrays_match_their_description(monkeypatch):
    monkeypatch.setenv(_fetch.VARIABLE, str(SHARED))
    bulk = whole_blood_arrays()
    assert bulk.shape == (24, 12593)
    assert bulk.obs["group"].value_counts().to_dict() == {"ACR": 15, "Stable": 9}
    assert np.allclose(bulk.obsm["measured_fractions"].sum(axis=1), 1, atol=1e-6)
    assert np.allclose(np.log2(bulk.X), bulk.layers["log2_as_published"], atol=1e-4)


@needs_shared
def test_missing_ovarian_data_error_names_the_path(monkeypatch):
    monkeypatch.setenv(_fetch.VARIABLE, str(SHARED))
    if (SHARED / "ovarian_paired").exists():
        pytest.skip("ovarian data are there")
    with pytest.raises(FileNotFoundError, match="ovarian_paired/bulk.h5ad.*hgsc_benchmark_bulk.rda"):
        ovarian_pairs()
