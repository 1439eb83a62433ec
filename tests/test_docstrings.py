"""Docstrings of all public objects pass the checks of numpydoc that this package uses."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
from pathlib import Path

import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import ALLOWED_SECTIONS, Validator, validate

_specification = importlib.util.spec_from_file_location("test_examples", Path(__file__).with_name("test_examples.py"))
_examples = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(_examples)
PUBLIC = _examples.PUBLIC

pytestmark = pytest.mark.filterwarnings("ignore:Unknown section Writes")

CODES = {
    "GL03",  # blank lines
    "GL06",  # unknown section
    "GL07",  # order of sections
    "GL08",  # no docstring
    "PR01",  # parameter without description
    "PR02",  # description without parameter
    "PR07",  # empty description
    "RT01",  # no Returns
    "SS01",  # no summary
    "SS03",  # summary without full stop
    "SS06",  # summary of several lines
    "YD01",  # no Yields
}
# "Writes": what a function writes to the object it is given
after_returns = ALLOWED_SECTIONS.index("Yields") + 1
SECTIONS = [*ALLOWED_SECTIONS[:after_returns], "Writes", *ALLOWED_SECTIONS[after_returns:]]


class PublicDocstring(Validator):
    """A docstring with types in the signature and dataclass fields under Attributes."""

    def __init__(self, obj_name):
        super().__init__(get_doc_object(obj_name))

    @property
    def signature_parameters(self):
        """Parameters of the signature; numpydoc drops ``cls`` of plain functions."""
        found = super().signature_parameters
        is_plain = inspect.isfunction(self.obj) and "." not in self.obj.__qualname__
        return ("cls", *found) if is_plain and "cls" in inspect.signature(self.obj).parameters else found

    @property
    def doc_all_parameters(self):
        documented = super().doc_all_parameters
        if dataclasses.is_dataclass(self.obj):
            fields = {field.name for field in dataclasses.fields(self.obj)}
            attributes = self._doc_parameters(["Attributes"])
            documented |= {name: text for name, text in attributes.items() if name in fields}
        return documented

    @property
    def section_titles(self):
        """Remove a correctly placed section "Writes", which numpydoc does not know."""
        found = super().section_titles
        in_order = found == [section for section in SECTIONS if section in found]
        return [section for section in found if section != "Writes"] if in_order else found


def public_members(cls):
    """Yield names of the public methods and properties that a class has from this package, by the class that defines them."""
    for owner in cls.__mro__:
        if owner.__module__.startswith("scdeconv."):
            for name, value in vars(owner).items():
                documented = inspect.isroutine(value) or isinstance(value, (property, classmethod, staticmethod))
                if documented and not name.startswith("_"):
                    yield owner, name


def documented_objects():
    """Return all public functions, classes, methods and properties, each once, by short names."""
    objects = dict(PUBLIC)
    classes = {value: name for name, value in PUBLIC.items() if inspect.isclass(value)}
    for cls in classes:
        for owner, member in public_members(cls):
            base_class = f"{owner.__module__.split('.')[1]}.{owner.__name__}"
            objects[f"{classes.get(owner, base_class)}.{member}"] = getattr(owner, member)
    return objects


OBJECTS = documented_objects()


def problems_of(value):
    found = validate(value, validator_cls=PublicDocstring)["errors"]
    return [f"{code}: {message}" for code, message in found if code in CODES]


@pytest.mark.parametrize("name", OBJECTS)
def test_docstring_is_complete(name):
    assert not problems_of(OBJECTS[name])


def without_docstring(adata):
    return adata


def with_gaps(adata, layer):
    """Return the expression.

    Parameters
    ----------
    adata, layers
        Bulk samples.

    Examples
    --------
    >>> 1
    1

    Raises
    ------
    ValueError
        Never.
    """
    return adata, layer


def with_writes_in_its_place(adata, layer):
    """Write the expression.

    Parameters
    ----------
    adata, layer
        Bulk samples and where to read them.

    Writes
    ------
    ``adata.obsm``
        The expression.

    Raises
    ------
    ValueError
        Never.
    """


def test_gaps_are_found():
    assert [problem[:4] for problem in problems_of(without_docstring)] == ["GL08"]
    assert [problem[:4] for problem in problems_of(with_gaps)] == ["GL07", "PR01", "PR02", "RT01"]
    assert problems_of(with_writes_in_its_place) == []
