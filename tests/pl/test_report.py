from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from scdeconv import pl, tl
from scdeconv._data.annotated import make_adata

# elements without an end
VOID = {"meta", "img"}
EVIL = '<script>alert("x")</script>&'


class Checked(HTMLParser):
    """Collects elements, text and references, and checks that all elements end."""

    def __init__(self):
        super().__init__()
        self.open, self.names, self.text, self.references = [], [], "", []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parse(html):
    page = Checked()
    page.feed(html)
    page.close()
    assert not page.open
    return page


@pytest.fixture
def estimated(pairs):
    """Bulk with fractions, bounds and quality, and the model."""
    model = tl.train(pairs, "calibrated_map")
    bulk = pairs["bulk"].copy()
    tl.predict(bulk, model, coverage=0.8)
    return bulk, model


def test_report_is_one_file_without_network(estimated):
    bulk, model = estimated
    page = parse(pl.report(bulk, title="Cohort", source="f.tsv", model=model, evaluation=tl.evaluate(bulk)))
    assert page.references
    assert all(reference.startswith("data:image/") for reference in page.references)
    assert not {"script", "link", "iframe"} & set(page.names)


def test_report_has_accuracy_fractions_and_flags(estimated):
    bulk, model = estimated
    first = bulk.obs_names[0]
    bulk.obsm["fractions_quality"]["outside"] = bulk.obs_names == first
    html = pl.report(bulk, title="Cohort", source="f.tsv", model=model)
    text = " ".join(parse(html).text.split())
    rmse, of_mean = model.held_out_.errors()
    assert f"on 10 held-out donors: {rmse:.4f}" in text
    assert f"has {of_mean:.4f}" in text
    assert "12 of 12 samples have an estimate" in text
    assert f"1 samples outside the training donors: extrapolated ('{first}')" in text
    value, low, high = (bulk.obsm[f"fractions{side}"].iloc[0, 0] for side in ("", "_lower", "_upper"))
    assert f"{value:.3f} ({low:.3f}–{high:.3f})" in text
    assert "coverage 0.8" in text
    assert model.summary_ in text


def test_report_says_if_the_mean_is_better(estimated, monkeypatch):
    bulk, model = estimated
    monkeypatch.setattr(type(model.held_out_), "errors", lambda _: (0.2, 0.1))
    text = parse(pl.report(bulk, title="Cohort", source="f.tsv", model=model)).text
    assert "not better than the mean composition" in text


def test_report_escapes_all_names():
    samples = pd.Index([EVIL, "s2"])
    adata = make_adata(obs=pd.DataFrame(index=samples))
    adata.obsm["fractions"] = pd.DataFrame({EVIL: [0.4, np.nan], "B": [0.6, np.nan]}, samples)
    run = {"command": EVIL, "inputs": [EVIL], "outputs": [EVIL], "arguments": {EVIL: EVIL}, "warnings": [EVIL]}
    html = pl.report(adata, title=EVIL, source=EVIL, runs=[run])
    page = parse(html)
    assert "<script>alert" not in html
    assert EVIL in page.text
    assert "1 of 2 samples have an estimate" in page.text


def test_report_of_many_samples_has_pixels(estimated):
    rng = np.random.default_rng(0)
    names = [f"s{i}" for i in range(150)]
    adata = make_adata(obs=pd.DataFrame(index=names))
    adata.obsm["fractions"] = pd.DataFrame(rng.dirichlet(np.ones(4), 150), names, list("ABCD"))
    html = pl.report(adata, title="Many", source="f.tsv")
    assert re.findall(r"data:image/([\w+]+);", html) == ["png"]
    assert "Errors on held-out donors are not known" in parse(html).text


def test_runs_are_listed_with_their_warnings(estimated):
    bulk, _ = estimated
    run = {"command": "predict", "seed": 7, "version": "1", "versions": {"numpy": "2"}, "warnings": ["few reads"]}
    text = " ".join(parse(pl.report(bulk, title="Cohort", source="f.tsv", runs=[run])).text.split())
    assert "predict: few reads" in text
    assert "scdeconv 1, numpy 2" in text
