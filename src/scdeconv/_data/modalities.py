"""MuData operations that behave the same in all supported mudata releases."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import mudata

from scdeconv._data.warnings import dependency_warnings_ignored

from .labels import plain_tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData


@contextmanager
def columns_stay() -> Iterator[None]:
    """Keep ``obs`` and ``var`` columns in their modality: default since mudata 0.4, an option in earlier releases."""
    if hasattr(mudata, "settings"):
        option = mudata.settings.override(pull_on_update=False)
    else:
        option = mudata.set_options(pull_on_update=False)
    with option, dependency_warnings_ignored():
        yield


def make_mudata(modalities: Mapping[str, AnnData]) -> MuData:
    """Return a MuData of modalities that share genes, and observations with equal names."""
    with columns_stay():
        return mudata.MuData(dict(modalities), axis=-1)


def add_modality(mdata: MuData, name: str, adata: AnnData) -> None:
    """Add or replace a modality of ``mdata``."""
    mdata.mod[name] = adata
    with columns_stay():
        mdata.update()


def read_mudata(path: Path) -> MuData:
    """Return the MuData of an h5mu file or zarr folder."""
    with columns_stay():
        mdata = mudata.read_zarr(path) if path.is_dir() else mudata.read_h5mu(path)
        for part in (*mdata.mod.values(), mdata):
            plain_tables(part)
    return mdata


def write_mudata(mdata: MuData, path: Path) -> None:
    """Write an h5mu file."""
    with columns_stay():
        mdata.write_h5mu(path)
