"""Shared functions of the plots: colours, labels, figures and marks."""

from __future__ import annotations

from .colors import Palette, category_colors, cell_type_colors, new_colors, remember_colors
from .figure import (
    CHARACTER,
    LETTER,
    MAX_HEIGHT_INCHES,
    MAX_INCHES,
    SAMPLE,
    SMALL,
    TITLE,
    new_axes,
    refuse_size_of_given_axes,
    saved,
)
from .labels import chosen_types, fit_note, fraction_label, refuse_missing_columns, signed
from .marks import MIN_BOX_SAMPLES, draw_boxes, jitter, root_ticks
from .palette import BLUE, GREEN, GREY, LIGHT, ORANGE, OTHER, PALETTE, SKY, VERMILION
from .panels import head, legend_above, panel_columns, small_multiples
