from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import pp
from scdeconv._data.reference import Reference

TYPES = ["B cells", "T cells, CD4", "Mono"]


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    values = rng.gamma(0.5, 300, (12, 3)).round(3)
    return pd.DataFrame(values, index=[f"GENE{i}" for i in range(12)], columns=TYPES)


def write(path, table, **options):
    table.to_csv(path, **options)
    return path


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", ["signature.txt", "signature.csv.gz"])
def test_table_is_read_in_every_form(table, tmp_path, separator, transposed, name):
    path = write(tmp_path / name, table.T if transposed else table, sep=separator, index_label="Gene symbol")
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == name.endswith("gz")
    signature = pp.read_signature(path)
    pd.testing.assert_frame_equal(signature.to_df().T, table, check_names=False)
    assert signature.obs["cell_type"].tolist() == TYPES
    assert signature.obs["cell_size_umi"].tolist() == signature.obs["total"].tolist() == [1e6] * 3
    record = signature.uns["scdeconv"]["signature"]
    assert record.pop("condition_number") == pytest.approx(np.linalg.cond(table))
    assert record == {"criterion": "file", "file": name, "cell_sizes": False, "n_genes": 12}


def test_r_excel_and_windows_layouts_are_read(table, tmp_path):
    expected = table.rename(columns={"T cells, CD4": "T"})
    body = "".join(f'"{gene}" , {row.iloc[0]},{row.iloc[1]},{row.iloc[2]}\r\n' for gene, row in expected.iterrows())
    path = tmp_path / "signature.csv"
    # write.table omits the corner cell, Excel adds a byte order mark and empty rows
    path.write_bytes(("\ufeff" + '"B cells","T","Mono"\r\n' + body + ",,,\r\n\r\n").encode())
    pd.testing.assert_frame_equal(pp.read_signature(path).to_df().T, expected, check_names=False)


def test_cell_sizes_turn_tpm_into_counts_per_cell(table, tmp_path):
    path = write(tmp_path / "signature.csv", table)
    sizes = {"Mono": 9000, "B cells": 4000, "T cells, CD4": 3000, "NK": 2000}
    plain, sized = pp.read_signature(path), pp.read_signature(path, cell_sizes=sizes)
    assert sized.obs["cell_size_umi"].tolist() == sized.obs["total"].tolist() == [4000, 3000, 9000]
    np.testing.assert_allclose(sized.X, table.T.to_numpy() * np.array([[4e3], [3e3], [9e3]]) / 1e6)
    records = [adata.uns["scdeconv"]["signature"] for adata in (plain, sized)]
    assert records[1]["cell_sizes"] is True
    assert records[0]["condition_number"] == pytest.approx(records[1]["condition_number"])
    pd.testing.assert_frame_equal(plain.var, sized.var)


@pytest.mark.filterwarnings("ignore:The condition number")
def test_markers_use_the_unit_of_the_file(tmp_path):
    # GENE0 dominates B: as a share of these genes, no other gene would be its marker
    table = pd.DataFrame(
        {"B": [1e5, 400, 10, 10], "T": [10, 100, 400, 10], "M": [10, 100, 10, 800]},
        index=[f"GENE{i}" for i in range(4)],
    )
    signature = pp.read_signature(write(tmp_path / "signature.csv", table))
    assert signature.var["marker_of"].tolist() == ["B", "B", "T", "M"]
    # up to the pseudo-count, a tenth of the mean share
    assert signature.var["score"].between(0, np.log2([1e4, 4, 40, 80])).all()


def test_written_signature_can_be_read_back(make_inputs, tmp_path):
    signature = pp.signature(pp.pair(*make_inputs()), 15)
    size = signature.obs["cell_size_umi"]
    tpm = (signature.to_df().div(size, axis=0) * 1e6).T
    read = pp.read_signature(write(tmp_path / "s.tsv", tpm, sep="\t"), cell_sizes=size)
    np.testing.assert_allclose(read.X, signature.X, rtol=1e-12)
    records = [adata.uns["scdeconv"]["signature"]["condition_number"] for adata in (signature, read)]
    assert records[0] == pytest.approx(records[1])


