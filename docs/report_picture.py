"""Write the report of the retina pairs and draw it for the README: ``python docs/report_picture.py`` (half a minute).

Training samples have out-of-fold predictions: each donor is predicted by a model that was trained without it. Needs Chromium.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import matplotlib as mpl

import scdeconv

OUTPUT = Path(__file__).parent / "_static" / "report.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
# pixels: up to the first rows of the table
WIDTH, HEIGHT = 1000, 1500


def write_report(path: Path) -> None:
    """Write the report of all retina samples."""
    bulk, profiles, pseudobulk = scdeconv.datasets.retina_pairs()
    mdata = scdeconv.pp.pair(bulk=bulk, profiles=profiles, pseudobulk=pseudobulk)
    model = scdeconv.tl.train(mdata, "calibrated_map")
    bulk = mdata["bulk"].copy()
    scdeconv.tl.predict(bulk, model, coverage=0.9)
    scdeconv.pl.report(bulk, path, title="Retina cohort", model=model)


def main() -> None:
    """Write the picture."""
    mpl.use("Agg")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        msg = f"Expected one of {', '.join(BROWSERS)} in the path, found none. Install Chromium."
        raise FileNotFoundError(msg)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        write_report(page)
        options = [f"--user-data-dir={folder}/profile", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"]
        subprocess.run(
            [browser, *FLAGS, *options, f"--screenshot={OUTPUT}", page.as_uri()], check=True, capture_output=True
        )
    print(f"wrote {OUTPUT}")


if __name__ == "__main__":
    main()
