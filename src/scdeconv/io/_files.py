"""Readers of AnnData and MuData files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdeconv._data.labels import plain_tables
from scdeconv._data.warnings import dependency_warnings_ignored

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData


def is_annotated(path: Path) -> bool:
    """Return whether a file or folder contains AnnData or MuData."""
    if path.is_dir():
        return any((path / name).exists() for name in (".zgroup", "zarr.json"))
    return path.suffix in (".h5ad", ".h5mu")


def read_annotated(path: Path, modality: str) -> AnnData:
    """Return the AnnData of an h5ad or zarr file, or a modality of an h5mu or zarr file."""
    import anndata
    import h5py
    import mudata

    try:
        with dependency_warnings_ignored():
            if path.suffix == ".h5ad":
                return plain_tables(anndata.read_h5ad(path))
            if path.is_dir():
                if not (path / "mod").exists():
                    return plain_tables(anndata.read_zarr(path))
                modalities = sorted(item.name for item in (path / "mod").iterdir() if item.is_dir())
            else:
                with h5py.File(path) as file:
                    modalities = sorted(file["mod"])
            if modality in modalities:
                return plain_tables(
                    anndata.read_zarr(path / "mod" / modality) if path.is_dir() else mudata.read_h5ad(path, modality)
                )
    except (OSError, KeyError) as error:
        msg = f"Expected AnnData or MuData in {path}, found an unreadable file: {error}. Write it again."
        raise OSError(msg) from error
    msg = (
        f"Expected modality {modality!r} in {path}, found {modalities}. Rename a modality, or write it to an h5ad file."
    )
    raise ValueError(msg)
