from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scdeconv import pl, tl
from scdeconv._data.annotated import make_adata

# elements without an end
VOID = {"meta", "img"}
EVIL = '<script>alert("x")</script>&'
PATH = Path("cohort.html")
PARTS = ["Input checks", "Fractions", "Quality flags", "Accuracy", "Methods", "Versions and seeds"]


class Checked(HTMLParser):
    """Collects elements, text and references, and checks that all elements end."""

    def __init__(self):
        super().__init__()
        self.open, self.names, self.text, self.loaded, self.links = [], [], "", [], []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "srcset", "poster", "data")]
        self.links += [value for name, value in attrs if name == "href"]
        assert tag == "a" or not any(name == "href" for name, _ in attrs)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def parse(html):
    page = Checked()
    page.feed(html)
    page.close()
    assert not page.open
    page.text = " ".join(page.text.split())
    return page


def page_of(adata, **arguments):
    html = pl.report_files(adata, PATH, **arguments)[PATH]
    return html, parse(html)


def test_report_is_one_file_without_network(bulk, model, tmp_path):
    pl.report(bulk, tmp_path / "cohort.html", model=model)
    page = parse((tmp_path / "cohort.html").read_text(encoding="utf-8"))
    assert page.loaded
    assert all(source.startswith("data:image/") for source in page.loaded)
    assert all(link.startswith(("#", "https://doi.org/")) for link in page.links)
    assert not {"link", "iframe", "object", "base", "form"} & set(page.names)
    assert page.names.count("script") == 1
    assert "url(" not in (tmp_path / "cohort.html").read_text(encoding="utf-8")


def test_report_does_not_change_the_data(bulk, model, unchanged, tmp_path, without_figures):
    with unchanged(bulk):
        pl.report(bulk, tmp_path / "cohort.html", model=model)


def test_report_has_all_parts_in_order(bulk, model, without_figures):
    html, page = page_of(bulk, model=model)
    assert re.findall(r"<h2>(.*?)</h2>", html) == PARTS
    ids = re.findall(r'<section id="(\w+)">', html)
    assert [link[1:] for link in page.links if link[0] == "#"] == ids


def test_summary_is_two_sentences_with_both_errors(bulk, model, without_figures):
    html, _ = page_of(bulk, model=model)
    (summary,) = re.findall(r'<p class="summary">(.*?)</p>', html)
    assert len(re.findall(r"\.( |$)", summary)) == 2
    rmse, of_mean = model.held_out_.errors()
    assert f"squared error is {rmse:.3f}, that of the mean composition is {of_mean:.3f}" in summary
    assert "4 cell types in 12 bulk samples" in summary


def test_recorded_errors_are_those_of_the_model(bulk, model, without_figures):
    with_model, without = (page_of(bulk, **arguments)[1].text for arguments in ({"model": model}, {}))
    for text in (with_model, without):
        assert "Errors on 10 held-out donors" in text
        assert model.summary_ in text
    assert "genes of the model are in the bulk" in with_model
    assert "Measured and predicted fractions of held-out donors" in with_model


def test_errors_of_merged_types_are_not_shown(bulk, without_figures):
    types = list(bulk.obsm["fractions"])
    merged = tl.merge_types(bulk, {"both": types[:2]})
    assert "The error on held-out donors is not known" in page_of(merged)[1].text


def test_page_has_values_bounds_and_flags(bulk, model, without_figures):
    first = bulk.obs_names[0]
    bulk.obsm["fractions_quality"]["outside"] = bulk.obs_names == first
    _, page = page_of(bulk, model=model)
    assert "12 of 12 samples have an estimate" in page.text
    assert (
        f"1 of 12 samples differ from the training donors, so that their fractions are extrapolated: '{first}'"
        in page.text
    )
    value, low, high = (bulk.obsm[f"fractions{side}"].iloc[0, 0] for side in ("", "_lower", "_upper"))
    assert f"{value:.3f} {low:.3f}–{high:.3f}" in page.text
    assert "with a coverage of 80%" in page.text


def test_report_says_if_the_mean_is_better(bulk, without_figures):
    bulk.uns["scdeconv"]["fractions"]["held_out"]["rmse"] = 0.5
    assert "so the model is not better than the mean composition" in page_of(bulk)[1].text


def test_samples_with_the_fit_fail_a_check(bulk, model, without_figures):
    with pytest.warns(UserWarning, match="no estimate"):
        tl.predict(bulk, model, in_sample=True)
    html, _ = page_of(bulk)
    assert re.search(r'class="failed">.*are training samples with the fit', html)


def test_measured_fractions_are_compared_with_the_estimate(bulk, without_figures):
    row = tl.evaluate(bulk).loc["all entries"]
    html, _ = page_of(bulk)
    cells = re.findall(r"<span>all entries</span></th>(.*?)</tr>", html)[-1]
    values = re.findall(r">([^<]+)</td>", cells)
    assert values[:3] == [f"{row['n']:.0f}", f"{row['rmse']:.3f}", f"{row['rmse_mean_composition']:.3f}"]


