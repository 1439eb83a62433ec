"""Colours of cell types and groups: given, stored in ``uns``, or of the palette."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import is_color_like, to_hex

from scdeconv._data.checks import examples
from scdeconv._data.checks.arguments import nearest
from scdeconv._data.fractions import (
    get_fractions,
    store_colors,
    stored_colors,
    written_colors,
    written_names,
)

from .palette import BLACK, palette_of

if TYPE_CHECKING:
    from anndata import AnnData

Palette = str | Sequence[Any] | Mapping[str, Any]
# maximum number of colours of the qualitative colour maps of matplotlib
MAX_QUALITATIVE = 20


def cell_type_colors(
    adata: AnnData, key: str, cell_types: pd.Index, palette: Palette | None = None
) -> dict[Hashable, str]:
    """Return the colour of each cell type of ``adata.obsm[key]``, or of `cell_types` that are sums of its types.

    In this order: `palette`, ``adata.uns["<key>_colors"]``, ``adata.uns["cell_type_colors"]``, the colours of the other
    tables of the object, and the palette by sorted names.
    """
    table = get_fractions(adata, key)
    names = table.columns if cell_types.isin(table.columns).all() else cell_types
    source = key if f"{key}_colors" in adata.uns else "cell_type"
    known = written_colors(adata.uns, adata.obsm) | _stored(adata, source, names)
    return _resolve(known, names, palette, smallest=table.mean().sort_values().index)


def category_colors(adata: AnnData, key: str, names: pd.Index, palette: Palette | None = None) -> dict[Hashable, str]:
    """Return the colour of each category of ``adata.obs[key]``: of `palette`, ``adata.uns["<key>_colors"]`` or new."""
    return _resolve(_stored(adata, key, names), names, palette, smallest=names)


def new_colors(names: pd.Index, palette: Palette | None = None) -> dict[Hashable, str]:
    """Return colours of names without an object that has some: of `palette`, or of our palette by sorted names."""
    return _resolve({}, names, palette, smallest=names)


def remember_colors(adata: AnnData, key: str, colors: Mapping[Hashable, str], names: pd.Index) -> None:
    """Write the colours as ``adata.uns["<key>_colors"]`` in the order of `names`; a view is not changed."""
    if not adata.is_view and names.isin(list(colors)).all():
        store_colors(adata.uns, key, {str(name): colors[name] for name in names})


def _resolve(
    known: Mapping[str, str], names: pd.Index, palette: Palette | None, smallest: pd.Index
) -> dict[Hashable, str]:
    """Return the colour of each name; the smallest of the new names has black, if black is needed."""
    known = {**known, **({} if palette is None else _given(palette, names))}
    colors: dict[Hashable, str] = {name: known[name] for name in names if name in known}
    new = [name for name in sorted(names) if name not in colors]
    free = [color for color in palette_of(len(names) + len(known)) if color not in known.values()]
    colors |= zip(new, free, strict=False)
    black = next((name for name in new if colors[name] == BLACK), None)
    if black is not None:
        least = next(name for name in smallest if name in new)
        colors[black], colors[least] = colors[least], colors[black]
    return {name: colors[name] for name in names}


def _stored(adata: AnnData, source: str, names: pd.Index) -> dict[str, str]:
    """Return the colours of ``adata.uns``; those of a list or mapping of the user."""
    where = f"adata.uns['{source}_colors']"
    stored = stored_colors(adata.uns, source, list(names))
    is_list = not isinstance(adata.uns.get(f"{source}_colors", {}), Mapping)
    if is_list and written_names(adata.uns, source) is None and len(stored) < len(names):
        msg = (
            f"Expected a colour for each of {len(names)} names in {where}, found {len(stored)} and none for "
            f"{examples(names[len(stored) :])}. Add the colours or delete the key."
        )
        raise ValueError(msg)
    return _as_hex(stored, where)


def _given(palette: Palette, names: pd.Index) -> dict[str, str]:
    """Return the colours of the argument by name."""
    if isinstance(palette, str):
        if palette not in colormaps:
            msg = (
                f"Expected palette to be colours or the name of a colour map of matplotlib, found {palette!r}. "
                f"{nearest(palette, list(colormaps)) or 'See matplotlib.colormaps.'}"
            )
            raise ValueError(msg)
        colormap = colormaps[palette]
        is_qualitative = colormap.N <= MAX_QUALITATIVE
        palette = list(colormap(np.arange(colormap.N) if is_qualitative else np.linspace(0, 1, len(names))))
    if not isinstance(palette, (Mapping, pd.Series)):
        if len(palette) < len(names):
            msg = (
                f"Expected palette to have a colour for each of {len(names)} names, found {len(palette)}. Add colours, or "
                "pass a dictionary with the colours of some names."
            )
            raise ValueError(msg)
        palette = dict(zip(map(str, names), palette, strict=False))
    return _as_hex(dict(palette), "palette")


def _as_hex(colors: Mapping[str, Any], where: str) -> dict[str, str]:
    wrong = [color for color in colors.values() if not is_color_like(color)]
    if wrong:
        msg = f"Expected colours of matplotlib in {where}, found {examples(wrong)}. Use names or hex codes."
        raise ValueError(msg)
    return {str(name): to_hex(color) for name, color in colors.items()}