def test_signature_can_be_paired(table, tmp_path):
    signature = pp.read_signature(write(tmp_path / "signature.csv", table))
    bulk = AnnData(np.random.default_rng(0).poisson(300, (4, 12)), var=pd.DataFrame(index=table.index))
    with pytest.warns(UserWarning, match="no donor is paired|at least 3 paired donors"):
        mdata = pp.pair(bulk=bulk, profiles=signature)
    np.testing.assert_allclose(Reference(mdata, table.index).profiles()[0], table.T.to_numpy())


def test_ensembl_versions_are_removed(table, tmp_path):
    table.index = [f"ENSG00000{i:06d}.{i}" for i in range(12)]
    signature = pp.read_signature(write(tmp_path / "signature.csv", table))
    assert signature.var_names[3] == "ENSG00000000003"


def test_rna_fractions_are_not_treated_as_logs(table, tmp_path):
    shares = table / table.to_numpy().sum()
    np.testing.assert_allclose(pp.read_signature(write(tmp_path / "s.csv", shares)).X, shares.T.to_numpy())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.rename({"GENE3": "GENE0"}), "unique gene names in the signature, found 1 repeated: 'GENE0'"),
        (lambda t: t.set_axis(["B", "T", "B"], axis=1), "unique cell types in the signature, found 1 repeated: 'B'"),
        (lambda t: t.set_axis(["B", "NK/T", "M"], axis=1), "cell-type names without '/' in the signature, found 1"),
        (
            lambda t: t.assign(Mono=["ND", *t["Mono"][1:]]),
            "found 1 other fields: 'ND .line 2, row GENE0, column Mono.'",
        ),
        (lambda t: t - 100, "Expected non-negative values in the signature"),
        (lambda t: np.log2(t + 1), "Expected values on a linear scale in the signature, found log-transformed"),
        (lambda t: t.where(t < t.to_numpy().max()), "Expected finite values in the signature, found 1 NaN"),
        (lambda t: t.assign(Mono=0), "rows of zeros: 'Mono'"),
        (lambda t: t.iloc[:1], "at least 2 genes and 2 cell types with their names .*found 3 genes and 1 cell types"),
        (lambda t: t.iloc[:, :0], "columns of numbers .*found none.* Separate the columns by tabs"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*names are not unique")
def test_file_problems_are_reported(table, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        pp.read_signature(write(tmp_path / "bad.csv", change(table), sep="\t"))


@pytest.mark.filterwarnings("ignore:.*names are not unique")
def test_all_problems_are_reported_at_once(table, tmp_path):
    table = table.rename({"GENE3": "GENE0"}).rename(columns={"Mono": "Mono/Mac"}) - 100
    with pytest.raises(ValueError, match=r"bad\.csv cannot be read as a signature: 4 problems") as caught:
        pp.read_signature(write(tmp_path / "bad.csv", table), cell_sizes={"B cells": 1, "T cells, CD4": 0})
    for part in (
        "'GENE0'",
        "'/'",
        "non-negative",
        "cell size of every type, found none for 'T cells, CD4', 'Mono/Mac'",
    ):
        assert part in str(caught.value)


def test_ragged_rows_and_binary_files_are_refused(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("gene,B,T\nCD19,40,0\nCD3E,1\nCD8A,1,2,3\n")
    with pytest.raises(
        ValueError,
        match=r"Expected 3 fields in every line .* 2 lines with another number: 'line 3 \(2\)', 'line 4 \(4\)'",
    ):
        pp.read_signature(path)
    path.write_bytes(b"PK\x03\x04\xff\xfe\xff")
    with pytest.raises(ValueError, match="Expected a text table"):
        pp.read_signature(path)
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(ValueError, match="found 0 lines"):
        pp.read_signature(path)
    with pytest.raises(FileNotFoundError):
        pp.read_signature(tmp_path / "nothing.csv")
