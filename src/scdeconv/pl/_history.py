from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from scdeconv._data.checks import checked
from scdeconv.pl._style import GREY, PALETTE, new_axes, saved

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

# ratio of the limits of the axis below which a logarithmic axis has fewer than two of the ticks 1, 2, 5
MIN_LOG_RATIO = 5


@checked()
def history(
    history: Mapping[str, Any],
    *,
    ax: Axes | None = None,
    figsize: Sequence[float] | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Training and validation loss by epoch, with the weights that were kept.

    Epoch 0 is the start: the loss of the initial weights. The axis of the loss is logarithmic if all losses are
    positive. The dashed line is the epoch whose weights were kept: the one recorded, else that of the lowest validation
    loss, and the last without validation.

    Parameters
    ----------
    history
        ``model.history``: "train_loss" and "validation_loss", each a one-column DataFrame indexed by epoch.
        "best_epoch" is optional. A model trained on all donors has no validation loss. "confirmed" is 0 if a
        :class:`scdeconv.models.ResidualDNN` does not use its correction; the legend then reports it.
    ax
        Axes; None: a new figure.
    figsize
        Width and height of the new figure in inches; None: 5.5 × 3.6.
    save
        File of the figure, such as a PNG or PDF; its folder must exist.

    Returns
    -------
    The axes.

    Raises
    ------
    TypeError
        If ``history`` is not a mapping.
    KeyError
        If both losses are missing.

    Examples
    --------
    >>> import pandas as pd
    >>> import scdeconv
    >>> history = {
    ...     "train_loss": pd.DataFrame({"train_loss": [0.5, 0.3, 0.2]}),
    ...     "validation_loss": pd.DataFrame({"validation_loss": [0.6, 0.4, 0.5]}),
    ... }
    >>> ax = scdeconv.pl.history(history)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['training', 'validation', 'kept: epoch 1']
    """
    curves = {
        label: pd.Series(np.ravel(history[name]).astype(float), index=history[name].index).dropna()
        for label, name in (("training", "train_loss"), ("validation", "validation_loss"))
        if name in history
    }
    if not curves:
        msg = f"Expected 'train_loss' or 'validation_loss' in history, found {list(history)}. Pass model.history."
        raise KeyError(msg)
    ax = new_axes(ax, figsize, (5.5, 3.6))
    for (label, curve), color in zip(curves.items(), PALETTE, strict=False):
        marker = "o" if len(curve) == 1 else None
        ax.plot(curve.index, curve, color=color, linewidth=1.8, marker=marker, label=label)

    values = pd.concat(curves)
    if len(values):
        kept = _kept_epoch(history, curves)
        label = f"kept: epoch {kept}" if kept else "kept: the start (epoch 0)"
        if not np.ravel(history.get("confirmed", 1.0))[0]:
            label = "kept: the start; held-out donors\ndid not confirm the correction"
        ax.axvline(kept, color=GREY, linestyle="--", linewidth=1.2, label=label)
    if len(values) and values.min() > 0:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())
        low, high = ax.get_ylim()
        if high < MIN_LOG_RATIO * low:
            # too few round values: ticks of a linear axis
            ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    has_start = any(0 in curve.index for curve in curves.values())
    ax.set(xlabel="epoch (0: the start)" if has_start else "epoch", ylabel="loss")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return saved(ax, save)


def _kept_epoch(history: Mapping[str, Any], curves: Mapping[str, pd.Series]) -> int:
    """Return the epoch whose weights were kept."""
    if "best_epoch" in history:
        return int(np.ravel(history["best_epoch"])[0])
    if len(curves.get("validation", ())):
        return int(curves["validation"].index.to_numpy()[curves["validation"].argmin()])
    return int(curves["training"].index.max())
