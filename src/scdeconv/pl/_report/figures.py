"""Figures as files, and in a page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# dots per inch of figures with pixels: sharp on paper
PRINT_DPI = 200


def save_figure(figure: Figure, path: Path | io.BytesIO, *, form: str, dpi: int = 150) -> None:
    """Write a figure without the date, so that equal figures are equal files, and close it."""
    _write(figure, path, form, dpi)
    plt.close(figure)


def as_data_uri(drawn: Axes | np.ndarray) -> str:
    """Return a figure as the text of an ``src``, as SVG or PNG, whichever is smaller, and close it."""
    figure: Any = np.ravel(np.asarray(drawn, dtype=object))[0].figure
    files = {}
    for form, kind in (("svg", "svg+xml"), ("png", "png")):
        file = io.BytesIO()
        _write(figure, file, form, PRINT_DPI)
        files[kind] = file.getvalue()
    plt.close(figure)
    kind = min(files, key=lambda kind: len(files[kind]))
    return f"data:image/{kind};base64,{base64.b64encode(files[kind]).decode()}"


def _write(figure: Figure, path: Path | io.BytesIO, form: str, dpi: int) -> None:
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form, {})
    figure.savefig(path, format=form, dpi=dpi, bbox_inches="tight", metadata=undated)
