"""Figures as files, and in a page."""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import PIL.Image

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# dots per inch of figures with pixels: sharp on paper
PRINT_DPI = 200
# colours of an image with a palette
MAX_COLORS = 256
# CSS has 96 pixels in an inch, which has 72 points
PIXELS_PER_POINT = 96 / 72


def save_figure(figure: Figure, path: Path | io.BytesIO, *, form: str, dpi: int = 150) -> None:
    """Write a figure without the date, so that equal figures are equal files, and close it."""
    _write(figure, path, form, dpi)
    plt.close(figure)


class Image(NamedTuple):
    """A figure in a page: caption, text of the ``src``, width in CSS pixels."""

    caption: str
    source: str
    width: int


def as_image(drawn: Axes | np.ndarray, caption: str) -> Image:
    """Return a figure as SVG or PNG, whichever is smaller, and close it."""
    figure: Any = np.ravel(np.asarray(drawn, dtype=object))[0].figure
    files = {}
    for form, kind in (("svg", "svg+xml"), ("png", "png")):
        file = io.BytesIO()
        _write(figure, file, form, PRINT_DPI)
        files[kind] = file.getvalue()
    plt.close(figure)
    kind = min(files, key=lambda kind: len(files[kind]))
    content = _with_palette(files[kind]) if kind == "png" else files[kind]
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    (points,) = re.findall(rb'<svg [^>]*?\bwidth="([\d.]+)pt"', files["svg+xml"])
    return Image(caption, source, round(float(points) * PIXELS_PER_POINT))


def _with_palette(png: bytes) -> bytes:
    """Return an image with at most 256 colours, which has a third of the size."""
    image, file = PIL.Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    palette = image.quantize(MAX_COLORS, method=PIL.Image.Quantize.MAXCOVERAGE, dither=PIL.Image.Dither.NONE)
    palette.save(file, "png", optimize=True)
    return file.getvalue()


def _write(figure: Figure, path: Path | io.BytesIO, form: str, dpi: int) -> None:
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form, {})
    # identifiers in SVG files are random without it
    with plt.rc_context({"svg.hashsalt": "scdeconv"}):
        figure.savefig(path, format=form, dpi=dpi, bbox_inches="tight", metadata=undated)
