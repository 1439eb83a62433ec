"""The examples in the docstrings run, everything public has one, and the API page lists it."""

from __future__ import annotations

import doctest
import inspect
import re
import tempfile
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

import scdeconv

mpl.use("Agg")

API = Path(__file__).parents[1] / "docs" / "api.md"


def public_objects():
    """Return what the package and its parts name in ``__all__``, each object once, by what users write after ``scdeconv.``."""
    parts = [getattr(scdeconv, name) for name in scdeconv.__all__]
    modules = [part for part in parts if inspect.ismodule(part)]
    objects = {}
    for module in modules:
        for member in module.__all__:
            value = getattr(module, member)
            if not any(value is other for other in objects.values()):
                objects[f"{module.__name__.removeprefix('scdeconv.')}.{member}"] = value
    assert all(any(part is value for value in objects.values()) for part in parts if part not in modules)
    return objects


PUBLIC = public_objects()


def find_examples():
    """All docstrings with examples, including methods. Examples start without defined names."""
    finder = doctest.DocTestFinder()
    # module=False: what is decorated, or defined elsewhere, counts as well
    found = [test for name, value in PUBLIC.items() for test in finder.find(value, name, module=False, globs={})]
    return {test.name: test for test in found if test.examples}


EXAMPLES = find_examples()


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_examples_run_with_the_shown_output(example, tmp_path, monkeypatch):
    if any(doctest.SKIP in statement.options for statement in example.examples):
        pytest.skip("reads public data from the network")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    report = []
    failed, _ = doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    plt.close("all")
    assert not failed, "".join(report)


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_has_an_example(name):
    assert name in EXAMPLES
    assert re.search(r"^ *Examples\n *-{8}\n", PUBLIC[name].__doc__, flags=re.MULTILINE)


def test_api_page_lists_exactly_the_public_names():
    tables = re.findall(r"\.\. autosummary::(.*?)```", API.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line.strip() for table in tables for line in table.splitlines()]
    assert sorted(line for line in lines if line and not line.startswith(":")) == sorted(PUBLIC)
