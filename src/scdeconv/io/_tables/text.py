"""Content of a table file as lines of text: compression, encodings and Excel workbooks."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING

import pandas as pd

from scdeconv._data.checks import Problems, examples

if TYPE_CHECKING:
    from pathlib import Path

DECOMPRESS = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ\x00": lzma.decompress}
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
# first bytes of files that are no tables, with the way out
OTHER_FILES = {
    b"\x89HDF": ("an HDF5 file", "Name it .h5ad if it contains AnnData."),
    b"\xd0\xcf\x11\xe0": ("an Excel file of before 2007 (.xls)", "Save it as .xlsx or CSV."),
    b"PAR1": ("a Parquet file", "Export it as CSV, for example with pandas."),
    b"ARROW1": ("a Feather file", "Export it as CSV, for example with pandas."),
    b"\x28\xb5\x2f\xfd": ("a file compressed with Zstandard", "Decompress it first."),
    b"7z\xbc\xaf": ("a 7-Zip archive", "Unpack it first."),
    b"%PDF": ("a PDF", "Export the table as CSV."),
    b"RDX": ("R data", "Call write.csv() in R."),
    b"X\n\x00": ("R data (.rds)", "Call write.csv() in R."),
    b"A\n": ("R data (.rds)", "Call write.csv() in R."),
    b"\x93NUMPY": ("a NumPy array without names", "Export a table with names as CSV."),
    b"\x80\x04": ("a Python pickle", "Export the table as CSV."),
    b"%%MatrixMarket": ("a sparse matrix without names (MatrixMarket)", "Read it with scanpy.read_10x_mtx."),
    b"version https://git-lfs": ("a pointer of Git LFS instead of the file", "Run git lfs pull."),
    b"<": ("a web page (HTML or XML)", "Download the file itself."),
    b"{": ("JSON", "Export the table as CSV."),
}
BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
# minimum share of zeros in every second byte of UTF-16 without byte order mark (set by hand)
MIN_ZERO_SHARE = 0.4
CONTROL = re.compile(r"[\x00-\x08\x0e-\x19\x1c-\x1f]")


@dataclass
class Text:
    """Lines of a table file; ``separator`` is None if it is not known."""

    lines: list[str]
    separator: str | None = None
    notes: list[str] = field(default_factory=list)


class UnreadableError(Exception):
    """The file is no table: what was found, and what to do."""


def read_text(path: Path, problems: Problems) -> Text | None:
    """Refuse a file that is neither a text table (plain, gz, bz2, xz or zip) nor an Excel workbook with one table."""
    try:
        return text_of(path.read_bytes())
    except FileNotFoundError:
        msg = f"Expected a table at {path}, found no file. Check the path."
        raise FileNotFoundError(msg) from None
    except UnreadableError as error:
        found, way_out = error.args
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        found, way_out = f"a damaged file ({error})", "Export it as CSV again."
    problems.add(f"Expected a text table (CSV or TSV) or an Excel workbook (.xlsx) in {path}, found {found}. {way_out}")
    return None


def text_of(content: bytes) -> Text:
    """Return the lines of a plain or compressed text or of an Excel workbook."""
    for start, decompress in DECOMPRESS.items():
        if content.startswith(start):
            return text_of(decompress(content))
    if content.startswith(ZIP):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
            if "[Content_Types].xml" in names:
                return excel_text(content)
            if len(names) != 1:
                found = f"{len(names)} files in a zip archive: {examples(names)}"
                raise UnreadableError(found, "Unpack it and pass the files.")
            return text_of(archive.read(names[0]))
    start = content[:100].lstrip()
    for first, (found, way_out) in OTHER_FILES.items():
        if start.startswith(first):
            raise UnreadableError(found, way_out)
    if content[257:262] == b"ustar":
        found = "a tar archive"
        raise UnreadableError(found, "Unpack it and pass the files.")
    text, notes = decode(content)
    return Text(text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\x1a").split("\n"), notes=notes)


def decode(content: bytes) -> tuple[str, list[str]]:
    """Return text in UTF-8, UTF-16, UTF-32 or Windows-1252, and a note if the encoding was guessed."""
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            try:
                return content.decode(encoding), []
            except UnicodeDecodeError as error:
                found = f"damaged text ({error})"
                raise UnreadableError(found, "Export it as CSV again.") from None
    start = content[:1000]
    zeros = [start[offset::2].count(0) for offset in (0, 1)]
    if max(zeros) > MIN_ZERO_SHARE * len(start) / 2 and min(zeros) == 0:
        return content.decode("utf-16-be" if zeros[0] else "utf-16-le", errors="replace"), []
    for encoding in ("utf-8", "cp1252", "latin-1"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text or (encoding != "utf-8" and CONTROL.search(text)):
            break
        return text, [] if encoding == "utf-8" else ["text read as Windows-1252 (Latin-1)"]
    found = "other bytes than text"
    raise UnreadableError(found, "Export it as CSV.")


def excel_text(content: bytes) -> Text:
    """Return the only sheet with content as lines of fields separated by tabs."""
    try:
        sheets = pd.read_excel(
            io.BytesIO(content), sheet_name=None, header=None, dtype=object, na_filter=False, engine="openpyxl"
        )
    # the type of the error depends on the damage
    except Exception as error:  # noqa: BLE001
        found = f"a zip archive that is no readable Excel workbook ({error})"
        raise UnreadableError(found, "Export it as CSV.") from None
    tables = {name: table for name, table in sheets.items() if table.size}
    if len(tables) != 1:
        found = f"{len(tables)} sheets with content: {examples(tables)}"
        raise UnreadableError(found, "Export the sheet with the table as CSV.")
    (table,) = tables.values()
    rows = table.astype(object).map(cell_text).to_numpy()
    return Text(["\t".join(row) for row in rows], separator="\t")


def cell_text(value: object) -> str:
    """Return the value of an Excel cell as text in one line."""
    if isinstance(value, (datetime, date)):
        return value.strftime("%Y-%m-%d")
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return "" if value is None else " ".join(str(value).split())
