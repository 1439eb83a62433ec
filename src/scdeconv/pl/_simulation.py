from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv import metrics
from scdeconv._data.annotated import values_of
from scdeconv._data.checks import checked
from scdeconv._data.keys import BULK, SELECTED, SIMULATED
from scdeconv._stats.expression import log_shares
from scdeconv.pl._style import GREY, SKY, VERMILION, new_axes, saved

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from mudata import MuData


@checked()
def simulation(
    mdata: MuData,
    *,
    ax: Axes | None = None,
    figsize: Sequence[float] | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Real and simulated bulk in one PCA, with the share of real samples inside the simulated distribution.

    Reads ``mdata["bulk"]`` and ``mdata["simulated"]`` over the selected genes, or all genes if none were selected, on
    the log scale of the models. The principal components are those of the simulated samples. The title reports
    :func:`scdeconv.metrics.overlap`; about 95 % is ideal.

    Parameters
    ----------
    mdata
        With the modality ``simulated``, from :func:`scdeconv.pp.simulate`.
    ax
        Axes; None: a new figure.
    figsize
        Width and height of the new figure in inches; None: 5.5 × 4.5.
    save
        File of the figure, such as a PNG or PDF; its folder must exist.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If there is no simulated bulk.
    ValueError
        If there are fewer than 3 simulated samples.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.pp.simulate(mdata, 100, calibration=scdeconv.pp.calibrate(mdata))
    >>> scdeconv.pl.simulation(mdata).get_xlabel()  # doctest: +ELLIPSIS
    'PC 1 (...'
    """
    if SIMULATED not in mdata.mod:
        msg = f"Expected mdata['simulated'], found modalities {sorted(mdata.mod)}. Call pp.simulate(mdata) first."
        raise KeyError(msg)
    if mdata[SIMULATED].n_obs < 3:
        msg = f"Expected at least 3 simulated samples for a PCA, found {mdata[SIMULATED].n_obs}. Simulate more samples."
        raise ValueError(msg)
    var = mdata[BULK].var
    genes = var.index[var[SELECTED].to_numpy(dtype=bool)] if SELECTED in var else var.index
    real, simulated = (log_shares(values_of(mdata[name], genes=genes)) for name in (BULK, SIMULATED))
    centre = simulated.mean(axis=0)
    _, singular, components = np.linalg.svd(simulated - centre, full_matrices=False)
    share = singular**2 / (singular**2).sum()
    # fix the sign of the components: the largest loading is positive
    components = components[:2] * np.sign(components[[0, 1], np.abs(components[:2]).argmax(axis=1)])[:, None]
    ax = new_axes(ax, figsize, (5.5, 4.5))
    for samples, label, color, size, marker in (
        (simulated, f"simulated (n = {len(simulated)})", SKY, 8, "o"),
        (real, f"real (n = {len(real)})", VERMILION, 40, "^"),
    ):
        x, y = ((samples - centre) @ components.T).T
        ax.scatter(x, y, s=size, marker=marker, color=color, edgecolor="black" if size > 10 else "none", label=label)
    ax.set(xlabel=f"PC 1 ({share[0]:.0%} of variance)", ylabel=f"PC 2 ({share[1]:.0%} of variance)")
    ax.set_title(f"{metrics.overlap(real, simulated):.0%} of real bulk where 95% of simulated bulk lies", fontsize=10)
    ax.legend(frameon=False, labelcolor=GREY)
    ax.spines[["top", "right"]].set_visible(False)
    return saved(ax, save)
