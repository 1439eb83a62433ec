"""MuData operations that behave the same in all supported mudata releases."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import mudata

from scdeconv._process import shared_change

from . import keys
from .labels import plain_tables
from .warnings import dependency_warnings_ignored

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData


# mudata draws the names of temporary columns from Python's global random state: give it its own generator
if hasattr(mudata._core.mudata, "choices"):
    mudata._core.mudata.choices = random.Random().choices


@contextmanager
def columns_stay() -> Iterator[None]:
    """Keep ``obs`` and ``var`` columns in their modality: default since mudata 0.4, an option in earlier releases."""
    with shared_change("options of mudata", _without_pulling), dependency_warnings_ignored():
        yield


def _without_pulling() -> AbstractContextManager[Any]:
    change: Any = mudata.settings.override if hasattr(mudata, "settings") else mudata.set_options
    changed: AbstractContextManager[Any] = change(pull_on_update=False)
    return changed


def make_mudata(modalities: Mapping[str, AnnData]) -> MuData:
    """Return a MuData of modalities that share genes, and observations with equal names."""
    with columns_stay():
        return mudata.MuData(dict(modalities), axis=-1)


def with_copies(mdata: MuData, names: Collection[str]) -> MuData:
    """Return a MuData with copies of the named modalities and of the record, to be written to; the others are shared."""
    work = make_mudata({key: adata.copy() if key in names else adata for key, adata in mdata.mod.items()})
    work.uns[keys.UNS] = dict(mdata.uns.get(keys.UNS, {}))
    return work


def cell_types_of(mdata: MuData) -> list[str]:
    """Return the cell types that a model of the data estimates: those of the reference, else of the measured fractions.

    Without a reference, the unmeasured rest is one of them.
    """
    if keys.PROFILES in mdata.mod:
        return list(mdata[keys.PROFILES].obs[keys.CELL_TYPE])
    return list(mdata[keys.BULK].obsm[keys.MEASURED].columns)


def check_reference(mdata: MuData, wanted_by: str) -> None:
    """Refuse data without a reference (cells or profiles), with the name of the function or class that needs one."""
    if keys.PROFILES not in mdata.mod:
        msg = (
            f"Expected a reference for {wanted_by}, found no cells and no profiles (modalities {sorted(mdata.mod)}). "
            "Pass cells= or profiles= to pp.pair."
        )
        raise ValueError(msg)


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
