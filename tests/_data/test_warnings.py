from __future__ import annotations

import ast
import threading
import warnings
from pathlib import Path

import pytest

import scdeconv
from scdeconv import pp, tl
from scdeconv._data.warnings import dependency_warnings_ignored, warnings_ignored


@pytest.fixture
def fewer(pairs):
    """Bulk without a tenth of the genes."""
    return pairs["bulk"][:, 24:].copy()


def line_of_warning(function, message):
    with pytest.warns(UserWarning, match=message) as caught:
        function()
    return {item.filename for item in caught if item.category is UserWarning}


def test_warnings_point_at_the_line_of_the_user(pairs, fewer, cohort):
    model = tl.train(pairs, "nnls")
    message = "of the model's .* genes"
    assert line_of_warning(lambda: model.predict(fewer), message) == {__file__}
    assert line_of_warning(lambda: tl.predict(fewer, model), message) == {__file__}
    assert line_of_warning(lambda: model.estimate(fewer), message) == {__file__}
    unpaired = "found none, so no donor is paired"
    assert line_of_warning(lambda: pp.pair(bulk=cohort[1], profiles=pairs["profiles"]), unpaired) == {__file__}


def test_package_warns_in_one_place_only():
    source = Path(scdeconv.__file__).parent
    warning = [
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn"
    ]
    assert warning == ["_data/warnings.py"]


def test_filters_are_as_before_when_threads_overlap():
    before = list(warnings.filters)
    first_inside, second_inside = threading.Event(), threading.Event()

    def first():
        with dependency_warnings_ignored():
            first_inside.set()
            second_inside.wait(5)

    def second():
        first_inside.wait(5)
        with dependency_warnings_ignored():
            second_inside.set()
            thread.join(5)
            assert list(warnings.filters) != before

    thread = threading.Thread(target=first)
    thread.start()
    second()
    assert list(warnings.filters) == before


def test_warnings_of_other_threads_are_not_ignored():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with warnings_ignored(UserWarning, message="mine"):
            thread = threading.Thread(target=lambda: warnings.warn("mine, of another thread", stacklevel=1))
            thread.start()
            thread.join()
            warnings.warn("mine, of this thread", stacklevel=1)
            warnings.warn("yours", stacklevel=1)
    assert [str(item.message) for item in caught] == ["mine, of another thread", "yours"]


def test_filters_that_the_caller_replaces_stay():
    before = list(warnings.filters)
    with warnings.catch_warnings():
        mine = warnings_ignored()
        mine.__enter__()
    # the caller restored the filters while a call was running
    assert list(warnings.filters) == before
    mine.__exit__(None, None, None)
    assert list(warnings.filters) == before


def test_package_never_replaces_all_filters():
    source = Path(scdeconv.__file__).parent
    replacing = [
        path.relative_to(source).as_posix() for path in source.rglob("*.py") if ".catch_warnings(" in path.read_text()
    ]
    # the command line is the program
    assert set(replacing) <= {"cli/__init__.py"}
