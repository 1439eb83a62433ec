"""Photograph the report of the five lines for the README: ``python docs/report_picture.py`` (needs Chromium)."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import scdeconv

PICTURE = Path(__file__).parent / "_static" / "report.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--hide-scrollbars",
)
WIDTH, HEIGHT = 1000, 1500


def write_report(path: Path) -> None:
    """Write the report of the samples of the five lines in the README."""
    cells, bulk = scdeconv.datasets.paired_cohort()
    mdata = scdeconv.pp.pair(cells, bulk, donor_key="donor", cell_type_key="cell_type")
    model = scdeconv.tl.train(mdata)
    scdeconv.tl.predict(bulk, model, coverage=0.9)
    scdeconv.pl.report(bulk, path, model=model)


def main() -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"Expected one of {', '.join(BROWSERS)} in PATH, found none. Install Chromium.")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.html"
        write_report(report)
        profile = f"--user-data-dir={Path(folder) / 'profile'}"
        size = f"--window-size={WIDTH},{HEIGHT}"
        command = [browser, *FLAGS, profile, size, f"--screenshot={PICTURE}", report.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    main()
