"""Heat map of fractions with dendrograms and columns of ``obs``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, PowerNorm, to_rgba_array
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

from scdeconv.pl._style import CHARACTER, GREY, LETTER, SMALL, TITLE, root_ticks

from .frame import Frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.transforms import Transform

    from .columns import Column
    from .samples import Samples

# perceptually uniform, and from black to almost white: the widest range of lightness
COLOR_MAP, NUMBER_MAP = "magma", "Greys"
# inches: height of a cell type, of a track, of the dendrogram of samples, width of that of types, gaps
TYPE_INCHES, TRACK_INCHES, TREE_INCHES, TYPE_TREE_INCHES, GAP = 0.2, 0.17, 0.45, 0.35, 0.05
# inches: width and height of the colour bar, room for its ticks and label
BAR_WIDTH, BAR_HEIGHT, BAR_TEXTS = 0.15, 1.3, 0.65
DASH = "\N{EN DASH}"
# inches: height of an entry of a legend
ENTRY = 0.165


def draw_heat_map(
    samples: Samples,
    tracks: Sequence[Column],
    label: str,
    ax: Axes | None,
    figsize: Sequence[float] | None,
) -> Axes:
    """Draw samples × cell types, from the map outwards with tracks, dendrograms, colour bar and legends."""
    table = samples.table
    names = [_name(track) for track in tracks]
    legends = [(track.name, list(track.values.categories), track.colors) for track in tracks if track.colors]
    left = 0.9 * CHARACTER * max(map(len, [*table.columns, *names])) + 0.15
    tree = TYPE_TREE_INCHES if samples.type_tree else 0.0
    longest = max([len(str(text)) for title, entries, _ in legends for text in [title, *entries]], default=0)
    right = tree + GAP + max(BAR_WIDTH + BAR_TEXTS, LETTER * longest + 0.35)
    above = len(tracks) * (TRACK_INCHES + GAP) + (TREE_INCHES + GAP if samples.sample_tree else 0)
    side = BAR_HEIGHT + 0.2 + sum(ENTRY * (len(entries) + 1) + 0.15 for _, entries, _ in legends)
    height = max(TYPE_INCHES * table.shape[1], side - above)
    frame = Frame.make(samples, ax, figsize, beside=left + right, above=above, height=height)
    ax = frame.ax

    largest = max(table.to_numpy().max(), 0.01)
    norm = PowerNorm(0.5, 0, largest)
    meshes = _draw_mesh(ax, samples, table.to_numpy().T, cmap=COLOR_MAP, norm=norm)
    ax.set_yticks(range(table.shape[1]), table.columns, fontsize=TITLE)
    ax.set_ylim(table.shape[1] - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
    frame.finish(above)

    bottom = GAP
    for track, name in zip(tracks, names, strict=True):
        strip = _inset(ax, (0, bottom, 1, TRACK_INCHES), above=True)
        strip.set(xlim=ax.get_xlim(), ylim=(-0.5, 0.5), xticks=[])
        strip.set_yticks([0], [name], fontsize=TITLE)
        strip.tick_params(axis="y", length=0)
        _draw_mesh(strip, samples, _colors_of(track)[samples.rows][None])
        bottom += TRACK_INCHES + GAP
    if samples.sample_tree:
        strip = _inset(ax, (0, bottom, 1, TREE_INCHES), above=True)
        strip.add_collection(LineCollection(samples.sample_tree, colors=GREY, linewidths=0.6))
        strip.set(xlim=ax.get_xlim(), ylim=_heights(samples.sample_tree))
        strip.set_axis_off()
    if samples.type_tree:
        strip = _inset(ax, (GAP, 0, TYPE_TREE_INCHES - GAP, 1), above=False)
        lines = [line[:, ::-1] for line in samples.type_tree]
        strip.add_collection(LineCollection(lines, colors=GREY, linewidths=0.6))
        strip.set(ylim=ax.get_ylim(), xlim=_heights(samples.type_tree))
        strip.set_axis_off()

    from_corner = _inches_from_corner(ax)
    bar = ax.inset_axes((tree + GAP, above - BAR_HEIGHT, BAR_WIDTH, BAR_HEIGHT), transform=from_corner)
    scale = ax.figure.colorbar(meshes[0], cax=bar, ticks=root_ticks(largest), format="{x:.3g}")
    bar.tick_params(labelsize=SMALL)
    scale.set_label(label, fontsize=TITLE)
    scale.outline.set_visible(False)
    top = above - BAR_HEIGHT - 0.2
    for title, entries, colors in legends:
        handles = [Patch(facecolor=colors[entry]) for entry in entries]
        legend = Legend(
            ax,
            handles,
            list(map(str, entries)),
            title=title,
            loc="upper left",
            bbox_to_anchor=(tree + GAP, top),
            bbox_transform=from_corner,
            borderaxespad=0,
            borderpad=0,
            frameon=False,
            handlelength=1,
            fontsize=SMALL,
            title_fontsize=TITLE,
            alignment="left",
        )
        ax.add_artist(legend)
        # the layout leaves out what the axes clip
        legend.set_clip_on(False)
        top -= ENTRY * (len(entries) + 1) + 0.15
    return ax


def _heights(tree: list[np.ndarray]) -> tuple[float, float]:
    """Return the limits of the heights of a dendrogram, from a little below its lowest node."""
    nodes = [line[1, 1] for line in tree]
    low, high = min(nodes), max(nodes)
    margin = max(high - low, 0.1 * high)
    return max(low - 0.15 * margin, 0.0), high + 0.03 * margin + 1e-12


def _inches_from_corner(ax: Axes) -> Transform:
    """Return the transform from inches at the upper right corner of axes."""
    return ax.figure.dpi_scale_trans + ScaledTranslation(1, 1, ax.transAxes)  # type: ignore[arg-type]


def _inset(ax: Axes, bounds: tuple[float, float, float, float], *, above: bool) -> Axes:
    """Return axes above or at the right of others: inches outwards, shares of the axes along them."""
    from_corner = _inches_from_corner(ax)
    along = (ax.transAxes, from_corner) if above else (from_corner, ax.transAxes)
    inset = ax.inset_axes(bounds, transform=blended_transform_factory(*along))
    inset.spines[:].set_visible(False)
    inset.set_facecolor("none")
    return inset


def _draw_mesh(ax: Axes, samples: Samples, values: np.ndarray, **options: Any) -> list[Any]:
    """Draw one mesh for each group; rows × samples, or with colours as third dimension."""
    meshes = []
    for code in np.unique(samples.codes):
        of_group = samples.codes == code
        left, right = samples.position[of_group][[0, -1]] + [-0.5, 0.5]
        edges = np.linspace(left, right, of_group.sum() + 1), np.arange(len(values) + 1) - 0.5
        meshes.append(ax.pcolormesh(*edges, values[:, of_group], rasterized=True, **options))
    return meshes


def _name(track: Column) -> str:
    """Return the name of a track; of numbers with their range, which is that of the colours."""
    if track.colors or not np.isfinite(track.values).any():
        return track.name
    bounds = dict.fromkeys(f"{bound:.3g}" for bound in (np.nanmin(track.values), np.nanmax(track.values)))
    return f"{track.name} ({DASH.join(bounds)})"


def _colors_of(track: Column) -> np.ndarray:
    """Return the colour of each sample; unknown numbers are transparent."""
    if isinstance(track.values, pd.Categorical):
        return to_rgba_array([track.colors[value] for value in track.values])
    finite = np.ma.masked_invalid(track.values)
    # light grey differs from the white of unknown numbers
    shades = np.asarray(colormaps[NUMBER_MAP](0.15 + 0.85 * np.asarray(Normalize()(finite).filled(0.0))))
    shades[finite.mask] = 0
    return shades