def test_report_escapes_all_names(without_figures):
    samples = pd.Index([EVIL, "s2"])
    adata = make_adata(obs=pd.DataFrame(index=samples))
    adata.obsm["fractions"] = pd.DataFrame({EVIL: [0.4, np.nan], "B": [0.6, np.nan]}, samples)
    adata.uns["scdeconv"] = {"fractions": {"method": EVIL, "version": EVIL, "parameters": {EVIL: EVIL}, "seed": EVIL}}
    run = {"command": EVIL, "inputs": [EVIL], "outputs": [EVIL], "arguments": {EVIL: EVIL}, "warnings": [EVIL]}
    html, page = page_of(adata, title=EVIL, source=EVIL, runs=[run])
    assert "<script>alert" not in html
    assert page.names.count("script") == 1
    assert EVIL in page.text
    assert "1 of 2 samples have an estimate" in page.text


def test_runs_are_listed_with_their_warnings(bulk, without_figures):
    run = {"command": "predict", "seed": 7, "version": "1", "versions": {"numpy": "2"}, "warnings": ["few reads"]}
    text = page_of(bulk, runs=[run])[1].text
    assert "predict: few reads" in text
    assert "scdeconv 1, numpy 2" in text


def test_many_types_have_tables_for_paper(make_estimate, without_figures):
    html, _ = page_of(make_estimate(4, 20))
    tables = re.findall(
        r'<div class="scroll( screen| paper)?(?: short)?" tabindex.*?<thead>(.*?)</thead>', html, flags=re.DOTALL
    )
    media = [medium for medium, _ in tables]
    assert media[:4] == [" screen", " paper", " paper", " paper"]
    shown = [re.findall(r">(type \d+)<", head) for _, head in tables[:4]]
    assert shown[0] == [f"type {number}" for number in range(20)]
    assert sum(shown[1:], []) == shown[0]
    assert max(map(len, shown[1:])) <= 8


def test_multiqc_files_have_fractions_and_flags(make_estimate, tmp_path, without_figures):
    adata = make_estimate(5, 3)
    adata.obsm["fractions"].iloc[0] = np.nan
    adata.obsm["fractions_quality"]["outside"] = [False, True, False, False, False]
    pl.report(adata, tmp_path / "cohort.html")
    fractions, quality = (
        json.loads((tmp_path / f"cohort_{name}_mqc.json").read_text(encoding="utf-8"))
        for name in ("fractions", "quality")
    )
    assert fractions["plot_type"] == "bargraph"
    table = pd.DataFrame(fractions["data"]).T
    pd.testing.assert_frame_equal(table, adata.obsm["fractions"].iloc[1:], atol=1e-6, rtol=0)
    assert quality["plot_type"] == "table"
    assert [row["flags"] for row in quality["data"].values()] == ["no estimate", "extrapolated", "none", "none", "none"]
    assert {content["parent_id"] for content in (fractions, quality)} == {"scdeconv"}


def test_missing_fractions_are_an_error(make_estimate, tmp_path, without_figures):
    with pytest.raises(KeyError, match="Expected 'other' in adata.obsm"):
        pl.report(make_estimate(3, 2), tmp_path / "r.html", key="other")
    assert not list(tmp_path.iterdir())


def test_comparison_of_groups_is_shown_when_made(bulk, without_figures):
    assert "Comparison of groups" not in page_of(bulk)[1].text
    bulk.obs["state"] = ["ill", "well"] * 6
    fractions = bulk.obsm["fractions"].to_numpy(copy=True)
    fractions[::2, 0] *= 4
    bulk.obsm["fractions"].iloc[:] = fractions / fractions.sum(axis=1, keepdims=True)
    table = tl.compare_fractions(bulk, "state")
    assert table["q_value"].iloc[0] < 0.05
    html, page = page_of(bulk)
    first = bulk.obsm["fractions"].columns[0]
    assert f"{first} (well - ill, ratio {table['ratio'].iloc[0]:.3f})" in page.text
    assert f'class="marked"><th scope="row"><span>{first}</span>' in html.split('id="comparison"')[1]
    assert "compared by state (6 ill, 6 well)" in page.text
    assert "Pustejovsky" in page.text
    # of another estimate
    bulk.uns["scdeconv"]["compare_fractions"]["key"] = "other"
    assert "Comparison of groups" not in page_of(bulk)[1].text


def test_headings_sort_and_tell_their_order(bulk, without_figures):
    html, _ = page_of(bulk)
    for head in re.findall(r"<thead>(.*?)</thead>", html, flags=re.DOTALL):
        cells = re.findall(r"<th [^>]*>.*?</th>", head)
        assert cells
        for cell in cells:
            assert re.fullmatch(
                r'<th scope="col" aria-sort="none"( class="number")?><button type="button">[^<]+</button></th>', cell
            )


def test_only_the_script_of_the_page_may_run(bulk, without_figures):
    html, _ = page_of(bulk)
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    (allowed,) = re.findall(r"script-src 'sha256-([^']+)'", html)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() == allowed
    assert "default-src 'none'" in html


