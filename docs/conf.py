"""Configuration of Sphinx, used by `make docs`."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from check_table import write_check_table
from method_table import write_method_table

project = "scdeconv"
author = "the scdeconv developers"
copyright = f"2026, {author}"
release = version = installed_version("scdeconv")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
]
# the documentation shows the notebooks; `make tutorials` makes them from these texts
exclude_patterns = [
    "_build",
    "**.ipynb_checkpoints",
    "tutorials/*.md",
    "generated/method_table.md",
    "generated/check_table.md",
]
templates_path = ["_templates"]

# Links to other projects need their inventories from the network, which is always available on Read the Docs.
if os.environ.get("READTHEDOCS"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "mudata": ("https://mudata.readthedocs.io/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/pandas-docs/stable/", None),
        "python": ("https://docs.python.org/3", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "scvi": ("https://docs.scvi-tools.org/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }

# References to our public names must resolve; those to other projects need their inventories.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!scdeconv).*"),
    (r"py:.*", r"scdeconv\.(.*\.)?_.*"),
    (r"py:.*", r"scdeconv\.models\..*State"),
]
# Types that are imported only for the type checker, some of them in other packages.
suppress_warnings = ["sphinx_autodoc_typehints.forward_reference", "sphinx_autodoc_typehints.guarded_import"]

autodoc_member_order = "bysource"
autosummary_generate = True
default_role = "literal"
napoleon_custom_sections = ["Writes"]
napoleon_google_docstring = False
napoleon_include_init_with_doc = False
napoleon_use_param = True
napoleon_use_rtype = True
always_document_param_types = True
typehints_defaults = "braces"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
bibtex_bibfiles = ["../src/scdeconv/references.bib"]
bibtex_reference_style = "author_year"

html_theme = "sphinx_book_theme"
html_title = project

write_method_table(Path(__file__).parent / "generated" / "method_table.md")
write_check_table(Path(__file__).parent / "generated" / "check_table.md")
