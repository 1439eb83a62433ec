"""Download, cache and conversion of public data sets."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from anndata import AnnData, read_h5ad

from scdeconv._data import keys
from scdeconv._data.checks import examples
from scdeconv._data.files import clear_leftovers, publishing
from scdeconv._data.labels import plain_tables
from scdeconv._data.warnings import dependency_warnings_ignored

VARIABLE = "SCDECONV_DATA_DIR"


@dataclass(frozen=True)
class Content:
    """What tells a prepared file from files of other data sets; it may hold any number of samples.

    ``cell_types`` are those of ``obs["cell_type"]`` if this is one of the columns, else those of the measured fractions.
    """

    obs: tuple[str, ...]
    cell_types: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Files of a data set, prepared and original, and the function that converts the originals.

    ``convert`` takes the paths of the originals by name and returns the objects by prepared file name. ``contents``
    describes the prepared files.
    """

    folder: str
    prepared: tuple[str, ...]
    url: str
    originals: tuple[str, ...]
    convert: Callable[[Mapping[str, Path]], Mapping[str, AnnData]]
    contents: Mapping[str, Content] = field(default_factory=dict)


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
    OSError
        If a prepared file cannot be read.
    ValueError
        If the SHA-256 of a cached file differs from the recorded one, or if a prepared file is of another data set.
    """
    root = os.environ.get(VARIABLE)
    if root:
        return _load_local(source, Path(root).expanduser())
    import pooch

    folder = Path(pooch.os_cache("scdeconv")) / source.folder
    clear_leftovers(folder)
    if not all((folder / name).exists() for name in source.prepared):
        originals = {name: _fetch(source.url, name, folder) for name in source.originals}
        _write(source.convert(originals), folder)
    return tuple(_read(_checked(folder / name), source) for name in source.prepared)


def _load_local(source: Source, root: Path) -> tuple[AnnData, ...]:
    prepared = [root / source.folder / name for name in source.prepared]
    if all(path.exists() for path in prepared):
        return tuple(_read(path, source) for path in prepared)
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
            with publishing(path) as (new,):
                pooch.retrieve(f"{url}/{name}", known_hash=None, fname=name, path=new.parent)
        except RequestException as error:
            msg = (
                f"Expected to download {url}/{name}, found a connection error: {error}. Check the connection and try "
                f"again, download the file manually to {folder}, or set {VARIABLE} to a folder with the data."
            )
            raise ConnectionError(msg) from error
    return _checked(path)


def _checked(path: Path) -> Path:
    """Return the path after a check of its recorded SHA-256; record the SHA-256 on first use."""
    record, found = _record_of(path), _sha256(path)
    if not record.exists():
        # a folder without write access is read as it is
        with suppress(OSError), publishing(record) as (new,):
            new.write_text(f"{found}\n")
        return path
    expected = record.read_text().strip()
    if found != expected:
        msg = (
            f"Expected SHA-256 {expected or 'in ' + record.name} of {path}, recorded at first use, found {found}. "
            f"Delete {path.name} and {record.name} to download the file again."
        )
        raise ValueError(msg)
    return path


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path, source: Source) -> AnnData:
    """Read a prepared file, and refuse it if it is damaged or of another data set."""
    try:
        with dependency_warnings_ignored():
            adata = plain_tables(read_h5ad(path))
    # the type of the error depends on the damage
    except Exception as error:
        msg = f"Expected the AnnData of a data set in {path}, found an unreadable file: {error}. Copy the file again."
        raise OSError(msg) from error
    content = source.contents.get(path.name)
    if content is not None:
        _check_content(adata, content, path, source)
    return adata


def _check_content(adata: AnnData, content: Content, path: Path, source: Source) -> None:
    missing = [f"obs[{name!r}]" for name in content.obs if name not in adata.obs]
    types: list[str] = []
    if keys.CELL_TYPE not in content.obs and keys.MEASURED not in adata.obsm:
        missing.append(f"obsm[{keys.MEASURED!r}]")
    if not missing:
        found = adata.obs[keys.CELL_TYPE] if keys.CELL_TYPE in content.obs else adata.obsm[keys.MEASURED].columns
        types = sorted(set(map(str, found)) - set(content.cell_types)) if content.cell_types else []
    if missing or types:
        other = f"no {', '.join(missing)}" if missing else f"the cell types {examples(types)}"
        msg = (
            f"Expected {path.name} of {source.folder} in {path}, found a file with {other}. Copy the files of the data "
            "set there, or delete the file to prepare it again."
        )
        raise ValueError(msg)


def _write(prepared: Mapping[str, AnnData], folder: Path) -> None:
    """Write the prepared files together with their checksums."""
    paths = [folder / name for name in prepared]
    with publishing(*paths, *map(_record_of, paths)) as new, dependency_warnings_ignored():
        for path, record, adata in zip(new, new[len(paths) :], prepared.values(), strict=False):
            adata.write_h5ad(path, compression="gzip")
            record.write_text(f"{_sha256(path)}\n")
