"""Shared functions of the plots: colours, labels, figures and marks."""

from __future__ import annotations

from .colors import category_colors, cell_type_colors, remember_colors
from .figure import CHARACTER, MAX_INCHES, SAMPLE, new_axes, saved
from .labels import fit_note, fraction_label, signed
from .marks import draw_boxes, root_ticks
from .palette import BLUE, GREEN, GREY, LIGHT, ORANGE, OTHER, PALETTE, SKY, VERMILION
from .panels import head, legend_above, small_multiples