def test_many_samples_are_below_five_megabytes(make_estimate):
    # docs/benchmarks/report_page.md has 25 types
    html, _ = page_of(make_estimate(300, 4))
    assert len(html.encode()) < 5e6 / 4


def wrong_quality(bulk):
    bulk.obsm["fractions_quality"]["outside"] = "perhaps"


def fewer_bounds(bulk):
    bulk.obsm["fractions_lower"] = bulk.obsm["fractions_lower"].iloc[:, :2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda bulk: bulk.obsm.update(fractions=bulk.obsm["fractions"] * 100), "Divide the table by 100"),
        (lambda bulk: bulk.obsm.update(fractions=bulk.obsm["fractions"] - 0.5), "fractions of at least 0"),
        (lambda bulk: bulk.obsm.update(fractions=bulk.obsm["fractions"] * np.inf), "finite numbers"),
        (lambda bulk: bulk.obsm.update(fractions=bulk.obsm["fractions"].assign(p="a")), "found 1 non-numeric columns"),
        (
            lambda bulk: bulk.obsm.update(fractions=bulk.obsm["fractions"].iloc[:, [0, 0]]),
            "unique cell types .*repeated",
        ),
        (lambda bulk: bulk.obsm.update(fractions_quality=np.zeros((bulk.n_obs, 2))), "DataFrame in adata.obsm"),
        (
            lambda bulk: bulk.uns["scdeconv"]["fractions"].update(held_out="x"),
            "the held_out of the estimate .*found 'x'",
        ),
        (wrong_quality, "True or False in the column 'outside' .*found 'perhaps'"),
        (fewer_bounds, "in adata.obsm..fractions_lower.., found none of"),
    ],
)
def test_tables_with_problems_are_refused(bulk, tmp_path, change, message, without_figures):
    change(bulk)
    with pytest.raises(ValueError, match=message):
        pl.report(bulk, tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_repeated_sample_names_are_refused(make_estimate, without_figures):
    adata = make_estimate(3, 2)
    adata.obs_names = ["s"] * 3
    with pytest.raises(ValueError, match="unique sample names, found 's' repeated"):
        page_of(adata)


def test_model_of_another_estimate_is_refused(bulk, model, make_estimate, without_figures):
    bulk.uns["scdeconv"]["fractions"]["trained_on"] = "other donors"
    with pytest.raises(ValueError, match="found another one: trained_on .* instead of 'other donors'"):
        page_of(bulk, model=model)
    with pytest.raises(ValueError, match="found one without the cell types 'type 0'"):
        page_of(make_estimate(3, 2), model=model)


def test_model_keeps_the_record_of_conversions(bulk, model, without_figures):
    tl.convert_fractions(bulk, dict(zip(model.cell_types_, [1.0, 2, 3, 4], strict=True)), to="rna")
    _, page = page_of(bulk, key="rna_fractions", model=model)
    assert "shares of RNA" in page.text
    assert "held-out donors is not known" in page.text


def test_flags_as_text_of_other_programs(bulk, without_figures):
    quality = bulk.obsm["fractions_quality"]
    quality["outside"] = np.where(np.arange(bulk.n_obs) == 0, "TRUE", "FALSE")
    assert "1 of 12 samples differ from the training donors" in page_of(bulk)[1].text


def test_nullable_fractions_are_read(bulk, without_figures):
    before = page_of(bulk)[0]
    bulk.obsm["fractions"] = bulk.obsm["fractions"].astype("Float64")
    assert page_of(bulk)[0] == before


def test_partly_measured_samples_are_not_compared(bulk, without_figures):
    measured = bulk.obsm["measured_fractions"] = bulk.obsm["fractions"].copy()
    measured.iloc[2:, 0] = np.nan
    expected = tl.evaluate(bulk[:2].copy()).loc["all entries", "n"]
    html, _ = page_of(bulk)
    section = html.rsplit("samples of this report with measured fractions", 1)[1]
    assert f'<span>all entries</span></th><td class="number">{expected}</td>' in section
    measured.iloc[:, 0] = np.nan
    assert "samples of this report with measured fractions" not in page_of(bulk)[0]


def test_boxes_need_the_groups_of_the_comparison(bulk, without_figures):
    bulk.obs["state"] = ["ill", "well"] * 6
    tl.compare_fractions(bulk, "state")
    assert "Fractions by state" in page_of(bulk)[0]
    bulk.obs["state"] = ["a", "b"] * 6
    assert "Fractions by state" not in page_of(bulk)[0]


def test_equal_reports_are_equal_files(make_estimate, tmp_path):
    for name in ("a.html", "b.html"):
        pl.report(make_estimate(3, 2), tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_names_are_no_formulas_in_figures(make_estimate, tmp_path):
    adata = make_estimate(2, 2)
    names = {"type 0": "$\\frac$", "type 1": "_hidden"}
    for side in ("", "_lower", "_upper"):
        adata.obsm[f"fractions{side}"] = adata.obsm[f"fractions{side}"].rename(columns=names)
    pl.report(adata, tmp_path / "r.html")
    assert [
        text.get_text() for text in pl.fractions(adata, kind="bars", cell_types=["_hidden"]).get_legend().get_texts()
    ]
