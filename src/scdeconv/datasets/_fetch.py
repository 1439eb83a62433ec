"""Download, cache and conversion of public data sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from anndata import AnnData, read_h5ad

from scdeconv._data.labels import plain_tables
from scdeconv._data.warnings import dependency_warnings_ignored

VARIABLE = "SCDECONV_DATA_DIR"


@dataclass(frozen=True)
class Source:
    """Files of a data set, prepared and original, and the function that converts the originals.

    ``convert`` takes the paths of the originals by name and returns the objects by prepared file name.
    """

    folder: str
    prepared: tuple[str, ...]
    url: str
    originals: tuple[str, ...]
    convert: Callable[[Mapping[str, Path]], Mapping[str, AnnData]]


def load(source: Source) -> tuple[AnnData, ...]:
    """Return the objects of a data set in the order of ``source.prepared``.

    If ``SCDECONV_DATA_DIR`` is set, files are read from this folder, and nothing is written or downloaded. Otherwise,
    the originals are downloaded once, and the converted objects are cached in ``pooch.os_cache("scdeconv")``.

    The authors publish no checksums. The first download uses https and a URL of a fixed commit. Its SHA-256 is written
    to ``<file>.sha256`` and checked in later calls.

    Raises
    ------
    FileNotFoundError
        If ``SCDECONV_DATA_DIR`` is set and does not contain the files.
    ConnectionError
        If a download fails.
    ValueError
        If the SHA-256 of a cached file differs from the recorded one.
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
        f"{root / source.folder}, found neither. {VARIABLE} is the folder of data sets and disables the download. "
        f"Copy the files there (the originals are at {source.url}), or unset {VARIABLE}."
    )
    raise FileNotFoundError(msg)


def _fetch(url: str, name: str, folder: Path) -> Path:
    """Return the path of an original with checked SHA-256; download it if it is missing."""
    import pooch
    from requests.exceptions import RequestException

    path = folder / name
    if not path.exists():
        try:
            pooch.retrieve(f"{url}/{name}", known_hash=None, fname=name, path=folder)
        except RequestException as error:
            msg = (
                f"Expected to download {url}/{name}, found a connection error: {error}. Check the connection and try "
                f"again, download the file manually to {folder}, or set {VARIABLE} to a folder with the data."
            )
            raise ConnectionError(msg) from error
    return _checked(path)


def _checked(path: Path) -> Path:
    """Return the path after a check of its recorded SHA-256; record the SHA-256 on first use."""
    from pooch import file_hash

    record, found = path.with_name(f"{path.name}.sha256"), file_hash(str(path), alg="sha256")
    if not record.exists():
        record.write_text(f"{found}\n")
    expected = record.read_text().strip()
    if found != expected:
        msg = (
            f"Expected SHA-256 {expected} of {path}, recorded at first use, found {found}. "
            f"Delete {path.name} and {record.name} to download the file again."
        )
        raise ValueError(msg)
    return path


def _read(path: Path) -> AnnData:
    with dependency_warnings_ignored():
        return plain_tables(read_h5ad(path))


def _write(adata: AnnData, path: Path) -> None:
    """Write to a temporary file and rename it, so that an interrupted run leaves no partial file."""
    unfinished = path.with_name(f".{os.getpid()}.{path.name}")
    with dependency_warnings_ignored():
        adata.write_h5ad(unfinished, compression="gzip")
    path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)
    unfinished.replace(path)
