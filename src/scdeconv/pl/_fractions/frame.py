"""What bars and heat map share: the size of the figure, names of samples and headings of groups."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

from scdeconv.pl._style import CHARACTER, GREY, LETTER, MAX_INCHES, SAMPLE, SMALL, TITLE, new_axes

from .samples import Samples

if TYPE_CHECKING:
    from collections.abc import Sequence


# inches: width of a sample without limits, minimum width of all samples, height of a line of a heading
SAMPLE_INCHES, MIN_INCHES, LINE = 0.32, 1.9, 0.18


@dataclass(frozen=True)
class Frame:
    """Axes of samples from left to right.

    Parameters
    ----------
    ax
        Axes.
    samples
        Samples.
    pitch
        Width of a sample in inches.
    """

    ax: Axes
    samples: Samples
    pitch: float

    @classmethod
    def make(
        cls,
        samples: Samples,
        ax: Axes | None,
        figsize: Sequence[float] | None,
        *,
        beside: float,
        above: float,
        height: float,
    ) -> Frame:
        """Return new or given axes.

        Parameters
        ----------
        samples
            Samples.
        ax, figsize
            Axes or size of the figure; None: from the number of samples.
        beside
            Width in inches of what is at the left and the right of the samples.
        above, height
            Height in inches of what is above the samples, without the headings, and of the samples.
        """
        if ax is not None:
            width = ax.get_window_extent().width / ax.figure.dpi - beside
        elif figsize is not None:
            width = figsize[0] - beside
        else:
            widest = max(MAX_INCHES - beside, MIN_INCHES)
            width = float(np.clip(SAMPLE_INCHES * samples.length, MIN_INCHES, widest))
        frame = cls(None, samples, max(width, 1.0) / samples.length)  # type: ignore[arg-type]
        size = (width + beside, height + above + frame.heading_inches + frame.name_inches)
        return cls(new_axes(ax, figsize, size), samples, frame.pitch)

    @property
    def is_named(self) -> bool:
        """Whether there is space for the names of the samples."""
        return self.pitch > SAMPLE

    @property
    def is_upright(self) -> bool:
        """Whether the names of the samples are wider than the samples, and are written upwards."""
        return LETTER * max(map(len, self.samples.table.index)) > 0.9 * self.pitch

    @property
    def name_inches(self) -> float:
        """Height of the names of the samples or of their number."""
        longest = LETTER * max(map(len, self.samples.table.index))
        return (longest if self.is_named and self.is_upright else 0.15) + 0.15

    @property
    def heading_inches(self) -> float:
        """Height of the headings."""
        if not self.samples.has_groups:
            return 0.1
        headings, is_slanted = self.headings()
        longest, lines = max(map(len, headings)), max(len(heading.splitlines()) for heading in headings)
        return CHARACTER / 2 * longest + 0.2 if is_slanted else LINE * lines + 0.1

    def headings(self) -> tuple[list[str], bool]:
        """Return group names with sizes, wrapped to the width of their samples, and whether to slant them."""
        sizes = np.bincount(self.samples.codes)
        rooms = np.maximum(self.pitch * sizes / CHARACTER, 1).astype(int)
        full = [
            f"{name} (n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{size})"
            for name, size in zip(self.samples.groups, sizes, strict=True)
        ]
        wrapped = [wrap(text, room, break_long_words=False) for text, room in zip(full, rooms, strict=True)]
        if any(len(line) > room for lines, room in zip(wrapped, rooms, strict=True) for line in lines):
            return full, True
        return ["\n".join(lines) for lines in wrapped], False

    def finish(self, above: float = 0.0) -> None:
        """Write names of samples and headings of groups, the latter this many inches above the samples."""
        ax, samples = self.ax, self.samples
        ax.set_xlim(-0.6, samples.length - 0.4)
        ax.tick_params(axis="x", length=0)
        if self.is_named:
            rotation = 90 if self.is_upright else 0
            ax.set_xticks(samples.position, samples.table.index, rotation=rotation, fontsize=SMALL)
        else:
            ax.set_xticks([])
            ax.set_xlabel(f"{len(samples.table):,} samples")
        if not self.samples.has_groups:
            return
        line, text = (
            ax.get_xaxis_transform() + ScaledTranslation(0, above + y, ax.figure.dpi_scale_trans) for y in (0.05, 0.1)
        )
        headings, is_slanted = self.headings()
        side = {"ha": "left", "rotation": 30, "rotation_mode": "anchor"} if is_slanted else {"ha": "center"}
        for code, heading in enumerate(headings):
            members = samples.position[samples.codes == code]
            ax.plot(members[[0, -1]] + [-0.45, 0.45], [1, 1], transform=line, clip_on=False, color=GREY, linewidth=1.5)
            ax.text(members.mean(), 1, heading, transform=text, va="bottom", fontsize=TITLE + 1, **side)
