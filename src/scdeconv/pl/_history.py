from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator

from scdeconv._data.checks import checked
from scdeconv.pl._style import GREY, PALETTE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes


@checked()
def history(history: Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """Training and validation loss by epoch, with the best epoch.

    Parameters
    ----------
    history
        ``model.history``: "train_loss" and "validation_loss", each a one-column DataFrame indexed by epoch.
        "best_epoch" is optional; the default is the epoch of the lowest validation loss. A model trained on all donors has no
        validation loss. "confirmed" is 0 if a :class:`scdeconv.models.ResidualDNN` does not use its correction; the
        legend then reports it.
    ax
        Axes; None: a new figure.

    Returns
    -------
    The axes. The scale of the loss is logarithmic if the loss is positive and its range is more than a factor of ten.

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
    >>> scdeconv.pl.history(history).get_xlabel()
    'epoch'
    """
    curves = {
        label: pd.Series(np.ravel(history[name]).astype(float), index=history[name].index).dropna()
        for label, name in (("training", "train_loss"), ("validation", "validation_loss"))
        if name in history
    }
    if not curves:
        msg = f"Expected 'train_loss' or 'validation_loss' in history, found {list(history)}. Pass model.history."
        raise KeyError(msg)
    if ax is None:
        _, ax = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
    for (label, curve), color in zip(curves.items(), PALETTE, strict=False):
        marker = "o" if len(curve) == 1 else None
        ax.plot(curve.index, curve, color=color, linewidth=1.8, marker=marker, label=label)

    best = None
    if "best_epoch" in history:
        best = int(np.ravel(history["best_epoch"])[0])
    elif "validation" in curves and len(curves["validation"]):
        best = int(curves["validation"].index.to_numpy()[curves["validation"].argmin()])
    if best is not None:
        confirmed = np.ravel(history.get("confirmed", 1.0))[0]
        label = f"best epoch ({best})" if confirmed else "correction not confirmed by\nheld-out donors: not used"
        ax.axvline(best, color=GREY, linestyle="--", linewidth=1.2, label=label)

    values = pd.concat(curves)
    if values.min() > 0 and values.max() > 10 * values.min():
        ax.set_yscale("log", subs=[])
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="epoch", ylabel="loss")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return ax
