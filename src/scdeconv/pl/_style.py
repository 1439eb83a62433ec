"""What several plots share: reading fractions, the words for them, and the colours of the cell types."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex

from scdeconv._keys import UNS
from scdeconv._validation import examples

if TYPE_CHECKING:
    from anndata import AnnData

GREY = "#595959"

# The eight colours of Okabe and Ito (2008), then the colours that stay furthest from all earlier ones in OKLab, as
# seen with normal vision and with each of the three dichromacies (Machado et al. 2009).
PALETTE = (
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000", "#6d1831"]
    + ["#313186", "#00e7b6", "#79556d", "#9e3100", "#9279e7", "#b6ceff", "#92b686", "#9effaa", "#f3c279"]
    + ["#553d61", "#24613d", "#55499e", "#617961", "#cee7e7", "#55cece", "#926d92"]
)


def get_fractions(adata: AnnData, key: str) -> pd.DataFrame:
    """Return ``adata.obsm[key]``, samples × cell types; the errors say what there is instead."""
    if key not in adata.obsm:
        msg = f"Expected {key!r} in adata.obsm, found {sorted(adata.obsm)}. Run tl.predict or pass another key."
        raise KeyError(msg)
    table = adata.obsm[key]
    if not isinstance(table, pd.DataFrame):
        msg = (
            f"Expected a DataFrame of samples × cell types in adata.obsm[{key!r}], found {type(table).__name__}. "
            "Its columns must name the cell types."
        )
        raise TypeError(msg)
    return table.rename(columns=str)


def fraction_label(adata: AnnData, key: str) -> str:
    """Say whether the fractions are shares of cells or of RNA; they are not the same."""
    kind = adata.uns.get(UNS, {}).get(key, {}).get("fraction_kind", "cell")
    return "RNA fraction" if kind == "rna" else "cell fraction"


def cell_type_colors(adata: AnnData, key: str, cell_types: pd.Index) -> dict[Hashable, str]:
    """Return a colour per cell type: the user's own from ``adata.uns``, else from a colour-blind safe palette."""
    for name in (f"{key}_colors", "cell_type_colors"):
        if name in adata.uns:
            stored = adata.uns[name]
            colors = dict(stored) if isinstance(stored, Mapping) else dict(zip(cell_types, stored, strict=False))
            missing = [cell_type for cell_type in cell_types if cell_type not in colors]
            if missing or len(stored) < len(cell_types):
                msg = (
                    f"Expected a colour for each of {len(cell_types)} cell types in adata.uns[{name!r}], found "
                    f"{len(stored)} and none for {examples(missing)}. Add them or delete the key."
                )
                raise ValueError(msg)
            return {cell_type: to_hex(colors[cell_type]) for cell_type in cell_types}
    palette = PALETTE
    if len(cell_types) > len(PALETTE):
        palette = [to_hex(color) for color in colormaps["turbo"](np.linspace(0, 1, len(cell_types)))]
    return dict(zip(cell_types, palette, strict=False))
