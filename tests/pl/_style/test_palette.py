"""Distances of the colours in CIELAB, computed here from the definitions; red and green blindness as Machado et al. 2009."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from scdeconv.pl._style import GREY, OTHER, PALETTE
from scdeconv.pl._style.palette import palette_of

# sRGB to XYZ (D65) relative to white
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = TO_XYZ.sum(axis=1)
# severity 1
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def distances(colors: list[str], vision: str) -> np.ndarray:
    rgb = np.array([to_rgb(color) for color in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(VISIONS[vision]).T, 0, 1)
    xyz = seen @ TO_XYZ.T / WHITE
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116).T
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
    return np.linalg.norm(lab[:, None] - lab, axis=2) + 1000 * np.eye(len(colors))


def test_red_and_green_are_near_with_protanopia():
    far, near = (distances(["#d62728", "#8c8c00"], vision)[0, 1] for vision in ("normal", "protanopia"))
    assert far > 75
    assert near < far / 2


def test_forty_colours_are_distinct():
    assert len(set(PALETTE)) == 40
    assert distances([*PALETTE, OTHER, "#ffffff"], "normal").min() > 18


@pytest.mark.parametrize("vision", ["protanopia", "deuteranopia"])
def test_first_colours_are_distinct_for_colour_blind(vision):
    assert distances(PALETTE[:8], vision).min() > 15
    assert distances(PALETTE[:12], vision).min() > 15


@pytest.mark.parametrize("apart", [1, 2, 3])
def test_neighbours_differ_more_than_others(apart):
    assert np.diagonal(distances(PALETTE, "normal"), apart).min() > 25
    if apart == 1:
        assert np.diagonal(distances(PALETTE, "deuteranopia"), apart).min() > 15


@pytest.mark.parametrize("n", [1, 40, 41, 60])
def test_black_is_the_last_colour(n):
    colors = palette_of(n)
    assert len(set(colors)) == max(n, 40)
    assert colors.index("#000000") == len(colors) - 1
    assert GREY not in colors
