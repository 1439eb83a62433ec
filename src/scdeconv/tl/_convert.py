"""Conversion between cell fractions and RNA fractions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.checks import checked, examples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData


@checked()
def convert_fractions(
    adata: AnnData,
    cell_size: pd.Series | Mapping[str, float],
    *,
    to: Literal["cell", "rna"],
    key: str = keys.FRACTIONS,
    key_added: str | None = None,
) -> None:
    """Convert cell fractions to RNA fractions, or RNA fractions to cell fractions.

    The RNA fraction of a cell type with cell fraction f and s RNA per cell is ``f s / sum(f s)``.

    Parameters
    ----------
    adata
        Bulk samples with fractions.
    cell_size
        RNA per cell of each type, in any unit: ``mdata["profiles"].obs["cell_size_umi"]``, or, estimated from pairs,
        ``scdeconv.pp.calibrate(mdata).cell_types["cell_size"]``.
    to
        ``"cell"`` or ``"rna"``.
    key
        Key of ``obsm`` with the fractions. Their kind is read from ``adata.uns["scdeconv"][key]["fraction_kind"]``;
        without it, they are cell fractions.
    key_added
        Key of ``obsm`` for the result; None: ``f"{to}_{key}"``.

    Writes
    ------
    ``adata.obsm[key_added]``, and its record in ``adata.uns["scdeconv"][key_added]``.

    Raises
    ------
    KeyError
        If ``adata.obsm[key]`` is missing.
    ValueError
        If ``key_added`` is empty or contains a ``/``, if the fractions are already of this kind, or if a size is
        missing or not positive.

    Examples
    --------
    >>> import pandas as pd
    >>> import scdeconv
    >>> from anndata import AnnData
    >>> bulk = AnnData(obs=pd.DataFrame(index=["a"]))
    >>> bulk.obsm["fractions"] = pd.DataFrame({"B": [0.5], "T": [0.5]}, index=["a"])
    >>> scdeconv.tl.convert_fractions(bulk, {"B": 3.0, "T": 1.0}, to="rna")
    >>> bulk.obsm["rna_fractions"].to_numpy().tolist()
    [[0.75, 0.25]]
    """
    if key not in adata.obsm:
        msg = f"Expected adata.obsm[{key!r}], found keys {sorted(adata.obsm)}. Call tl.predict first."
        raise KeyError(msg)
    fractions = adata.obsm[key]
    record = adata.uns.get(keys.UNS, {}).get(key, {})
    kind = record.get("fraction_kind", "cell")
    if kind == to:
        msg = (
            f"Expected fractions of the other kind in adata.obsm[{key!r}], found shares of {kind}. No conversion is "
            "needed."
        )
        raise ValueError(msg)
    sizes = pd.Series(dict(cell_size), dtype=float).reindex(fractions.columns)
    wrong = list(sizes.index[~(sizes > 0) | ~np.isfinite(sizes)])
    if wrong:
        msg = (
            f"Expected a positive cell_size for every cell type, found none for {examples(wrong)}. Add them to "
            "cell_size."
        )
        raise ValueError(msg)
    weighted = fractions * sizes if to == "rna" else fractions / sizes
    target = f"{to}_{key}" if key_added is None else key_added
    adata.obsm[target] = weighted.div(weighted.sum(axis=1), axis=0)
    # the errors are those of the other kind
    kept = {name: value for name, value in record.items() if name not in ("held_out", "n_held_out_donors")}
    adata.uns.setdefault(keys.UNS, {})[target] = {**kept, "fraction_kind": to, "converted_from": key}
