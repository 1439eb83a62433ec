from __future__ import annotations

import pytest

from scdeconv import models
from scdeconv.pl._report.citations import Citations, bibliography, cited_in

# not published as papers with a reference
UNPUBLISHED = ("this library", "baseline", "SimpleDNN paper (2025)")


def test_entries_of_the_file_are_read():
    text = bibliography()
    assert text["Jew2020"]["doi"] == "10.1038/s41467-020-15816-6"
    assert all({"author", "title", "year"} <= {*entry} for entry in text.values())


@pytest.mark.parametrize("key", models.built_in_methods())
def test_paper_of_each_method_is_found(key):
    reference = models.records()[key].reference
    found = cited_in(reference)
    n_papers = sum(
        part.strip().split(": ")[-1] not in UNPUBLISHED and part.strip()[-4:].isdigit() for part in reference.split(";")
    )
    assert len(found) == n_papers, reference


def test_references_are_numbered_and_unicode():
    citations = Citations()
    assert (
        citations.cite("Jew2020", "Chu2022") + citations.cite("Newman2019") + citations.cite("Chu2022")
        == " [1, 2] [3] [2]"
    )
    assert citations.cite() == ""
    first, second, third = citations.references()
    assert first.text == (
        "Jew B, Alvarez M, Rahmani E, Miao Z, Ko A, et al. Accurate estimation of cell composition in bulk expression "
        "through robust integration of single-cell information. Nature Communications 11:1971 (2020)."
    )
    assert first.link == "https://doi.org/10.1038/s41467-020-15816-6"
    assert second.text.startswith("Chu T, Wang Z, Pe'er D, Danko CG. Cell type")
    assert "BayesPrism enables Bayesian" in second.text
    assert third.text.startswith("Newman AM, Steen CB,")
