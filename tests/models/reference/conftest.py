from __future__ import annotations

import warnings

import pytest


@pytest.fixture
def silence():
    """No warning is allowed in this context."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
