"""Report of an estimate: one HTML file without references to other files or to the network."""

from __future__ import annotations

from .figures import save_figure
from .report import report, report_files, report_paths
