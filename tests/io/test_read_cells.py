from __future__ import annotations

import gzip
import shutil

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.io import mmwrite

import scdeconv
from scdeconv.io import read_cells

N_CELLS, GENES = 6, ["ACTB", "CD3E", "CD19", "TBCE", "TBCE", "CD8_antibody"]
BARCODES = [f"AAAC{i}-1" for i in range(N_CELLS)]
KINDS = ["Gene Expression"] * 5 + ["Antibody Capture"]
IDENTIFIERS = [f"ENSG{i:011d}" for i in range(len(GENES))]


@pytest.fixture(scope="module")
def counts():
    return np.random.default_rng(0).poisson(2, (N_CELLS, len(GENES)))


@pytest.fixture
def expected(counts):
    """Cells × genes: the repeated symbol is summed, the antibody left out."""
    table = pd.DataFrame(counts[:, :4].copy(), BARCODES, GENES[:4])
    table["TBCE"] += counts[:, 4]
    return table


def write_folder(folder, counts, *, features="features.tsv", columns=3, prefix="", zipped=True, transposed=False):
    folder.mkdir()
    matrix = sp.coo_matrix(counts if transposed else counts.T)
    mmwrite(folder / f"{prefix}matrix.mtx", matrix)
    table = pd.DataFrame({0: IDENTIFIERS, 1: GENES, 2: KINDS}).iloc[:, :columns]
    table.to_csv(folder / f"{prefix}{features}", sep="\t", header=False, index=False)
    (folder / f"{prefix}barcodes.tsv").write_text("\n".join(BARCODES) + "\n")
    for path in list(folder.iterdir()) if zipped else ():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return folder


def write_h5(path, counts):
    matrix = sp.csc_matrix(counts.T)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = matrix.shape
        group["barcodes"] = np.array(BARCODES, dtype="S")
        features = group.create_group("features")
        names = {"id": IDENTIFIERS, "name": GENES, "feature_type": KINDS, "genome": ["GRCh38"] * len(GENES)}
        for name, values in names.items():
            features[name] = np.array(values, dtype="S")
    return path


def write_loom(path, counts, cell_name="CellID"):
    with h5py.File(path, "w") as file:
        file["matrix"] = counts[:, :5].T
        file["row_attrs/Gene"] = np.array(GENES[:5], dtype="S")
        file[f"col_attrs/{cell_name}"] = np.array(BARCODES, dtype="S")
        file["col_attrs/plate"] = np.arange(N_CELLS)
    return path


def assert_holds(cells, expected):
    pd.testing.assert_frame_equal(cells.to_df().astype(int), expected, check_names=False)
    assert sp.issparse(cells.X)


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"zipped": False},
        {"features": "genes.tsv", "columns": 2, "zipped": False},
        {"prefix": "GSM1_"},
        {"transposed": True, "columns": 3},
    ],
    ids=["version 3", "STARsolo", "version 2", "GEO", "cells in rows"],
)
def test_matrix_market_folders_are_read(layout, counts, expected, tmp_path, capsys):
    if layout.get("transposed"):
        counts = counts[:5]
        expected = expected.iloc[:5]
        folder = write_folder(tmp_path / "10x", counts, **layout)
        names = gzip.compress("\n".join(BARCODES[:5]).encode())
        (folder / "barcodes.tsv.gz").write_bytes(names)
    else:
        folder = write_folder(tmp_path / "10x", counts, **layout)
    cells = read_cells(folder)
    said = capsys.readouterr().out
    assert said.startswith("read_cells: MatrixMarket")
    if layout.get("columns") == 2:
        # version 2 has no kinds of features
        cells = cells[:, expected.columns].copy()
    else:
        assert "1 features left out ('Antibody Capture')" in said
    assert "2 genes with duplicate names summed to 1" in said
    assert_holds(cells, expected)
    assert list(cells.var["gene_ids"]) == IDENTIFIERS[:4]


def test_h5_of_10x_is_read(counts, expected, tmp_path, capsys):
    cells = read_cells(write_h5(tmp_path / "filtered.h5", counts))
    assert "1 features left out ('Antibody Capture')" in capsys.readouterr().out
    assert_holds(cells, expected)


def test_loom_is_read(counts, expected, tmp_path):
    cells = read_cells(write_loom(tmp_path / "cells.loom", counts))
    assert_holds(cells, expected)
    assert list(cells.obs["plate"]) == list(range(N_CELLS))


@pytest.mark.parametrize("turned", [False, True])
def test_annotation_decides_the_orientation(turned, tmp_path):
    # more cells than genes, and no known gene names
    table = pd.DataFrame(np.arange(60).reshape(20, 3), [f"{i:03d}" for i in range(20)], ["g1", "g2", "g3"])
    (table.T if turned else table).to_csv(tmp_path / "counts.tsv", sep="\t")
    annotation = pd.DataFrame({"donor": "001", "cell_type": "T"}, table.index.rename("cell"))
    annotation.to_csv(tmp_path / "cells.csv")
    cells = read_cells(tmp_path / "counts.tsv", cell_annotation=tmp_path / "cells.csv")
    pd.testing.assert_frame_equal(cells.to_df().astype(int), table, check_names=False)
    assert set(cells.obs["donor"]) == {"001"}


