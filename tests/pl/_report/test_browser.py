"""The page in a real browser."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from scdeconv import pl

_specification = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
browser = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(browser)

pytestmark = pytest.mark.skipif(browser.installed() is None, reason="Chromium is not installed")

ROWS = "[...document.querySelectorAll('#fractions .tables table')].map(t => [...t.tBodies[0].rows].map(r => r.cells[0].innerText))"
HEADS = "[...document.querySelectorAll('#fractions thead th')].slice(0, {}).map(h => h.getAttribute('aria-sort'))"
# wider than the window
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_table_is_sorted_without_console_errors(make_estimate, tmp_path):
    adata = make_estimate(12, 10)
    adata.obs_names = [f"sample_{number:02}_" + "x" * 60 for number in range(12)]
    for table in adata.obsm.values():
        table.index = adata.obs_names
    adata.obsm["fractions"].iloc[3] = np.nan
    adata.obsm["fractions_quality"]["outside"] = False
    pl.report(adata, tmp_path / "report.html")
    url = (tmp_path / "report.html").as_uri()
    values = adata.obsm["fractions"]["type 1"]
    with browser.tab(tmp_path / "profile") as page:
        page.open(url)
        assert page.run(ROWS)[0] == list(adata.obs_names)
        # sample, flags of the missing estimate, types
        page.run("document.querySelectorAll('#fractions thead button')[3].click()")
        falling = list(values.sort_values(ascending=False, na_position="last").index)
        # also in the tables for paper
        assert page.run(ROWS) == [falling] * 3
        assert page.run(HEADS.format(4)) == ["none", "none", "none", "descending"]
        # the keyboard reverses the order
        page.run("document.querySelectorAll('#fractions thead button')[3].focus()")
        page.press("Enter")
        rising = list(values.sort_values(na_position="last").index)
        assert page.run(ROWS)[0] == rising
        assert page.run(HEADS.format(4))[3] == "ascending"
        page.run("document.querySelector('#fractions thead button').click()")
        assert page.run(ROWS)[0] == list(adata.obs_names)
        for width in (390, 1280):
            size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width == 390}
            page.call("Emulation.setDeviceMetricsOverride", **size)
            assert page.run(OVERFLOW) == 0
        assert page.problems() == []
        assert [asked for asked in page.requests() if not asked.startswith("data:")] == [url]
