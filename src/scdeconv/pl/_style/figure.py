"""New figures and their files. Sizes are those on paper: up to the width of an A4 page, with text of at least 8 pt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import matplotlib.pyplot as plt
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    Drawn = TypeVar("Drawn", Axes, np.ndarray)

# inches: text width of an A4 page, its text height
MAX_INCHES, MAX_HEIGHT_INCHES = 7.5, 10.5
# inches: width of a letter of 10 pt and of 8 pt in the default font, minimum width of a sample with its name (8 pt)
CHARACTER, LETTER, SAMPLE = 0.085, 0.066, 0.14
# points: smallest text, titles of panels
SMALL, TITLE = 8, 9
# resolution of saved pixel images, per inch
DPI = 300


def new_axes(ax: Axes | None, figsize: Sequence[float] | None, default: tuple[float, float]) -> Axes:
    """Return the given axes, or axes of a new figure of the given or the default size in inches."""
    refuse_size_of_given_axes(ax, figsize, "ax")
    if ax is None:
        _, ax = plt.subplots(figsize=default if figsize is None else tuple(figsize), layout="constrained")
    return ax


def refuse_size_of_given_axes(axes: Any, figsize: Sequence[float] | None, name: str) -> None:
    """Raise an error if there are both axes and a figure size."""
    if axes is not None and figsize is not None:
        msg = f"Expected figsize or {name}, found both. Set the size of the figure when you make {name}."
        raise ValueError(msg)


def saved(drawn: Drawn, save: str | Path | None) -> Drawn:
    """Write the figure to a file, if there is one, and return what was drawn."""
    if save is not None:
        np.ravel(np.array(drawn, dtype=object))[0].figure.savefig(save, dpi=DPI, bbox_inches="tight")
    return drawn
