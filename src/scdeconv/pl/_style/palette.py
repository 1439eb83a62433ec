"""The palette of cell types and groups."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

# text and lines beside the data, the sum of the types that are not shown, lines behind the data
GREY, OTHER, LIGHT = "#595959", "#bdbdbd", "#e6e6e6"

# Seven colours of Okabe and Ito (2008), then colours of maximum CIELAB distance from all earlier ones, white, black and
# grey, under normal vision and three dichromacies (Machado et al. 2009); ordered so that each differs from the three
# before it. Black is the last. Distances: tests/pl/_style/test_palette.py.
PALETTE = (
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#18288f", "#9780ff", "#aff79f"]
    + ["#682800", "#583858", "#ff70d7", "#8fd758", "#b73020", "#507080", "#581860", "#e7ef87", "#286800", "#f74868"]
    + ["#0050a7", "#97f7d7", "#004028", "#bf8f97", "#b760cf", "#00efff", "#97bf8f", "#dfb7df", "#8f0038", "#972087"]
    + ["#789f38", "#879fff", "#977058", "#c70878", "#ffc7b7", "#8f4858", "#707038", "#dfaf70", "#8f80b7", "#000000"]
)
BLUE, ORANGE, GREEN, _, SKY, VERMILION = PALETTE[:6]
BLACK = PALETTE[-1]
GOLDEN_RATIO = (np.sqrt(5) - 1) / 2


def palette_of(n: int) -> list[str]:
    """Return the palette with at least `n` colours; beyond 40, colours of a rainbow precede black."""
    further = colormaps["turbo"](np.arange(1, max(n - len(PALETTE), 0) + 1) * GOLDEN_RATIO % 1)
    return [*PALETTE[:-1], *map(to_hex, further), BLACK]
