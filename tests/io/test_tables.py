"""Text and Excel tables: what every reader understands and refuses."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile

import numpy as np
import pandas as pd
import pytest

from scdeconv import pp, read_bulk
from scdeconv.io import read_fractions, read_sheet

GENES = ["ACTB", "CD3E", "CD19", "GAPDH", "MS4A1", "LYZ", "NKG7", "B2M"]
COLUMNS = ["alpha", "beta", "gamma"]
TABLE = pd.DataFrame(np.random.default_rng(0).integers(30, 900, (8, 3)), GENES, COLUMNS)


def renamed(path):
    """Rename the genes 'alpha' … by the table and return the old and new names."""
    pd.DataFrame({"gene": GENES, "S1": 1}).to_csv(path.parent / "other.csv", index=False)
    names = read_bulk(path.parent / "other.csv", gene_names=path).var_names
    return pd.DataFrame({"alpha": list(names)}, GENES)


READERS = {
    "read_bulk": lambda path: read_bulk(path).to_df().T,
    "read_signature": lambda path: pp.read_signature(path).to_df().T,
    "read_fractions": read_fractions,
    "read_sheet": lambda path: read_sheet(path).astype(int),
    "gene_names": renamed,
}


@pytest.fixture(params=READERS)
def reader(request):
    return READERS[request.param]


def same(found, expected=TABLE):
    expected = expected[found.columns] if len(found.columns) < expected.shape[1] else expected
    found = found.astype(expected.dtypes.iloc[0])
    pd.testing.assert_frame_equal(found, expected, check_names=False, check_index_type=False, check_column_type=False)


def text(table=TABLE, **options):
    return table.to_csv(**{"index_label": "gene", **options})


def workbook(table=TABLE, *others):
    content = io.BytesIO()
    with pd.ExcelWriter(content) as writer:
        for number, sheet in enumerate((table, *others)):
            sheet.to_excel(writer, sheet_name=f"sheet {number}", index_label="gene")
    return content.getvalue()


def zipped(**files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, inner in files.items():
            archive.writestr(name, inner)
    return content.getvalue()


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


CSV = text()
LEGITIMATE = {
    "gz": gzip.compress(CSV.encode()),
    "bz2": bz2.compress(CSV.encode()),
    "xz": lzma.compress(CSV.encode()),
    "zip": zipped(table=CSV),
    "xlsx": workbook(),
    "UTF-8 with mark and CRLF": ("\ufeff" + CSV).replace("\n", "\r\n"),
    "UTF-16": CSV.encode("utf-16"),
    "UTF-16 without mark": CSV.encode("utf-16-le"),
    "old Mac": CSV.replace("\n", "\r"),
    "tabs": text(sep="\t"),
    "semicolons": text(sep=";"),
    "separator for Excel": "sep=;\n" + text(sep=";"),
    "bars": text(sep="|"),
    "aligned": TABLE.to_string(),
    "quotes": text(quoting=1),
    "comments": "# a, b\n# c\n" + CSV,
    "separator at line ends": CSV.replace("\n", ",\n"),
    "empty rows": CSV + ",,,\n\n",
    "row names of R": "".join(f"{line}\n" for line in ("alpha,beta,gamma", *CSV.splitlines()[1:])),
    "GCT": "#1.2\n8\t3\n" + text(sep="\t"),
    "GEO": '!title\t"x"\n!series_matrix_table_begin\n' + text(sep="\t") + "!series_matrix_table_end\n",
    "Excel row numbers": TABLE.rename_axis("gene").reset_index().to_csv(),
}


@pytest.mark.parametrize("kind", LEGITIMATE)
def test_readers_understand_every_form(reader, tmp_path, kind):
    found = reader(write(tmp_path / "table.csv", LEGITIMATE[kind]))
    if reader is renamed:
        assert found["alpha"].tolist() == TABLE["alpha"].astype(str).tolist()
    else:
        same(found)


REFUSED = {
    "old Excel": (b"\xd0\xcf\x11\xe0" + bytes(600), r"an Excel file of before 2007 .*Save it as \.xlsx"),
    "R data": (gzip.compress(b"X\n\x00\x00"), r"R data .*write\.csv"),
    "web page": ("<!DOCTYPE html><html></html>", "a web page"),
    "tar": (gzip.compress(bytes(257) + b"ustar" + bytes(300)), "a tar archive.*Unpack"),
    "two files": (zipped(a=CSV, b=CSV), "2 files in a zip archive: 'a', 'b'"),
    "two sheets": (workbook(TABLE, TABLE), "2 sheets with content: 'sheet 0', 'sheet 1'"),
    "no workbook": (zipped(**{"[Content_Types].xml": "x"}), "no readable Excel workbook"),
    "bytes": (bytes(range(256)), "other bytes than text"),
    "cut": (gzip.compress(CSV.encode())[:40], "a damaged file"),
    "cut UTF-16": (b"\xff\xfe" + b"\x00\xd8" * 3 + b"x", "damaged text"),
    "LFS": ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "sparse": ("%%MatrixMarket matrix\n1 1 1\n", "MatrixMarket"),
    "empty": ("", "0 lines"),
    "uneven": (CSV + "x,1\n", r"4 fields in every line .*'line 10 \(2\)'"),
    "title": ("Table S1\n" + CSV, "one field in the first line .'Table S1'. over rows of 4"),
    "one name too many": ("gene,alpha,beta,gamma,delta\n" + text(header=False), "one name too many"),
    "GCT with annotation": ("#1.3\n8\t3\t0\t1\n" + text(sep="\t"), r"GCT without rows of sample annotation"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_readers_say_what_they_found(reader, tmp_path, kind):
    content, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message) as caught:
        reader(write(tmp_path / "table.csv", content))
    assert "table.csv" in str(caught.value)


def test_readers_name_missing_files(reader, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.csv|other"):
        reader(tmp_path / "absent.csv")


@pytest.mark.parametrize("name", ["read_bulk", "read_signature", "read_fractions"])
@pytest.mark.parametrize(
    ("content", "factor"),
    [
        (text(TABLE * 1.337, sep=";", decimal=","), 1.337),
        (text(TABLE * 1.337, sep="\t", decimal=","), 1.337),
        (text((TABLE * 1937).map("{:,}".format)), 1937),
        (text((TABLE * 1937).map("{:,}".format), sep="\t"), 1937),
        (text((TABLE * 1937).map(lambda value: f"{value:,}".replace(",", "."))), 1937),
        (text((TABLE * 37).map(lambda value: f"{value:,}".replace(",", " "))), 37),
    ],
)
def test_numbers_of_other_countries_are_read(tmp_path, name, content, factor):
    if "." in content and factor == 1937:
        content = content.replace(",", ";")
    found = READERS[name](write(tmp_path / "table.csv", content))
    np.testing.assert_allclose(found, TABLE * factor, rtol=1e-6)


GROUPS = pd.DataFrame({"alpha": ["1,210", "350", "12,345"], "beta": ["7", "1,100", "2,250"]}, GENES[:3])
UNCLEAR = {
    "commas": text(GROUPS, sep="\t"),
    "points": text(GROUPS.replace(",", ".", regex=True), sep="\t"),
    "commas in one column": text((TABLE * 1937).map("{:,}".format).assign(beta=TABLE["beta"] * 1937)),
}


@pytest.mark.parametrize("name", ["read_bulk", "read_signature", "read_fractions"])
@pytest.mark.parametrize("kind", UNCLEAR)
def test_numbers_with_two_readings_are_refused(tmp_path, name, kind):
    with pytest.raises(ValueError, match="(one way|one notation).*thousands") as caught:
        READERS[name](write(tmp_path / "table.csv", UNCLEAR[kind]))
    assert "table.csv" in str(caught.value)


@pytest.mark.parametrize("name", ["read_bulk", "read_signature", "read_fractions"])
@pytest.mark.parametrize("mark", ["ND", "WT", "<5", "12%", "1;2"])
def test_words_among_numbers_are_refused(tmp_path, name, mark):
    table = TABLE.astype(object)
    table.iloc[2:6, 1] = mark
    with pytest.raises(ValueError, match=rf"4 other fields: '{mark} \(line 4, row CD19, column beta\).*'beta'"):
        READERS[name](write(tmp_path / "table.csv", text(table)))


@pytest.mark.parametrize("name", ["read_bulk", "read_signature", "read_fractions", "read_sheet"])
def test_columns_without_name_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="Expected a name for every column"):
        READERS[name](write(tmp_path / "table.csv", CSV.replace("beta", "")))


@pytest.mark.parametrize("name", ["read_bulk", "read_signature", "read_fractions", "read_sheet"])
def test_repeated_columns_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="unique .*'alpha'"):
        READERS[name](write(tmp_path / "table.csv", CSV.replace("beta", "alpha")))


def test_fractions_leave_out_statistics_and_totals(tmp_path, capsys):
    table = pd.DataFrame({"B": [0.25, np.nan], "T": [0.75, np.nan]}, ["007", "S2"])
    path = write(tmp_path / "f.txt", table.assign(Total=1, **{"P-value": 0, "RMSE": 1, "donor": "x"}).to_csv(sep="\t"))
    pd.testing.assert_frame_equal(read_fractions(path), table)
    assert "'Total', 'P-value', 'RMSE' and 1 more left out" in capsys.readouterr().out


def test_sheets_keep_text_as_it_is(tmp_path):
    found = read_sheet(write(tmp_path / "s.csv", "sample;donor;age\n007;001;NA\nS2;1.0;34\n"))
    assert found.index.tolist() == ["007", "S2"]
    assert found["donor"].tolist() == ["001", "1.0"]
    assert found["age"].isna().tolist() == [True, False]


def test_quotes_in_descriptions_are_text(tmp_path):
    table = TABLE.assign(description=['the 5" end', 'a\n"b"', *["x"] * 6])
    same(read_bulk(write(tmp_path / "a.csv", text(table))).to_df().T)
    lines = text(TABLE.assign(description="x"), sep="\t").replace("\tx", '\tthe 5" end')
    assert read_bulk(write(tmp_path / "b.tsv", lines)).var["description"].tolist() == ['the 5" end'] * 8


def test_latin_1_is_read_and_said(tmp_path, capsys):
    path = write(tmp_path / "a.csv", CSV.replace("alpha", "Müller").encode("latin-1"))
    assert read_bulk(path).obs_names[0] == "Müller"
    assert "text read as Windows-1252" in capsys.readouterr().out


def test_time_is_linear_in_columns(tmp_path):
    # one regular expression per pair of columns took a minute
    values = np.random.default_rng(0).poisson(9, (3, 6000))
    wide = pd.DataFrame(values, ["a", "b", "c"], [f"G{i}" for i in range(6000)])
    assert read_bulk(write(tmp_path / "wide.csv", wide.to_csv(index_label="sample"))).shape == (3, 6000)
