"""Versions of the libraries that a process has loaded."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version

# libraries that results depend on, and their packages
LIBRARIES = {name: name for name in ("numpy", "pandas", "scipy", "anndata", "mudata", "torch")} | {
    "sklearn": "scikit-learn"
}


def loaded_versions() -> dict[str, str]:
    """Return the versions of Python and of the loaded libraries."""
    loaded = {name: version(package) for name, package in LIBRARIES.items() if name in sys.modules}
    return {"python": platform.python_version(), **loaded}