def test_unclear_orientation_is_refused(tmp_path):
    table = pd.DataFrame(np.arange(60).reshape(20, 3), [f"c{i}" for i in range(20)], ["g1", "g2", "g3"])
    table.to_csv(tmp_path / "counts.csv", index_label="name")
    with pytest.raises(ValueError, match="Pass genes_in='rows' or 'columns'"):
        read_cells(tmp_path / "counts.csv")
    table.to_csv(tmp_path / "counts.csv", index_label="cell")
    assert read_cells(tmp_path / "counts.csv").shape == (20, 3)


def test_orientation_may_be_given(tmp_path):
    table = pd.DataFrame(np.arange(60).reshape(20, 3), [f"c{i}" for i in range(20)], ["g1", "g2", "g3"])
    table.to_csv(tmp_path / "counts.csv")
    assert read_cells(tmp_path / "counts.csv", genes_in="columns").shape == (20, 3)


def test_annotation_adds_donors_of_known_cells(counts, tmp_path, capsys):
    folder = write_folder(tmp_path / "10x", counts)
    names = [*BARCODES[:4], "another"]
    table = pd.DataFrame({"donor": ["101", "001", "1.0", "1", "9"], "cell_type": "T"}, pd.Index(names, name="cell"))
    table.to_csv(tmp_path / "cells.tsv", sep="\t")
    cells = read_cells(folder, cell_annotation=tmp_path / "cells.tsv")
    assert list(cells.obs_names) == BARCODES[:4]
    # names are text, as written
    assert list(cells.obs["donor"]) == ["101", "001", "1.0", "1"]
    said = capsys.readouterr().out
    assert "2 cells without annotation left out" in said
    assert "1 rows of cells.tsv are of other cells" in said


def test_annotation_is_joined_to_h5ad(cohort, tmp_path):
    cells, _ = cohort
    cells.write_h5ad(tmp_path / "cells.h5ad")
    pd.DataFrame({"donor": "x"}, cells.obs_names.rename("cell")).to_csv(tmp_path / "cells.csv")
    read = read_cells(tmp_path / "cells.h5ad", cell_annotation=tmp_path / "cells.csv")
    assert set(read.obs["donor"]) == {"x"}
    assert list(read.obs["cell_type"]) == list(cells.obs["cell_type"])
    assert "donor" in anndata.read_h5ad(tmp_path / "cells.h5ad").obs


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cell,donor\nx1,A\nx2,B\n", "Expected names of cells in the first column"),
        (f"cell,donor\n{BARCODES[0]},A\n{BARCODES[0]},B\n", "1 cells repeated"),
    ],
)
def test_annotation_of_other_cells_is_refused(content, message, counts, tmp_path):
    folder = write_folder(tmp_path / "10x", counts)
    (tmp_path / "cells.csv").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_cells(folder, cell_annotation=tmp_path / "cells.csv")
    assert "cells.csv" in str(caught.value)
    assert str(folder) in str(caught.value)


def break_shape(folder):
    (folder / "barcodes.tsv.gz").write_bytes(gzip.compress(b"only-one\n"))


def cut_matrix(folder):
    path = folder / "matrix.mtx.gz"
    path.write_bytes(path.read_bytes()[:40])


def remove_features(folder):
    (folder / "features.tsv.gz").unlink()


def repeat_barcode(folder):
    (folder / "barcodes.tsv.gz").write_bytes(gzip.compress("\n".join([BARCODES[0]] * N_CELLS).encode()))


def add_matrix(folder):
    shutil.copy(folder / "matrix.mtx.gz", folder / "other_matrix.mtx.gz")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_shape, r"Expected 6 features .* × 1 cells"),
        (cut_matrix, "Expected a MatrixMarket file in .*matrix.mtx.gz"),
        (remove_features, r"Expected features.tsv or genes.tsv \(also .gz\) beside"),
        (repeat_barcode, "Expected unique names of cells .* found 1 repeated"),
        (add_matrix, "Expected one MatrixMarket file .* found 2"),
    ],
)
def test_damaged_folders_are_refused(damage, message, counts, tmp_path):
    folder = write_folder(tmp_path / "10x", counts)
    damage(folder)
    with pytest.raises((ValueError, OSError), match=message):
        read_cells(folder)


def test_unknown_and_damaged_files_are_named(counts, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("cells.h5", "cells.loom", "cells.h5ad", "cells.rds"):
        (tmp_path / name).write_bytes(b"no cells")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["X"] = [1]
    write_loom(tmp_path / "unnamed.loom", counts, cell_name="barcode")
    half = write_h5(tmp_path / "half.h5", counts)
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    for path in tmp_path.iterdir():
        with pytest.raises((ValueError, OSError), match="Expected") as caught:
            read_cells(path)
        assert str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError, match="found no file"):
        read_cells(tmp_path / "absent.h5ad")


def test_reader_is_public():
    assert scdeconv.read_cells is read_cells
