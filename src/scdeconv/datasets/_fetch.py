"""Find a public data set: prepared by us, as its authors published it, or on the web."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anndata import AnnData, read_h5ad

from scdeconv._data.labels import plain_tables
from scdeconv._data.warnings import dependency_warnings_ignored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLE = "SCDECONV_DATA_DIR"


@dataclass(frozen=True)
class Source:
    """Where a data set lies, prepared and as published, and how the one is made from the other.

    ``convert`` takes the path of every original by its name and returns the objects by their prepared file names.
    """

    folder: str
    prepared: tuple[str, ...]
    url: str
    originals: tuple[str, ...]
    convert: Callable[[Mapping[str, Path]], Mapping[str, AnnData]]


def load(source: Source) -> tuple[AnnData, ...]:
    """Return the objects of a data set in the order of ``source.prepared``.

    Where ``SCDECONV_DATA_DIR`` is set, files are read from there and nothing is written or downloaded. Else the
    originals are downloaded once and the converted objects are kept in ``pooch.os_cache("scdeconv")``.

    The authors publish no checksums, so the first download is trusted: it comes by https from an address that names
    one commit, its SHA-256 is written beside it (``<file>.sha256``), and every later use is compared with that.

    Raises
    ------
    FileNotFoundError
        If ``SCDECONV_DATA_DIR`` is set and the files are not there.
    ConnectionError
        If a download fails.
    ValueError
        If a file in the cache is no longer the one that was recorded.
    """
    root = os.environ.get(VARIABLE)
    if root:
        return _load_local(source, Path(root).expanduser())
    import pooch

    folder = Path(pooch.os_cache("scdeconv")) / source.folder
    if not all((folder / name).exists() for name in source.prepared):
        originals = {name: _fetch(source.url, name, folder) for name in source.originals}
        for name, adata in source.convert(originals).items():
            _write(adata, folder / name)
    return tuple(_read(_checked(folder / name)) for name in source.prepared)


def _load_local(source: Source, root: Path) -> tuple[AnnData, ...]:
    prepared = [root / source.folder / name for name in source.prepared]
    if all(path.exists() for path in prepared):
        return tuple(_read(path) for path in prepared)
    folders = (root, root / source.folder)
    originals = {name: folder / name for name in source.originals for folder in folders if (folder / name).exists()}
    if len(originals) == len(source.originals):
        converted = source.convert(originals)
        return tuple(converted[name] for name in source.prepared)
    expected = [path for path in prepared if not path.exists()]
    missing = [name for name in source.originals if name not in originals]
    msg = (
        f"Expected {', '.join(map(str, expected))}, or the original files {', '.join(missing)} in {root} or "
        f"{root / source.folder}, found neither. {VARIABLE} names the folder that data sets are read from instead of "
        f"being downloaded. Put the files there (the originals are at {source.url}), or unset {VARIABLE}."
    )
    raise FileNotFoundError(msg)


def _fetch(url: str, name: str, folder: Path) -> Path:
    """Download one original unless it is in the folder already, and compare it with its record."""
    import pooch
    from requests.exceptions import RequestException

    path = folder / name
    if not path.exists():
        try:
            pooch.retrieve(f"{url}/{name}", known_hash=None, fname=name, path=folder)
        except RequestException as error:
            msg = (
                f"Expected to download {url}/{name}, found no way to it: {error}. Check the connection and try again, "
                f"download it by hand into {folder}, or set {VARIABLE} to a folder that holds the data."
            )
            raise ConnectionError(msg) from error
    return _checked(path)


def _checked(path: Path) -> Path:
    """Compare a file with the SHA-256 recorded at its first use; record it where there is none."""
    from pooch import file_hash

    record, found = path.with_name(f"{path.name}.sha256"), file_hash(str(path), alg="sha256")
    if not record.exists():
        record.write_text(f"{found}\n")
    expected = record.read_text().strip()
    if found != expected:
        msg = (
            f"Expected SHA-256 {expected} of {path}, as recorded at its first use, found {found}. "
            f"Delete {path.name} and {record.name} to fetch it again."
        )
        raise ValueError(msg)
    return path


def _read(path: Path) -> AnnData:
    with dependency_warnings_ignored():
        return plain_tables(read_h5ad(path))


def _write(adata: AnnData, path: Path) -> None:
    """Write the whole file or none of it, so that an interrupted run leaves nothing half done."""
    unfinished = path.with_name(f".{os.getpid()}.{path.name}")
    with dependency_warnings_ignored():
        adata.write_h5ad(unfinished, compression="gzip")
    path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)
    unfinished.replace(path)
