from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from scdeconv._keys import FRACTIONS
from scdeconv.pl._style import GREY, cell_type_colors, fraction_label, get_fractions

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

# inches: the width of a letter in the default font, and what a sample needs to have its name beneath it
CHARACTER, SAMPLE = 0.085, 0.14


def fractions(
    adata: AnnData,
    key: str = FRACTIONS,
    *,
    groupby: str | None = None,
    sort_by: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Composition of every sample as stacked bars.

    Reads ``adata.obsm[key]`` and draws one bar per sample, sorted by the share of one cell type, which is at the
    bottom of the stack. Samples of unknown composition (NaN) are left out. Colours come from
    ``adata.uns["<key>_colors"]`` or ``adata.uns["cell_type_colors"]`` (a mapping, or a list in the order of the
    columns), else from a colour-blind safe palette. Names of samples are shown where there is room for them.

    Parameters
    ----------
    adata
        Samples with fractions.
    key
        Table of ``adata.obsm`` to draw.
    groupby
        Column of ``adata.obs``; its groups stand apart, in the order of its categories.
    sort_by
        Cell type that orders the samples; the most abundant one by default.
    ax
        Where to draw; by default a new figure whose width grows with the number of samples.

    Returns
    -------
    The axes.

    Examples
    --------
    >>> import pandas as pd
    >>> from anndata import AnnData
    >>> import scdeconv
    >>> adata = AnnData(obs=pd.DataFrame({"sex": ["f", "m"]}, index=["s1", "s2"]))
    >>> adata.obsm["fractions"] = pd.DataFrame({"B": [0.4, 0.1], "T": [0.6, 0.9]}, index=adata.obs_names)
    >>> ax = scdeconv.pl.fractions(adata, groupby="sex")
    >>> ax.get_ylabel()
    'cell fraction'
    """
    table = get_fractions(adata, key)
    colors = cell_type_colors(adata, key, table.columns)
    known = table.notna().all(axis=1).to_numpy()
    if not known.any():
        msg = f"Expected samples of known composition in adata.obsm[{key!r}], found {len(table)} rows of NaN."
        raise ValueError(msg)
    table = table[known]
    sort_by = str(table.mean().idxmax()) if sort_by is None else sort_by
    if sort_by not in table:
        msg = f"Expected sort_by to be a cell type of adata.obsm[{key!r}], found {sort_by!r} among {list(table)}."
        raise KeyError(msg)
    groups = _groups(adata, groupby)[known].remove_unused_categories()

    order = np.lexsort((-table[sort_by].to_numpy(), groups.codes))
    table, codes = table.iloc[order], groups.codes[order]
    position = np.arange(len(table)) + max(0.8, 0.02 * len(table)) * codes
    length = position[-1] + 1
    legend_width = CHARACTER * max(map(len, table.columns)) + 0.6
    if ax is None:
        width = float(np.clip(0.32 * length, 2.2, 10))
    else:
        width = max(ax.get_window_extent().width / ax.figure.dpi - legend_width, 1.0)
    pitch = width / length
    named = pitch > SAMPLE
    longest = CHARACTER * max(map(len, table.index))
    headings, slanted = _headings(groups.categories, np.bincount(codes), pitch)
    if ax is None:
        lines = max(len(heading.splitlines()) for heading in headings)
        above = CHARACTER / 2 * max(map(len, headings)) if slanted else 0.18 * lines
        below = longest if named and longest > pitch else 0.2
        bars = max(3.6, 0.21 * table.shape[1] + 0.3)
        _, ax = plt.subplots(figsize=(width + legend_width + 0.8, above + bars + below), layout="constrained")

    edge = {"width": 0.88, "edgecolor": "white", "linewidth": 0.5} if named else {"width": 1.0, "linewidth": 0}
    bottom = np.zeros(len(table))
    for cell_type in [sort_by, *(column for column in table if column != sort_by)]:
        height = table[cell_type].to_numpy()
        ax.bar(position, height, bottom=bottom, color=colors[cell_type], label=cell_type, **edge)
        bottom += height
    ax.set(xlim=(-0.6, length - 0.4), ylim=(0, max(1, bottom.max())), ylabel=fraction_label(adata, key))
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    ax.tick_params(axis="x", length=0)
    if named:
        ax.set_xticks(position, table.index, rotation=90 if longest > pitch else 0, fontsize=8)
    else:
        ax.set_xticks([])
        ax.set_xlabel(f"{len(table)} samples")
    if groupby is not None:
        top = ax.get_xaxis_transform()
        side = {"ha": "left", "rotation": 30, "rotation_mode": "anchor"} if slanted else {"ha": "center"}
        for code, heading in enumerate(headings):
            members = position[codes == code]
            span = [members[0] - 0.45, members[-1] + 0.45]
            ax.plot(span, [1.015, 1.015], transform=top, clip_on=False, color=GREY, linewidth=1.5)
            ax.text(members.mean(), 1.03, heading, transform=top, va="bottom", **side)
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, handlelength=1)
    return ax


def _groups(adata: AnnData, groupby: str | None) -> pd.Categorical[Any]:
    if groupby is None:
        return pd.Categorical([""] * adata.n_obs)
    if groupby not in adata.obs:
        msg = f"Expected groupby to be a column of adata.obs, found {groupby!r} among {list(adata.obs)}."
        raise KeyError(msg)
    groups = pd.Categorical(adata.obs[groupby])
    if (groups.codes < 0).any():
        groups = groups.add_categories(["not given"]).fillna("not given")
    return groups


def _headings(names: pd.Index, sizes: np.ndarray, pitch: float) -> tuple[list[str], bool]:
    """Group names with their sizes, wrapped to the width of their bars; to be slanted where a word is too wide."""
    rooms = np.maximum(pitch * sizes / CHARACTER, 1).astype(int)
    full = [f"{name} (n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{size})" for name, size in zip(names, sizes, strict=True)]
    wrapped = [wrap(text, room, break_long_words=False) for text, room in zip(full, rooms, strict=True)]
    if any(len(line) > room for lines, room in zip(wrapped, rooms, strict=True) for line in lines):
        return full, True
    return ["\n".join(lines) for lines in wrapped], False
