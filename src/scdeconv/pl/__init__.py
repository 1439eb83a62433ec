"""Plots of results stored in AnnData or of tables of ``tl``. Each function draws on `ax` or a new figure and returns the axes."""

from __future__ import annotations

from ._benchmark import benchmark
from ._bland_altman import bland_altman
from ._clusters import clusters
from ._compare_fractions import compare_fractions
from ._fractions import fractions
from ._fractions_against import fractions_against
from ._history import history
from ._intervals import intervals
from ._measured_vs_predicted import measured_vs_predicted
from ._reference_fit import reference_fit
from ._report import report, report_files, report_paths, save_figure
from ._signature import signature
from ._simulation import simulation
from ._tuning import tuning

# other imports above are internal
__all__ = [
    "benchmark",
    "bland_altman",
    "clusters",
    "compare_fractions",
    "fractions",
    "fractions_against",
    "history",
    "intervals",
    "measured_vs_predicted",
    "reference_fit",
    "report",
    "signature",
    "simulation",
    "tuning",
]
