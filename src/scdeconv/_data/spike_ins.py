"""RNA that was added in the laboratory, which is no gene of any cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv._data import keys
from scdeconv._data.annotated import subset

if TYPE_CHECKING:
    from anndata import AnnData

# the names of the External RNA Controls Consortium, such as ERCC-00002; human genes are ERCC1, ERCC2
PREFIX = "ERCC-"


def set_spike_ins_aside(tables: dict[str, AnnData]) -> int:
    """Take spike-ins out of the genes of all tables; return how many kinds were found.

    Where bulk has any, ``obs["rna_per_spike_in"]`` gets the ratio of each sample's own expression to its spike-ins (NaN
    for a sample without).
    """
    found: set[str] = set()
    for name, table in tables.items():
        spikes = table.var_names.str.startswith(PREFIX)
        if not spikes.any():
            continue
        found |= set(table.var_names[spikes])
        tables[name] = subset(table, genes=~spikes)
        if name == keys.BULK:
            added = np.asarray(table.X[:, np.flatnonzero(spikes)].sum(axis=1), dtype=float).ravel()
            own = np.asarray(tables[name].X.sum(axis=1), dtype=float).ravel()
            ratio = np.divide(own, added, out=np.full_like(own, np.nan), where=added > 0)
            tables[name].obs[keys.RNA_PER_SPIKE_IN] = ratio
    return len(found)
